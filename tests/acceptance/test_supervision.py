"""`lumbar up`: what ends is started again, nothing optional ends the receiver, all end with it."""

import os
import signal
import socket

import pytest
from redis import Redis as Client
from sqlalchemy import text

from tests.databases import sqlite_database
from tests.servers import Postgres, Redis
from tests.system import System, _alive, closing_database, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def embedded(tmp_path):
    system = System(tmp_path / "system", {})
    sqlite_database(system.home / "lumbar.sqlite")
    yield system
    system.kill()


def restarts(system, service):
    return system.log.read_text().count(f"event=service.restarted service={service}")


def test_a_part_that_ends_with_status_0_is_started_again(embedded):
    embedded.start()
    wait_until(lambda: "sweep.started" in embedded.log.read_text(), 120, embedded.tail)
    os.kill(embedded.parts()["sweep"], signal.SIGTERM)
    wait_until(
        lambda: "service=sweep status=0 wait_s=" in embedded.log.read_text(), 120, embedded.tail
    )
    wait_until(lambda: embedded.log.read_text().count("sweep.started") == 2, 120, embedded.tail)
    assert embedded.answers()


def test_a_page_that_cannot_start_costs_no_image(embedded, phantom):
    folder, truth = phantom(1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        embedded.set(web="true", web_port=str(taken.getsockname()[1]))
        (up,) = embedded.start()
        wait_until(lambda: restarts(embedded, "web") >= 2, 60, embedded.tail)
        assert "the page cannot listen" in embedded.log.read_text()
        assert embedded.dcmsend(folder).returncode == 0
        assert up.poll() is None
    wait_until(lambda: "web.listening" in embedded.log.read_text(), 60, embedded.tail)
    embedded.wait_for_states({truth.study_instance_uid: "analysed"})


def test_a_receiver_that_cannot_listen_ends_all_with_the_reason(embedded):
    with socket.create_server(("127.0.0.1", embedded.port)):
        (up,) = embedded._start(["up"])
        assert up.wait(60) == 1
    assert "cannot listen on" in embedded.log.read_text()
    assert "`lumbar scp` ended with status 2; the reason is above" in embedded.log.read_text()
    wait_until(lambda: not _alive(up.pid), 10, embedded.tail)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_however_it_ends_its_parts_end_too(embedded, number):
    (up,) = embedded.start()
    wait_until(lambda: "sweep.started" in embedded.log.read_text(), 120, embedded.tail)
    os.kill(up.pid, number)
    assert up.wait(30) == (-number if number == signal.SIGKILL else 0)
    wait_until(lambda: not _alive(up.pid), 120, embedded.tail)


def test_a_stop_during_a_wait_is_prompt(embedded):
    (up,) = embedded.start()
    for count in range(1, 5):  # the next wait is of 4 to 8 seconds
        wait_until(lambda: "sweep" in embedded.parts(), 120, embedded.tail)
        os.kill(embedded.parts()["sweep"], signal.SIGKILL)
        wait_until(lambda count=count: restarts(embedded, "sweep") == count, 120, embedded.tail)
    up.terminate()
    assert up.wait(30) == 0
    assert restarts(embedded, "sweep") == 4
    assert (
        "sweep" not in embedded.log.read_text().rpartition("service.restarted")[2].splitlines()[1:]
    )


@pytest.mark.postgresql
def test_images_are_received_while_the_database_is_away_from_the_start(tmp_path, phantom):
    folder, truth = phantom(1)
    with Postgres(tmp_path / "postgres") as database:
        system = System(tmp_path / "system", {"LUMBAR_DATABASE_URL": database.new_database()})
        try:
            system.start("scp")  # so that the site has a store; its database has no tables
            system.kill()
            database.stop_at_once()
            system.start_receiver()
            wait_until(lambda: "event=schema.awaited" in system.log.read_text(), 120, system.tail)
            assert system.dcmsend(folder).returncode == 0
            assert "Connection refused" in system.log.read_text()
            database.__enter__()
            wait_until(lambda: "sweep.started" in system.log.read_text(), 60, system.tail)
            system.wait_for_states({truth.study_instance_uid: "analysed"}, 120)
        finally:
            system.kill()


def test_a_newer_schema_is_named_and_images_are_received(embedded, phantom):
    folder, _ = phantom(1)
    embedded.start()
    embedded.kill()
    with closing_database(embedded.database_url) as database, database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    (up,) = embedded.start_receiver()
    wait_until(
        lambda: "newer version of this program" in embedded.log.read_text(), 120, embedded.tail
    )
    assert embedded.dcmsend(folder).returncode == 0
    assert "sweep" not in embedded.parts()
    assert up.poll() is None
    assert "run `lumbar db upgrade`" not in embedded.log.read_text()


@pytest.mark.postgresql
def test_three_at_once_on_an_empty_database(tmp_path, postgres):
    servers = {"LUMBAR_DATABASE_URL": postgres.new_database()}
    systems = [System(tmp_path / str(number), servers) for number in range(3)]
    try:
        for system in systems:
            system._start(["up"])
        for system in systems:
            wait_until(
                lambda system=system: "sweep.started" in system.log.read_text(), 120, system.tail
            )
            assert system.answers()
            assert "schema.fault" not in system.log.read_text()
    finally:
        for system in systems:
            system.kill()


@pytest.mark.postgresql
def test_a_broker_full_of_poison_and_a_failover_end_nothing(tmp_path, postgres, phantom):
    folder, truth = phantom(1)
    with Redis(tmp_path / "redis") as redis, Client.from_url(redis.url) as client:
        settings = {
            "LUMBAR_DATABASE_URL": postgres.migrated_database(),
            "LUMBAR_BROKER_URL": redis.url,
        }
        for queue in ("lumbar.analyse", "lumbar.preview"):
            client.lpush(queue, "17", "not json", "[]", '{"properties": {"delivery_tag": "x"}}')
        client.set("lumbar.preview", "of the wrong type")
        redis.command("replicaof", "127.0.0.1", "1")
        system = System(tmp_path / "system", settings)
        try:
            system.start()
            wait_until(lambda: "event=broker.awaited" in system.log.read_text(), 60, system.tail)
            before = system.parts()
            redis.command("replicaof", "no", "one")
            assert system.dcmsend(folder).returncode == 0
            system.wait_for_states({truth.study_instance_uid: "analysed"}, 120)
            assert system.parts() == before  # none had to be started again
            assert "message.dropped" in system.log.read_text()
        finally:
            system.kill()


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_cost_only_the_log(embedded, phantom, closed):
    folder, truth = phantom(1)
    embedded._program[:0] = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    (up,) = embedded.start()
    assert embedded.dcmsend(folder).returncode == 0
    embedded.wait_for_states({truth.study_instance_uid: "analysed"})
    assert up.poll() is None
