"""The notifier on a real Redis: one message per due job, without patient data."""

import json

import pytest
from redis import Redis

from db.models import JobKind
from lumbar.settings import Settings
from tests.peers import free_port
from worker.celery_app import BrokerUnavailable, CeleryNotifier, create_app


@pytest.fixture
def broker(redis):
    client = Redis.from_url(redis.url)
    client.flushall()
    yield client
    client.flushall()
    client.close()


@pytest.fixture
def notifier(redis, broker):
    return CeleryNotifier(create_app(Settings(broker_url=redis.url)))


def waiting(broker, kind=JobKind.ANALYSE):
    return broker.llen(f"lumbar.{kind}")


def test_as_many_messages_wait_as_jobs_are_due_however_often_it_notifies(notifier, broker):
    for due in (2, 2, 5, 5, 3, 0):
        notifier.notify(JobKind.ANALYSE, due)
    assert waiting(broker) == 5
    assert waiting(broker, JobKind.PREVIEW) == 0


def test_it_notifies_again_after_workers_took_messages_and_after_a_flush(notifier, broker):
    notifier.notify(JobKind.PREVIEW, 3)
    broker.rpop("lumbar.preview")
    notifier.notify(JobKind.PREVIEW, 3)
    assert waiting(broker, JobKind.PREVIEW) == 3
    broker.flushall()
    notifier.notify(JobKind.PREVIEW, 3)
    assert waiting(broker, JobKind.PREVIEW) == 3


def test_a_message_names_the_task_and_contains_nothing_else(notifier, broker):
    notifier.notify(JobKind.ANALYSE, 1)
    message = json.loads(broker.lindex("lumbar.analyse", 0))
    assert message["headers"]["task"] == "analyse_study"
    assert (message["headers"]["argsrepr"], message["headers"]["kwargsrepr"]) == ("()", "{}")


def test_an_unavailable_broker_is_reported_at_once():
    notifier = CeleryNotifier(create_app(Settings(broker_url=f"redis://127.0.0.1:{free_port()}/0")))
    notifier.notify(JobKind.ANALYSE, 0)
    with pytest.raises(BrokerUnavailable):
        notifier.notify(JobKind.ANALYSE, 1)
