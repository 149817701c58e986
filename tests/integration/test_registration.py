"""What was acknowledged is registered behind the answer, whatever happens in between."""

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import ProgrammingError

from db import registrar, registration, studies
from db.database import DatabaseUnavailable
from db.ingest import ingest
from db.instance_rows import IngestResult
from db.models import AuditEvent, Instance, Job, JobKind, JobState, Study, StudyState
from db.registrar import Registrar
from db.registration import Registration
from db.types import db_now
from lumbar.dicom import instance_identity
from lumbar.errors import Transient, Unreadable
from lumbar.store.arrivals import ArrivingInstance
from lumbar.store.files import Store, StoreFull
from tests.factories.instances import ROOT, arrival, make_slice
from tests.integration.upload_factory import RecordingNotifier
from tests.stub_networks import StubNetworks
from worker.sweep import sweep
from worker.tasks import tasks

ROWS = b"\x28\0\x02\0"  # the tag of SamplesPerPixel, as it is encoded
RECEIVER = """
import sys
from pathlib import Path
from lumbar.store.files import Store
from tests.factories.instances import make_slice
from tests.integration.test_registration import arrive_in
store = Store(Path(sys.argv[1]))
arrive_in(store, make_slice(number=1))
open(store.share().folder / "half.part", "wb").write(b"half")
print("arrived", flush=True)
sys.stdin.read()
"""


def arrive_in(store, ds, source="MR1"):
    """An image is acknowledged."""
    sent = arrival(ds, source)
    with ArrivingInstance(store, sent.announced) as arriving:
        arriving.write(sent.dataset.read())
        return arriving.arrive()


def rows(site):
    with site.database.reading() as session:
        return list(session.scalars(select(Instance).order_by(Instance.sop_instance_uid)))


def test_arrived_images_are_registered_in_batches_and_leave_arrived(site):
    for study in (1, 2):
        for number in range(1, 41):
            arrive_in(site.store, make_slice(study=study, number=number))
    assert site.store.arriving() == {f"{ROOT}.1", f"{ROOT}.2"}
    assert rows(site) == []
    registrar = Registrar(site)
    assert sum(iter(registrar.register_arrived, 0)) == 80  # in several rounds, if reading is slow
    assert len(rows(site)) == 80
    assert all(site.store.path(row.file).stat().st_size == row.size for row in rows(site))
    assert site.store.arriving() == set()
    assert {row.source for row in rows(site)} == {"MR1"}


def test_the_same_image_twice_in_one_batch_is_one_row(site):
    arrived = [arrive_in(site.store, make_slice()) for _ in range(2)]
    other = arrive_in(site.store, make_slice(fill=99))
    outcomes = Registration(site.database, site.store).register([*arrived, other])
    assert outcomes == [IngestResult.NEW, IngestResult.DUPLICATE, IngestResult.QUARANTINED]
    assert len(rows(site)) == 2


def test_an_images_time_of_arrival_is_when_it_was_received(site):
    arrived = arrive_in(site.store, make_slice())
    study, _, unique = arrived.path.name.split("_")
    hour_ago = arrived.path.with_name(f"{study}_{arrived.received_ns - 3600 * 10**9}_{unique}")
    arrived.path.rename(hour_ago)
    Registrar(site).register_arrived()
    with site.database.reading() as session:
        (late,) = session.scalars(
            select(Instance.id).where(Instance.received_at < db_now(-3590))
        ).all()
        (first,) = session.scalars(select(Study.id).where(Study.first_received_at < db_now(-3590)))
        (quiet,) = session.scalars(select(Study.id).where(Study.last_received_at > db_now(-60)))
    assert late
    assert first == quiet


def test_with_the_database_away_images_wait_and_none_is_lost(site, monkeypatch):
    arrived = arrive_in(site.store, make_slice())

    def away(*arguments):
        raise DatabaseUnavailable("the database does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(registration, "write_rows", away)
        with pytest.raises(DatabaseUnavailable):
            Registrar(site).register_arrived()
    assert arrived.path.exists()
    assert Registrar(site).register_arrived() == 1
    assert len(rows(site)) == 1


def test_an_image_that_cannot_be_registered_is_quarantined_and_stops_no_other(site, monkeypatch):
    write_rows = registration.write_rows

    def refuses_one(session, instances, *arguments):
        if any(i.identity.sop_instance_uid.endswith(".2") for i in instances):
            raise ValueError("a value that the database refuses")
        return write_rows(session, instances, *arguments)

    monkeypatch.setattr(registration, "write_rows", refuses_one)
    arrived = [arrive_in(site.store, make_slice(number=number)) for number in (1, 2, 3)]
    assert Registrar(site).register_arrived() == 3
    assert [row.sop_instance_uid[-1] for row in rows(site)] == ["1", "3"]
    kept = site.store.path("quarantined") / arrived[1].path.name
    assert kept.exists()
    assert len(list(site.store.path("instances").rglob("*.dcm"))) == 2  # and no link without a row
    assert site.store.arriving() == set()
    with site.database.reading() as session:
        (event,) = session.scalars(select(AuditEvent))
    assert event.event == "instance.unregistrable"
    assert event.detail == {"why": "a ValueError", "file": f"quarantined/{kept.name}"}


def test_a_header_that_only_pydicom_cannot_read_is_quarantined(site):
    ds = make_slice()
    sent = arrival(ds)
    content = sent.dataset.read()
    # behind the UIDs, a sequence that begins with something else than an item
    sequence = b"\x21\0\x10\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe1\0\0\0\0"
    damaged = content.replace(ROWS, sequence + ROWS, 1)
    with ArrivingInstance(site.store, sent.announced) as arriving:
        arriving.write(damaged)
        arriving.arrive()
    Registrar(site).register_arrived()
    assert len(list((site.store.root / "quarantined").iterdir())) == 1
    assert rows(site) == []
    assert site.store.arriving() == set()


def test_a_dead_receivers_share_is_taken_over_and_its_half_files_are_removed(site):
    process = subprocess.Popen(
        [sys.executable, "-c", RECEIVER, str(site.store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"arrived\n"
    assert Registrar(site).register_arrived() == 1
    (share,) = site.store.shares()
    assert (share.folder / "half.part").exists()  # it lives, and is still writing
    arrive_in(Store(site.store.root), make_slice(number=2))
    process.kill()
    process.communicate()
    assert Registrar(site).register_arrived() == 1
    assert len(rows(site)) == 2
    assert not share.folder.exists()


def test_one_share_is_registered_by_one_process_at_a_time(site):
    arrive_in(site.store, make_slice())
    (share,) = site.store.shares()
    with share.registering() as allowed:
        assert allowed
        assert Registrar(site).register_arrived() == 0
    assert Registrar(site).register_arrived() == 1


def test_two_registrars_and_a_sender_register_everything_once(site):
    def send(number):
        arrive_in(site.store, make_slice(study=number % 3, number=number))

    with ThreadPoolExecutor(4) as threads:
        sending = [threads.submit(send, number) for number in range(60)]
        while not all(done.done() for done in sending):
            list(threads.map(lambda site: Registrar(site).register_arrived(), [site, site]))
        for done in sending:
            done.result()
    while Registrar(site).register_arrived():
        pass
    assert len(rows(site)) == 60


def test_no_study_completes_while_an_image_of_it_waits_for_its_rows(site):
    ingest(site.database, site.store, arrival(make_slice(study=1)))
    ingest(site.database, site.store, arrival(make_slice(study=2)))
    with site.database.transaction() as session:
        session.execute(update(Study).values(last_received_at=db_now(-1000)))
    waiting = arrive_in(site.store, make_slice(study=1, number=2))
    assert sweep(site, RecordingNotifier())["studies_completed"] == 1
    assert waiting.path.exists()
    Registrar(site).register_arrived()
    assert sweep(site, RecordingNotifier())["studies_completed"] == 0  # not quiet any more
    with site.database.reading() as session:
        assert studies.find(session, f"{ROOT}.1").revision == 1


def test_while_the_store_is_not_mounted_no_study_completes_or_fails(site, tmp_path):
    ingest(site.database, site.store, arrival(make_slice()))
    with site.database.transaction() as session:
        session.execute(update(Study).values(last_received_at=db_now(-1000)))
    site.store.root.rename(tmp_path / "unmounted")
    site.store.root.mkdir()
    with pytest.raises(StoreFull, match="mount the disk"):
        sweep(site, RecordingNotifier())
    (tmp_path / "unmounted").rename(site.store.root)
    assert sweep(site, RecordingNotifier())["studies_completed"] == 1
    site.store.root.rename(tmp_path / "unmounted")
    assert tasks(site, StubNetworks)[JobKind.ANALYSE]()
    (tmp_path / "unmounted").rename(site.store.root)
    with site.database.reading() as session:
        (job,) = session.scalars(select(Job))
        assert studies.find(session, f"{ROOT}.1").state is StudyState.QUEUED
    assert job.state is JobState.PENDING
    assert "is the store mounted?" in job.last_error


def test_an_image_from_another_sender_keeps_the_file_and_the_size_of_the_first(site):
    ingest(site.database, site.store, arrival(make_slice(), source="MR1"))
    ingest(site.database, site.store, arrival(make_slice(), source="A_LONGER_NAME"))
    (row,) = rows(site)
    assert site.store.path(row.file).stat().st_size == row.size


def test_the_sweep_registers_what_no_registrar_does(site, monkeypatch):
    arrive_in(site.store, make_slice())
    assert sweep(site, RecordingNotifier())["images_registered"] == 0
    monkeypatch.setattr("worker.sweep.UNREGISTERED_S", 0.0)
    assert sweep(site, RecordingNotifier())["images_registered"] == 1


@pytest.mark.parametrize("damage", [lambda size: b"\0" * size, lambda size: b"DICM" * 50])
def test_an_image_sent_again_heals_its_damaged_file(site, damage):
    ingest(site.database, site.store, arrival(make_slice()))
    (row,) = rows(site)
    path = site.store.path(row.file)
    good = path.read_bytes()
    path.write_bytes(damage(len(good)))
    assert ingest(site.database, site.store, arrival(make_slice())) is IngestResult.DUPLICATE
    assert path.read_bytes() == good
    assert len(rows(site)) == 1


def test_an_image_sent_again_whose_file_has_gone_gets_it_back(site):
    ingest(site.database, site.store, arrival(make_slice()))
    (row,) = rows(site)
    site.store.path(row.file).unlink()
    assert ingest(site.database, site.store, arrival(make_slice())) is IngestResult.DUPLICATE
    assert site.store.path(row.file).exists()


def test_a_file_that_cannot_be_read_this_time_stops_no_other_and_is_tried_again(site, monkeypatch):
    bad = arrive_in(site.store, make_slice(number=1))
    arrive_in(site.store, make_slice(number=2))
    read = registration._read

    def fails(path):
        if path == bad.path:
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    running = Registrar(site)
    with monkeypatch.context() as patch:
        patch.setattr(registration, "_read", fails)
        assert running.register_arrived() == 1
        assert running.register_arrived() == 0  # not before its wait is over
    assert bad.path.exists()
    monkeypatch.setattr(registrar, "monotonic", lambda: time.monotonic() + 11)
    assert running.register_arrived() == 1
    assert len(rows(site)) == 2


def test_a_header_child_that_is_killed_costs_no_image(site, monkeypatch):
    arrived = arrive_in(site.store, make_slice())
    assert Registration(site.database, site.store).register([arrived]) == [IngestResult.NEW]
    os.kill(instance_identity.child.pid, signal.SIGTERM)  # as when all processes are stopped
    before = instance_identity.child.pid
    arrived = arrive_in(site.store, make_slice(number=2))
    assert Registration(site.database, site.store).register([arrived]) == [IngestResult.NEW]
    assert instance_identity.child.pid == before

    def dies(path):
        raise Unreadable("reading the header exceeds the time or memory limit")

    monkeypatch.setattr(registration, "identify", dies)
    arrived = arrive_in(site.store, make_slice(number=3))
    (outcome,) = Registration(site.database, site.store).register([arrived])
    assert isinstance(outcome, Transient)
    assert arrived.path.exists()


def test_a_file_that_is_never_read_is_quarantined_after_eight_attempts(site, monkeypatch):
    def dies(path):
        raise Unreadable("reading the header exceeds the time or memory limit")

    arrived = arrive_in(site.store, make_slice())
    monkeypatch.setattr(registration, "identify", dies)
    hours, running = count(), Registrar(site)
    monkeypatch.setattr(registrar, "monotonic", lambda: 3600.0 * next(hours))
    monkeypatch.setattr(registrar, "LISTING_S", 1e9)
    assert [running.register_arrived() for _ in range(8)] == [0] * 7 + [1]
    assert site.store.quarantined() == 1
    assert not arrived.path.exists()
    monkeypatch.undo()
    assert site.store.retry_quarantined() == 1
    assert Registrar(site).register_arrived() == 1
    assert len(rows(site)) == 1


def test_a_share_that_cannot_be_locked_stops_no_other(site):
    arrive_in(site.store, make_slice())
    (site.store.root / "arrived" / "0stray" / "registrar").mkdir(parents=True)
    assert Registrar(site).register_arrived() == 1


def test_a_database_whose_schema_differs_makes_all_images_wait(site, monkeypatch):
    def differs(*arguments):
        raise ProgrammingError("SELECT", {}, Exception("no such column"))

    arrived = [arrive_in(site.store, make_slice(number=number)) for number in (1, 2)]
    with monkeypatch.context() as patch:
        patch.setattr(registration, "write_rows", differs)
        with pytest.raises(DatabaseUnavailable, match="schema or permissions"):
            Registrar(site).register_arrived()
    assert all(file.path.exists() for file in arrived)
    assert Registrar(site).register_arrived() == 2


def test_sources_take_turns(site):
    for number in range(1, 6):
        arrive_in(site.store, make_slice(number=number), source="BUSY")
    arrive_in(site.store, make_slice(number=9), source="OTHER")
    (share,) = site.store.shares()
    other = share.arrived()[-1]
    assert registrar._in_turns(share.arrived()).index(other) == 1


def test_a_quarantined_stat_image_does_not_make_the_study_urgent(site):
    ingest(site.database, site.store, arrival(make_slice(number=1)))
    stat = make_slice(number=2, PatientID="OTHER", RequestedProcedurePriority="STAT")
    arrive_in(site.store, stat)
    arrive_in(site.store, make_slice(number=3))
    Registrar(site).register_arrived()
    with site.database.reading() as session:
        assert not studies.find(session, f"{ROOT}.1").stat


def test_where_files_cannot_be_locked_nothing_is_stored(site, monkeypatch):
    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("lumbar.store.shares.fcntl.flock", no_locks)
    with pytest.raises(StoreFull, match="No locks available"):
        arrive_in(Store(site.store.root), make_slice())


def test_the_registrar_goes_on_after_any_error(site, monkeypatch):
    calls, stop = [], Event()

    def fails_at_first(self, min_age_s=0):
        calls.append(self)
        if len(calls) == 1:
            raise ZeroDivisionError
        if len(calls) == 2:
            raise DatabaseUnavailable("away")
        stop.set()
        return 0

    monkeypatch.setattr(Registrar, "register_arrived", fails_at_first)
    monkeypatch.setattr(registrar, "RETRY_S", 0.0)
    Registrar(site, stop).run()
    assert len(calls) == 3
