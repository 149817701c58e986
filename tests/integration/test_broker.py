"""A worker and the sweep's notifier on a real Redis that fails: both go on by themselves."""

import re
import subprocess
import time
from pathlib import Path

import pytest

from lumbar.errors import WrongSetting
from lumbar.settings import Settings
from tests.peers import free_port
from tests.servers import Redis, Sentinel
from tests.system import wait_until
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.slow

OPERATIONS = (Path(__file__).parents[2] / "docs/operations.md").read_text()
PASSWORD = "p4ss/w@rd"  # as long as it may be in a URL
QUOTED = "p4ss%2Fw%40rd"


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with Redis(tmp_path_factory.mktemp("broker"), enable_protected_configs="yes") as server:
        yield server


def awaited(worker, reason):
    """Until the worker has logged one more time that it waits for the broker, and why."""
    wait_until(lambda: reason in worker.log(), 30, worker.log)


@pytest.mark.parametrize(
    ("fault", "remedy", "reason"),
    [
        (("replicaof 127.0.0.1 1",), ("replicaof no one",), "it is a replica"),
        (
            ("config set maxmemory-policy noeviction", "config set maxmemory 1"),
            ("config set maxmemory 0",),
            None,  # a worker takes messages from a full server, too
        ),
        (("acl setuser default -brpop",), ("acl setuser default +brpop",), "permit it to the user"),
        (("acl setuser default -@all +acl",), ("acl setuser default +@all",), "permit it to"),
        (("client kill type normal",), (), None),
        (("client pause 3000 all",), (), None),
    ],
    ids=["replica", "full", "acl", "acl-all", "killed", "paused"],
)
def test_a_worker_goes_on_after_the_broker_failed(broker, worker, fault, remedy, reason):
    seen = worker.log().count(reason) if reason else 0
    for command in fault:
        broker.command(*command.split())
    if reason:
        wait_until(lambda: worker.log().count(reason) > seen, 30, worker.log)
    for command in remedy:
        broker.command(*command.split())
    worker.does_the_next_job()


def test_the_notifier_names_a_full_broker_and_goes_on(broker, worker):
    broker.command("config", "set", "maxmemory", "1")
    assert "raise its maxmemory" in worker.notify()
    broker.command("config", "set", "maxmemory", "0")
    assert worker.notify() == ""


def test_the_notifier_is_bounded_in_time_when_the_broker_is_silent(broker, worker):
    broker.command("client", "pause", "60000", "all")
    began = time.monotonic()
    assert re.search("did not answer within|timed out", worker.notify())
    assert time.monotonic() - began < 30
    broker.kill()
    broker.__enter__()
    worker.does_the_next_job()


def test_a_broker_that_cannot_save_is_awaited(broker, worker, tmp_path):
    """MISCONF: the last snapshot failed, so Redis refuses writes."""
    broker.command("config", "set", "dir", str(tmp_path))
    broker.command("config", "set", "save", "3600 1")
    (tmp_path / "dump.rdb").mkdir()
    broker.command("set", "something", "x")
    broker.command("bgsave")
    wait_until(lambda: "MISCONF" in broker.command("set", "something", "x"), 10, worker.log)
    assert "MISCONF" in worker.notify() or "snapshot" in worker.notify()
    broker.command("config", "set", "save", "")
    broker.command("config", "set", "stop-writes-on-bgsave-error", "no")
    worker.does_the_next_job()


def test_a_restarted_broker_with_nothing_in_it(broker, worker):
    broker.kill()
    assert "Connection refused" in worker.notify()
    awaited(worker, "Connection refused")
    broker.__enter__()
    worker.does_the_next_job()


def test_a_password_that_becomes_wrong_and_right_again(broker, worker):
    broker.command("config", "set", "requirepass", "changed")
    broker._password = "changed"
    broker.command("client", "kill", "type", "normal")
    awaited(worker, "correct the user and password in LUMBAR_BROKER_URL")
    assert "correct the user and password" in worker.notify()
    broker.command("config", "set", "requirepass", "")
    broker._password = None
    worker.does_the_next_job()


@pytest.mark.parametrize("key", ["lumbar.analyse", "lumbar.preview"])
def test_a_key_of_the_wrong_type_under_a_queues_name_is_removed(broker, worker, key):
    broker.command("del", key)
    broker.command("set", key, "x")
    worker.does_the_next_job()
    wait_until(lambda: broker.command("type", key) != "string", 30, worker.log)
    assert "broker.key_removed" in worker.log() or key == "lumbar.analyse"


def test_keys_of_the_wrong_type_under_kombus_names_change_nothing(broker, worker):
    names = ["unacked", "unacked_index", "unacked_mutex"]
    names += [f"_kombu.binding.{name}" for name in ("lumbar", "lumbar.analyse", "celery")]
    for name in names:
        broker.command("set", name, "x")
    broker.command("client", "kill", "type", "normal")
    worker.does_the_next_job()
    assert all(broker.command("type", name) == "string" for name in names)
    broker.command("del", *names)


def test_a_worker_writes_nothing_but_takes_messages(broker, worker):
    broker.flush()
    worker.does_the_next_job()
    wait_until(lambda: broker.command("keys", "*") == "", 10, lambda: broker.command("keys", "*"))


@pytest.fixture
def broker_of_one_worker(tmp_path):
    with Redis(tmp_path / "redis") as server:
        yield server


def test_a_user_with_the_documented_permissions_suffices(broker_of_one_worker, tmp_path):
    broker = broker_of_one_worker  # no other worker removes the key
    permitted = re.search(r"A Redis user needs `(.*?)` on `(.*?)`", OPERATIONS, re.DOTALL)
    assert permitted
    rights = f"on >limited resetkeys {permitted[2]} -@all {permitted[1]}"
    assert broker.command("acl", "setuser", "limited", *rights.split()) == "OK"
    url = broker.url.replace("//", "//limited:limited@")
    with WorkerProcess(tmp_path, broker_url=url) as process:
        process.does_the_next_job()
        broker.command("set", "lumbar.preview", "of the wrong type")

        def removed():
            process.notify()  # as the sweep does, round after round
            return "broker.key_removed" in process.log()

        wait_until(removed, 30, process.log)
        process.does_the_next_job()
        assert "NOPERM" not in process.log()
        assert "permissions" not in process.log()


def test_it_stops_on_request_while_the_broker_is_away(tmp_path):
    with WorkerProcess(tmp_path, broker_url=f"redis://127.0.0.1:{free_port()}/0") as process:
        awaited(process, "Connection refused")
        process.process.terminate()
        assert process.process.wait(30) == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:{password}@127.0.0.1:{port}/0", "correct the user and password"),
        ("redis://somebody:{password}@127.0.0.1:{port}/0", "correct the user and password"),
        ("redis://:{password}@nowhere.invalid:6379/0", "is LUMBAR_BROKER_URL right?"),
    ],
)
def test_a_wrong_broker_is_named_in_one_line_without_the_password(tmp_path, url, said):
    with Redis(tmp_path / "redis", requirepass="another") as server:
        url = url.format(password=QUOTED, port=server.port)
        process = WorkerProcess(tmp_path / "worker", broker_url=url)
        reason = process.notify()
    assert said in reason
    assert "\n" not in reason
    assert PASSWORD not in reason
    assert QUOTED not in reason


@pytest.mark.parametrize(
    "url",
    ["amqp://localhost", "redis://", "redis://h:port/0", "sentinel://h:1;http://h:2", "localhost"],
)
def test_what_is_no_url_of_a_broker_is_a_wrong_setting(monkeypatch, url):
    monkeypatch.setenv("LUMBAR_BROKER_URL", url)
    with pytest.raises(WrongSetting, match=r"LUMBAR_BROKER_URL: .*sentinel://host:26379"):
        Settings.load()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Two CAs; a certificate for 127.0.0.1 and one for another host, of the first."""
    folder = tmp_path_factory.mktemp("tls")
    for ca in ("ca", "other-ca"):
        openssl(folder, f"req -x509 -newkey rsa:2048 -nodes -keyout {ca}.key -out {ca}.pem "
                f"-days 2 -subj /CN={ca}")  # fmt: skip
    for name, alternative in (("right", "IP:127.0.0.1"), ("elsewhere", "DNS:elsewhere.invalid")):
        (folder / f"{name}.ext").write_text(f"subjectAltName={alternative}")
        openssl(folder, f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr "
                f"-subj /CN={name}")  # fmt: skip
        openssl(folder, f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial "
                f"-out {name}.pem -days 2 -extfile {name}.ext")  # fmt: skip
    return folder


def openssl(folder, arguments):
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True)


def tls_server(folder, tls, certificate):
    port = free_port()
    options = {"tls_port": str(port), "tls_auth_clients": "no", "tls_ca_cert_file": "ca.pem"}
    files = {"tls_cert_file": f"{certificate}.pem", "tls_key_file": f"{certificate}.key"}
    paths = {
        name: str(tls / value) if name.endswith("file") else value
        for name, value in (options | files).items()
    }
    return Redis(folder, **paths), f"rediss://127.0.0.1:{port}/0"


def test_a_broker_with_tls_is_verified_and_used(tmp_path, tls):
    server, url = tls_server(tmp_path / "redis", tls, "right")
    with server:
        settings = {"broker_url": url, "broker_ca": str(tls / "ca.pem")}
        with WorkerProcess(tmp_path / "worker", **settings) as process:
            process.does_the_next_job()


@pytest.mark.parametrize(
    ("certificate", "ca", "said"),
    [
        ("right", "other-ca.pem", "certificate verify failed"),
        ("right", None, "certificate verify failed"),
        ("elsewhere", "ca.pem", "IP address mismatch"),
    ],
)
def test_a_broker_with_a_wrong_certificate_is_refused(tmp_path, tls, certificate, ca, said):
    server, url = tls_server(tmp_path / "redis", tls, certificate)
    settings = {"broker_ca": str(tls / ca)} if ca else {}
    with server, WorkerProcess(tmp_path / "worker", broker_url=url, **settings) as process:
        assert said in process.notify()
        awaited(process, "set LUMBAR_BROKER_CA to the CA of its certificate")
        assert process.jobs() == 0
        assert server.command("llen", "lumbar.analyse") == "0"


def test_a_ca_without_tls_or_without_its_file_is_a_wrong_setting(tmp_path):
    for url in ("redis://localhost", "rediss://localhost"):
        with pytest.raises(WrongSetting, match="broker_ca"):
            Settings.load(broker_url=url, broker_ca=tmp_path / "none.pem")


def test_a_failover_by_sentinel(tmp_path):
    options = {"requirepass": "of-redis", "masterauth": "of-redis"}
    with (
        Redis(tmp_path / "first", **options) as first,
        Redis(tmp_path / "second", **options) as other,
    ):
        other.command("replicaof", "127.0.0.1", str(first.port))
        with Sentinel(tmp_path / "sentinel", first, "of-sentinel") as sentinel:
            dead = free_port()  # of several Sentinels, one may be away
            settings = {
                "broker_url": f"sentinel://:of-redis@127.0.0.1:{dead};"
                f"sentinel://:of-redis@127.0.0.1:{sentinel.port}",
                "broker_sentinel_password": "of-sentinel",
            }
            with WorkerProcess(tmp_path / "worker", **settings) as process:
                process.does_the_next_job()
                first.kill()
                wait_until(
                    lambda: sentinel.master_port() == other.port, 30, sentinel._log.read_text
                )
                process.does_the_next_job(60)
