"""Real processes whose clock is turned: nothing goes, nothing waits for tomorrow."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from pydicom.filewriter import dcmwrite
from sqlalchemy import select

from db.models import Job, JobKind, Maintenance, Study
from lumbar.peers.demo_pacs import DemoPacs
from tests.databases import sqlite_database
from tests.factories.instances import ROOT, make_slice
from tests.peers import free_port
from tests.system import System, closing_database, wait_until
from tests.turned_clock import TurnedClock

pytestmark = pytest.mark.slow

STUDIES = UNDELIVERED, READ, UNREAD = tuple(f"{ROOT}.{number}" for number in (1, 2, 3))
DAY_S = 86_400


@pytest.fixture
def clock(tmp_path):
    return TurnedClock(tmp_path)


@pytest.fixture
def system(tmp_path, clock):
    stubbed = {"TESTS_READING": "headers"}
    system = System(tmp_path / "system", clock.environment | stubbed)
    sqlite_database(system.home / "lumbar.sqlite")
    yield system
    system.kill()


def deliveries(system):
    """The delivery of each study: its job, how often it was attempted, and when it is due."""
    statement = (
        select(Study.study_instance_uid, Job)
        .join(Job, Job.study_id == Study.id)
        .where(Job.kind == JobKind.DELIVER)
    )
    with closing_database(system.database_url) as database, database.reading() as session:
        return {uid: job for uid, job in session.execute(statement)}  # noqa: C416


def read_clock(system):
    with closing_database(system.database_url) as database, database.reading() as session:
        return session.scalars(select(Maintenance.read_at)).one()


def is_ahead(moment, days):
    return moment - datetime.now(UTC) > timedelta(days=days)


def next_probe(system):
    """When the held destination is tried again; now if it is not held."""
    listed = json.loads(system.lumbar("destinations", "list", "--format", "json").stdout)
    (probe,) = [row["next_probe"] for row in listed]
    return datetime.fromisoformat(probe) if probe else datetime.now(UTC)


def test_a_clock_that_is_wrong_for_a_while_removes_nothing_and_leaves_nothing_waiting(
    system, clock, tmp_path
):
    folder = tmp_path / "sent"
    folder.mkdir()
    for number, uid in enumerate(STUDIES, 1):
        dcmwrite(folder / f"{uid}.dcm", make_slice(study=number), enforce_file_format=True)
    port = free_port()
    system.set(destinations=f'{{"pacs": "dicom://PACS@127.0.0.1:{port}"}}')
    system.start()
    assert system.dcmsend(folder).returncode == 0
    for uid in STUDIES:
        system.complete(uid)
    system.wait_for_states(dict.fromkeys(STUDIES, "analysed"))
    for uid in (READ, UNREAD):
        assert system.lumbar("jobs", "cancel", str(deliveries(system)[uid].id)).returncode == 0
    assert system.lumbar("mark-read", READ).returncode == 0
    system.kill()
    clock.turn(400 * DAY_S)
    system.start()
    wait_until(lambda: is_ahead(read_clock(system), 399), 60, system.tail)  # maintenance goes on
    wait_until(lambda: is_ahead(next_probe(system), 399), 60, system.tail)
    with DemoPacs(tmp_path / "pacs", "PACS", port) as pacs:
        clock.turn(0)
        wait_until(lambda: bool(pacs.received), 60, system.tail)
    wait_until(lambda: "clock.turned" in system.log.read_text(), 30, system.tail)
    system.terminate(60)  # a round of maintenance ends
    assert len(list((system.home / "store" / "instances").rglob("*.dcm"))) == len(STUDIES)
    listed = system.lumbar("worklist", "--format", "csv").stdout
    assert (UNREAD in listed, UNDELIVERED in listed, READ in listed) == (True, True, False)
