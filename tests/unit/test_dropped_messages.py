"""What is logged about the broker: no flood of dropped messages, and nothing twice."""

import logging
from contextlib import suppress
from types import SimpleNamespace

from celery.worker import consumer
from kombu.exceptions import OperationalError
from structlog.testing import capture_logs

import worker.consumer  # noqa: F401 - it silences what is tested
from worker.transport import Dropped, NotANotification


def test_a_flood_is_logged_by_its_count_each_minute():
    now = [0.0]
    dropped = Dropped(lambda: now[0])
    with capture_logs() as events:
        for _ in range(1000):
            dropped.add(NotANotification({}))
        assert [event["event"] for event in events] == ["message.dropped"] * Dropped.LOGGED
        events.clear()
        dropped.end_period()
        assert events == []
        now[0] += Dropped.PERIOD_S
        dropped.end_period()
        assert [(event["event"], event["count"]) for event in events] == [
            ("messages.dropped", 1000 - Dropped.LOGGED)
        ]
        events.clear()
        dropped.add(ValueError())
        assert [(event["event"], event["error"]) for event in events] == [
            ("message.dropped", "ValueError")
        ]


def test_celerys_record_of_a_lost_connection_is_not_logged_beside_ours(caplog):
    lost = SimpleNamespace()
    with suppress(AttributeError):  # what it does after the record needs a worker
        consumer.Consumer.on_connection_error_after_connected(lost, OperationalError("lost"))
    assert caplog.records == []
    logging.getLogger(consumer.Consumer.__module__).warning("anything else")
    assert len(caplog.records) == 1
