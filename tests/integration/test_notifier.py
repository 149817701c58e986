"""The notifier on a real Redis: one message per due job, without patient data."""

import json
import socket
import threading
from contextlib import contextmanager, suppress

import pytest
from redis import Redis
from redis.exceptions import RedisError

from db.models import JobKind
from lumbar.settings import Settings
from tests.peers import free_port
from tests.servers import Redis as Server
from tests.system import wait_until
from worker import celery_app
from worker.broker import broker_fault
from worker.celery_app import BrokerUnavailable, CeleryNotifier, create_app


@contextmanager
def proxy(port, turns, held=None):
    """A port that passes on to a server, and notes whose turn it is to speak.

    The server's answers wait until ``held`` is set.
    """

    def passing(source, sink, speaker):
        with suppress(OSError):
            while content := source.recv(65536):
                if turns[-1:] != [speaker]:
                    turns.append(speaker)
                if held and speaker == "server":
                    held.wait(60)
                sink.sendall(content)
        sink.close()

    def accept():
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                for ends in ((near, far, "client"), (far, near, "server")):
                    threading.Thread(target=passing, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


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


def test_many_messages_take_no_more_round_trips_than_one(redis, broker):
    turns = []
    with proxy(redis.port, turns) as port:
        notifier = CeleryNotifier(create_app(Settings(broker_url=f"redis://127.0.0.1:{port}/0")))
        notifier.notify(JobKind.ANALYSE, 1)
        one = len(turns)
        broker.flushall()
        turns.clear()
        notifier.notify(JobKind.ANALYSE, 200)
    messages = [json.loads(message) for message in broker.lrange("lumbar.analyse", 0, -1)]
    assert len({message["headers"]["id"] for message in messages}) == 200
    assert len(turns) <= one + 20  # long messages and answers are passed on in parts


def test_a_broker_that_answers_slowly_does_not_hold_up_the_sweep(redis, broker, monkeypatch):
    monkeypatch.setattr(celery_app, "NOTIFY_S", 0.2)
    answers = threading.Event()
    with proxy(redis.port, [], answers) as port:
        notifier = CeleryNotifier(create_app(Settings(broker_url=f"redis://127.0.0.1:{port}/0")))
        for _ in range(2):  # the second call does not wait: the first still does
            with pytest.raises(BrokerUnavailable, match=r"did not answer within 0\.2 s"):
                notifier.notify(JobKind.ANALYSE, 3)
        answers.set()
        wait_until(lambda: waiting(broker) == 3, 30, lambda: str(waiting(broker)))
        monkeypatch.undo()
        wait_until(notifier._sent.done, 30, lambda: "it never ended")
        notifier.notify(JobKind.ANALYSE, 4)
    assert waiting(broker) == 4


def test_cluster_mode_is_named(tmp_path):
    with Server(tmp_path / "cluster", cluster_enabled="yes") as server:
        server.command("cluster", "addslotsrange", "0", "16383")
        wait_until(lambda: "cluster_state:ok" in server.command("cluster", "info"), 30, lambda: "")
        server.command("set", "x", "1")
        with Redis.from_url(server.url) as client, pytest.raises(RedisError) as refused:
            client.brpop(["lumbar.analyse", "lumbar.preview"], timeout=1)
    assert "cluster mode is not supported" in broker_fault(refused.value, server.url)
