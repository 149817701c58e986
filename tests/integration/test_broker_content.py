"""What lies in the broker is not trusted: what is no notification is dropped, and work goes on."""

import copy
import json
from base64 import b64encode

import pytest
from redis import Redis as Client

from tests.servers import Redis
from tests.system import wait_until
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.slow

NAME = "Doe^Jane"  # a value that must not be logged


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with Redis(tmp_path_factory.mktemp("broker"), notify_keyspace_events="KEA") as server:
        yield server


@pytest.fixture(scope="module")
def client(broker):
    with Client.from_url(broker.url) as connected:
        yield connected


@pytest.fixture(scope="module")
def sent(broker, tmp_path_factory):
    """A message as the notifier sends it."""
    with Redis(tmp_path_factory.mktemp("another")) as other:
        WorkerProcess(tmp_path_factory.mktemp("none"), broker_url=other.url).notify()
        return json.loads(other.command("lindex", "lumbar.analyse", "0"))


def body(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b64encode(text).decode()


EMBEDDED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
OTHER = {"task": "deliver", "args": [], "kwargs": {}, "options": {}}

FOREIGN = {
    "body 17": {"body": body(17)},
    "body null": {"body": body(None)},
    "a body that is a text": {"body": body(NAME)},
    "arguments": {"body": body([[NAME], {}, EMBEDDED])},
    "named arguments": {"body": body([[], {"name": NAME}, EMBEDDED])},
    "a callback": {"body": body([[], {}, EMBEDDED | {"callbacks": [OTHER]}])},
    "a chain": {"body": body([[], {}, EMBEDDED | {"chain": [OTHER]}])},
    "a body without embedded": {"body": body([[], {}])},
    "an invalid body": {"body": "%%%"},
    "a body that is no JSON": {"body": body(NAME.encode())},
    "a body that is no UTF-8": {"body": body(b"\xff\xfe")},
    "a deep body": {"body": body(b"[" * 100_000)},
    "a huge body": {"body": body([[NAME * 5_000_000], {}, EMBEDDED])},
    "no body": {"body": None},
    "a body that is a number": {"body": 17},
    "an unknown task": {"headers": {"task": NAME}},
    "a task that is a list": {"headers": {"task": [NAME]}},
    "a task of Celery": {"headers": {"task": "celery.backend_cleanup"}},
    "no task": {"headers": {"task": None}},
    "headers that are a list": {"headers": [NAME]},
    "no headers": {"headers": None},
    "pickle": {"content-type": "application/x-python-serialize", "content-encoding": "binary"},
    "yaml": {"content-type": "application/x-yaml"},
    "another encoding": {"content-encoding": "utf-7"},
    "a compressed body": {"headers": {"compression": "bzip2"}},
    "a far ETA": {"headers": {"eta": "2999-01-01T00:00:00+00:00"}},
    "an ETA that is none": {"headers": {"eta": NAME}},
    "expires that are none": {"headers": {"expires": [NAME]}},
    "an id that is a list": {"headers": {"id": [NAME], "eta": 1}},
    "no properties": {"properties": None},
    "properties that are a list": {"properties": [NAME]},
    "no delivery tag": {"properties": {"delivery_tag": None}},
    "another body encoding": {"properties": {"body_encoding": NAME}},
}

RAW = {
    "no JSON": NAME.encode(),
    "empty": b"",
    "no UTF-8": b"\xff\xfe\x00",
    "a number": b"17",
    "a list": b"[]",
    "an empty object": b"{}",
    "a deep list": b"[" * 200_000,
    "not a number": b'{"body": NaN}',
    "a long number": b"1" * 10_000,
    "a class": b'{"__type__": "decimal", "__value__": "x"}',
}


def changed(message, change):
    """The message with other values; a value of None is left out."""
    message = copy.deepcopy(message)
    for name, value in change.items():
        if isinstance(value, dict):
            message[name] |= value
            message[name] = {key: item for key, item in message[name].items() if item is not None or
                             key in {"eta", "expires"}}  # fmt: skip
        elif value is None:
            del message[name]
        else:
            message[name] = value
    return json.dumps(message).encode()


def is_dropped(worker, client, content):
    """Puts it before a notification: it is dropped, the next job is done, nothing is logged."""
    dropped = worker.log().count("message.dropped")
    client.lpush("lumbar.analyse", content)
    wait_until(
        lambda: worker.log().count("message.dropped") == dropped + 1,
        30,
        lambda: worker.log()[-999:],
    )
    worker.does_the_next_job()
    assert NAME not in worker.log()
    assert "broker.awaited" not in worker.log()  # the connection was kept
    assert client.llen("lumbar.analyse") == 0


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_a_message_that_is_no_notification_is_dropped(worker, client, sent, change):
    is_dropped(worker, client, changed(sent, change))


@pytest.mark.parametrize("content", RAW.values(), ids=RAW)
def test_what_is_no_message_is_dropped(worker, client, content):
    is_dropped(worker, client, content)


def test_a_dropped_message_is_logged_with_its_id(worker, client, sent):
    is_dropped(worker, client, changed(sent, {"body": body(17)}))
    assert f"event=message.dropped id={sent['headers']['id']}" in worker.log()


def test_a_notification_of_a_kind_this_worker_does_not_know_ends_nothing(worker, client, sent):
    faults = worker.log().count("event=task.fault")
    client.lpush("lumbar.analyse", changed(sent, {"headers": {"task": "preview"}}))
    wait_until(lambda: worker.log().count("event=task.fault") > faults, 30, worker.log)
    worker.does_the_next_job()


def test_messages_that_were_never_acknowledged_are_not_taken_up(worker, client, sent):
    client.hset("unacked", "tag", json.dumps([{"poison": NAME}, "", "lumbar.analyse"]))
    client.zadd("unacked_index", {"tag": 1})
    client.client_kill_filter(_type="normal", skipme=True)
    worker.does_the_next_job()
    assert client.hexists("unacked", "tag")
    client.delete("unacked", "unacked_index")


@pytest.mark.parametrize("command", ["shutdown", "pool_restart", "cancel_consumer"])
def test_a_worker_obeys_no_remote_control(worker, client, command):
    message = {
        "body": body({"method": command, "arguments": {"queue": "lumbar.analyse"}}),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"clock": 1},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": "x",
            "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
        },
    }
    assert client.publish("/0.celery.pidbox", json.dumps(message)) == 0  # nobody listens
    worker.does_the_next_job()


def test_every_kind_of_job_is_notified_of_by_a_message_that_is_accepted(worker, client):
    from worker.notifications import NAMES, is_notification, queue_name

    for kind in NAMES:
        client.delete(queue_name(kind))
    worker.process.send_signal(19)  # SIGSTOP: the messages stay
    try:
        for kind in NAMES:
            worker.notifier.notify(kind, 3)
            found = [json.loads(item) for item in client.lrange(queue_name(kind), 0, -1)]
            assert found
            assert all(map(is_notification, found))
    finally:
        for kind in NAMES:
            client.delete(queue_name(kind))
        worker.process.send_signal(18)
    worker.does_the_next_job()
