"""Retention by age and disk pressure: the oldest first; findings and open studies are kept."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
from sqlalchemy import func, select, update
from structlog.testing import capture_logs

from db import deletion, jobs, reconcile, retention, reviews, studies
from db.audit import Participant
from db.context import SiteContext
from db.ingest import ingest
from db.instance_rows import IngestResult
from db.models import AuditEvent, FindingRow, Instance, JobKind, Series, Study, StudyState
from db.registrar import Registrar
from db.registration import Registration
from lumbar.errors import Permanent
from lumbar.store.files import StoreFull
from tests.factories.ages import ended, pass_days
from tests.factories.analyses import CANAL, SEVERE, analysed
from tests.factories.instances import ROOT, arrival, make_slice
from tests.stub_networks import StubNetworks
from worker import maintenance
from worker.tasks import tasks


@pytest.fixture
def finish(site):
    """Ingests a study of two images that ended so many days ago, and has been read."""

    def finished(number, days, state=StudyState.ANALYSED, *, read=True):
        for image in (1, 2):
            ingest(site.database, site.store, arrival(make_slice(study=number, number=image)))
        with site.database.transaction() as session:
            study = update(Study).where(Study.study_instance_uid == f"{ROOT}.{number}")
            session.execute(study.values(ended(days, state, read=read)))
            return studies.find(session, f"{ROOT}.{number}").id

    return finished


def images(site):
    """How many images' files each study has, by its number."""
    with site.database.reading() as session:
        rows = (
            session.execute(select(Instance, Study.id).join(Instance.series).join(Study))
            .unique()
            .all()
        )
        counted = {}
        for instance, study_id in rows:
            exists = site.store.path(instance.file).exists()
            assert exists == (instance.removed_at is None)
            counted[study_id] = counted.get(study_id, 0) + exists
    return counted


def with_settings(site, **settings):
    return SiteContext(site.settings.model_copy(update=settings), site.database, site.store)


def test_only_finished_studies_that_are_old_enough_lose_their_images(site, finish):
    old, young, failed = (
        finish(1, days=31),
        finish(2, days=29),
        finish(3, days=40, state=StudyState.FAILED),
    )
    receiving, pending = finish(4, days=50, state=StudyState.RECEIVING), finish(5, days=50)
    with site.database.transaction() as session:
        jobs.create(session, JobKind.DELIVER, session.get_one(Study, pending), destination="pacs")
    assert retention.remove_images(site) == 2
    assert images(site) == {old: 0, young: 2, failed: 0, receiving: 2, pending: 2}
    with site.database.reading() as session:
        assert {event.study_id for event in session.scalars(select(AuditEvent))} == {old, failed}
        assert session.get_one(Study, old).state is StudyState.ANALYSED
    assert retention.remove_images(site) == 0


def test_when_the_disk_fills_up_images_are_removed_oldest_first_and_no_more_than_needed(
    site, finish, monkeypatch
):
    newest, oldest, middle = finish(1, days=1), finish(2, days=3), finish(3, days=2)

    def fill(store):
        return sum(1 for _ in store.root.rglob("*.dcm")) / 10

    monkeypatch.setattr(type(site.store), "fill_ratio", fill)
    assert retention.remove_images(with_settings(site, disk_remove_above=0.45)) == 1
    assert images(site) == {newest: 2, oldest: 0, middle: 2}
    assert retention.remove_images(with_settings(site, disk_remove_above=0.0)) == 2


def test_keep_days_0_keeps_images_until_the_disk_fills_up(site, finish):
    study = finish(1, days=4000)
    assert retention.remove_images(with_settings(site, keep_days=0)) == 0
    assert images(site) == {study: 2}


def test_a_removed_image_that_is_sent_again_is_stored_again(site, finish):
    study = finish(1, days=31)
    retention.remove_images(site)
    assert (
        ingest(site.database, site.store, arrival(make_slice(study=1, number=1)))
        is IngestResult.DUPLICATE
    )
    assert images(site) == {study: 1}
    with site.database.reading() as session:
        row = session.get_one(Study, study)
        assert (row.revision, row.state, row.images_removed_at) == (
            1,
            StudyState.ANALYSED,
            None,
        )


def test_an_image_sent_again_while_it_is_being_removed_is_never_acknowledged_and_lost(
    site, finish, monkeypatch
):
    study = finish(1, days=31)
    unlink, results = retention.unlink_removed, []

    def sent_between(site, study_id):
        results.append(ingest(site.database, site.store, arrival(make_slice(study=1, number=1))))
        unlink(site, study_id)

    monkeypatch.setattr(retention, "unlink_removed", sent_between)
    assert retention.remove_images(site) == 1
    assert results == [IngestResult.DUPLICATE]
    assert images(site) == {study: 1}


def test_an_image_whose_file_is_removed_before_it_is_registered_keeps_its_file(
    site, finish, monkeypatch
):
    study = finish(1, days=31)
    write = Registration._write

    def removed_first(*arguments):
        assert retention.remove_images(site) == 1
        return write(*arguments)

    monkeypatch.setattr(Registration, "_write", removed_first)
    assert (
        ingest(site.database, site.store, arrival(make_slice(study=1, number=1)))
        is IngestResult.DUPLICATE
    )
    assert images(site) == {study: 1}


def test_concurrent_removal_and_sending_lose_nothing_that_was_acknowledged(site, finish):
    study = finish(1, days=31)

    def send(number):
        return ingest(site.database, site.store, arrival(make_slice(study=1, number=number)))

    with ThreadPoolExecutor(6) as threads:
        removing = [threads.submit(retention.remove, site, study, "a test") for _ in range(2)]
        assert set(threads.map(send, [1, 2] * 6)) == {IngestResult.DUPLICATE}
        assert any(done.result() for done in removing)
    with site.database.reading() as session:
        rows = session.scalars(select(Instance)).all()
    assert all(site.store.path(row.file).exists() for row in rows if row.removed_at is None)


def test_a_start_up_adopts_files_without_rows_and_reports_rows_without_files(site, monkeypatch):
    ingest(site.database, site.store, arrival(make_slice(number=1), source="MR7"))
    ingest(site.database, site.store, arrival(make_slice(number=2)))
    with suppress(Killed), monkeypatch.context() as patch:
        patch.setattr(Registration, "_write", killed)
        ingest(site.database, site.store, arrival(make_slice(number=3), source="MR8"))
    for share in site.store.shares():
        for file in share.arrived():
            file.path.unlink()
    with site.database.reading() as session:
        missing = session.scalars(
            select(Instance).where(Instance.sop_instance_uid == f"{ROOT}.1.1.1")
        ).one()
    site.store.path(missing.file).unlink()
    site.store.put("instances", "ab" * 32, b"no instance")

    result = reconcile.reconcile(site)
    assert result == reconcile.ReconcileCounts(adopted=1, unreadable=1, missing=1)
    assert Registrar(site).register_arrived() == 1
    with site.database.reading() as session:
        adopted = session.scalars(
            select(Instance).where(Instance.sop_instance_uid == f"{ROOT}.1.1.3")
        ).one()
        (event,) = session.scalars(select(AuditEvent))
    assert (adopted.source, site.store.path(adopted.file).stat().st_size) == ("MR8", adopted.size)
    assert event.detail == {"kind": "instance", "count": 1, "ids": [missing.id]}
    assert reconcile.reconcile(site) == reconcile.ReconcileCounts(unreadable=1, missing=1)


def test_a_start_up_completes_an_interrupted_removal(site, finish, monkeypatch):
    study = finish(1, days=31)
    with suppress(Killed), monkeypatch.context() as patch:
        patch.setattr(retention, "unlink_removed", killed)
        retention.remove_images(site)
    assert len(list(site.store.root.rglob("*.dcm"))) == 2
    assert reconcile.reconcile(site).removed == 1
    assert images(site) == {study: 0}


def test_a_study_whose_images_were_removed_is_not_analysed_again_and_keeps_its_findings(
    site, finish
):
    study = finish(1, days=31)
    retention.remove_images(site)
    with (
        pytest.raises(Permanent, match="send the study again"),
        site.database.transaction() as session,
    ):
        studies.requeue(session, study)
    with site.database.reading() as session:
        assert session.get_one(Study, study).state is StudyState.ANALYSED
    for number in (1, 2):
        ingest(site.database, site.store, arrival(make_slice(study=1, number=number)))
    with site.database.transaction() as session:
        assert studies.requeue(session, study)


def test_a_late_image_of_a_study_whose_images_were_removed_is_not_analysed_as_the_whole_study(
    site, finish
):
    study = finish(1, days=31)
    retention.remove_images(site)
    ingest(site.database, site.store, arrival(make_slice(study=1, number=3)))
    with site.database.transaction() as session:
        assert studies.complete(session, study)
    assert tasks(site, StubNetworks)[JobKind.ANALYSE]()
    with site.database.reading() as session:
        row = session.get_one(Study, study)
    assert row.state is StudyState.NOT_ANALYSABLE
    assert row.reason == "2 of its 3 images were removed to make room; send the study again"


@pytest.fixture
def unlinking(monkeypatch):
    """Lets files be unlinked only while ``unlinking.allowed``, as on a disk mounted read-only."""
    unlink, state = Path.unlink, SimpleNamespace(allowed=True)

    def unlinked(path, missing_ok=False):
        if not state.allowed and path.suffix == ".dcm":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlinked)
    return state


def test_retention_stops_at_files_that_cannot_go_and_removes_them_at_the_next_round(
    site, finish, unlinking, monkeypatch
):
    monkeypatch.setattr(retention, "MAX_REFUSED", 1)
    first, second = finish(1, days=40), finish(2, days=35)
    unlinking.allowed = False
    for _ in range(2):
        with pytest.raises(StoreFull, match="cannot remove files"):
            retention.remove_images(site)
        with site.database.reading() as session:
            assert session.get_one(Study, first).images_removed_at is not None
            assert session.get_one(Study, second).images_removed_at is None
    unlinking.allowed = True
    assert retention.remove_images(site) == 1
    assert images(site) == {first: 0, second: 0}


def test_files_missing_with_their_disk_do_not_count_as_removed(site, finish):
    study = finish(1, days=40)
    instances = site.store.root / "instances"
    instances.rename(site.store.root / "elsewhere")
    instances.mkdir()
    with pytest.raises(StoreFull, match="mount the disk"):
        retention.remove_images(site)
    instances.rmdir()
    (site.store.root / "elsewhere").rename(instances)
    retention.remove_images(site)
    assert images(site) == {study: 0}


def test_a_deletion_whose_files_cannot_go_says_so_and_keeps_its_rows(site, finish, unlinking):
    study = finish(1, days=1)
    unlinking.allowed = False
    with pytest.raises(StoreFull, match="cannot remove files"):
        deletion.delete_study(site, f"{ROOT}.1", "a test", Participant("admin"))
    with site.database.reading() as session:
        assert session.get(Study, study) is not None
    unlinking.allowed = True
    deletion.delete_study(site, f"{ROOT}.1", "a test", Participant("admin"))
    assert reconcile.reconcile(site) == reconcile.ReconcileCounts()
    with site.database.reading() as session:
        assert session.get(Study, study) is None


def in_force(site):
    """The findings in force, and the state and revision of the only study."""
    with site.database.reading() as session:
        study = session.scalars(select(Study)).one()
        found = select(func.count()).where(FindingRow.superseded.is_(False))
        return session.scalar(found), study.severe, study.state, study.revision


@pytest.fixture
def removed(site):
    """A severe study of two images that has been read, and whose images retention removed."""
    ingest(site.database, site.store, arrival(make_slice(number=2, StudyID="1")))
    analysed(site, 1, {CANAL: SEVERE})
    with site.database.transaction() as session:
        reviews.mark_read(session, studies.find(session, f"{ROOT}.1"), Participant("anna"))
    pass_days(site.database, 31)
    assert retention.remove_images(site) == 1


@pytest.mark.parametrize(
    "changed", [{"InstitutionName": "B"}, {"StudyID": "77"}, {"StudyDescription": "B"}], ids=str
)
def test_a_removed_image_that_comes_back_with_another_header_leaves_the_findings(
    site, removed, changed
):
    before = in_force(site)
    assert before == (25, True, StudyState.ANALYSED, 1)
    for number in (1, 2):
        again = make_slice(number=number, **changed)
        assert ingest(site.database, site.store, arrival(again)) is IngestResult.NEW
        assert in_force(site) == before
    with site.database.transaction() as session:  # all of its images are there again
        assert studies.requeue(session, studies.find(session, f"{ROOT}.1").id)


def test_an_analysis_for_which_images_are_missing_supersedes_no_findings(site, removed):
    ingest(site.database, site.store, arrival(make_slice(number=3)))
    with site.database.transaction() as session:
        assert studies.complete(session, studies.find(session, f"{ROOT}.1").id)
    assert tasks(site, StubNetworks)[JobKind.ANALYSE]()
    assert in_force(site) == (25, True, StudyState.NOT_ANALYSABLE, 2)


def test_what_is_not_ours_in_the_store_stops_neither_reconciliation_nor_retention(site, finish):
    study = finish(1, days=31)
    for name in (".DS_Store", ".nfs0001", "fe", "notes.txt"):
        (site.store.root / "instances" / name).write_text("not ours")
    (site.store.root / "instances" / "lost+found").mkdir(0)
    assert reconcile.reconcile(site) == reconcile.ReconcileCounts()
    assert retention.remove_images(site) == 1
    assert images(site) == {study: 0}


@pytest.mark.parametrize(
    ("error", "removed"), [(NotADirectoryError(), True), (StoreFull("not mounted"), False)]
)
def test_retention_waits_for_a_reconciliation_only_while_it_may_still_succeed(
    site, monkeypatch, error, removed
):
    def fails(site):
        raise error

    stop, ran = Event(), []
    monkeypatch.setattr(maintenance, "reconcile", fails)
    monkeypatch.setattr(maintenance, "remove_images", ran.append)
    monkeypatch.setattr(maintenance, "_watch_disk", lambda *_: stop.set())
    maintenance.start(site, stop).join(60)
    assert bool(ran) == removed


class Killed(BaseException):
    """As if the process had been killed there."""


def killed(*arguments):
    raise Killed


def test_one_file_that_cannot_go_stops_no_other(site, finish):
    studies_ = [finish(number, days=40 - number) for number in range(1, 4)]
    with site.database.reading() as session:
        of_study = select(Instance.file).join(Series).where(Series.study_id == studies_[0])
        file = session.scalars(of_study.limit(1)).one()
    path = site.store.path(file)
    path.unlink()
    path.mkdir()  # stands for a file that is immutable, or another owner's
    for _ in range(2):
        with pytest.raises(StoreFull, match="cannot remove files"), capture_logs() as logged:
            retention.remove_images(site)
        refused = [event["study"] for event in logged if event["event"] == "retention.refused"]
        assert refused == studies_[:1]
    with site.database.reading() as session:
        pending = session.scalars(select(Study.id).where(Study.removal_pending.is_(True))).all()
    assert pending == studies_[:1]
