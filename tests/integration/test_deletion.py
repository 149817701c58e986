"""Deletion of a study, also when a scanner sends it again or the process is killed meanwhile."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from db import audit, deletion, jobs, operator_actions, registration, retention, studies
from db.audit import Participant
from db.ingest import ingest
from db.instance_rows import IngestResult
from db.models import (
    FindingRow,
    Instance,
    Job,
    JobKind,
    JobState,
    Patient,
    SearchKey,
    Study,
    StudyState,
    Tombstone,
)
from db.registrar import Registrar
from lumbar.errors import NotDicom, NotFound, Permanent
from lumbar.store.arrivals import ArrivingInstance
from tests.factories.analyses import analysed
from tests.factories.instances import ROOT, arrival, make_slice

UID = f"{ROOT}.1"


def rows(site, table):
    with site.database.reading() as session:
        return session.scalar(select(func.count()).select_from(table))


def stored(site):
    return list((site.store.root / "instances").rglob("*.dcm"))


def test_a_deleted_study_leaves_only_a_tombstone_that_the_audit_trail_can_name(site):
    analysed(site, 1)
    analysed(site, 2)
    deletion.delete_study(site, UID, "sent by mistake", Participant("admin"))
    assert [rows(site, table) for table in (Study, Patient, Instance, FindingRow)] == [1, 1, 1, 25]
    assert rows(site, SearchKey) > 0
    assert len(stored(site)) == 1
    with site.database.reading() as session:
        (tombstone,) = session.scalars(select(Tombstone))
        events = [
            (line.event, line.study_instance_uid) for _, line in audit.lines_after(session, 0, 10)
        ]
    assert (tombstone.study_instance_uid, tombstone.reason, tombstone.actor) == (
        UID,
        "sent by mistake",
        "admin",
    )
    assert events == [("study.deletion_begun", UID), ("study.deleted", UID)]


def test_a_deleted_study_that_is_sent_again_is_a_new_one(site):
    analysed(site, 1)
    deletion.delete_study(site, UID, "sent by mistake", Participant("admin"))
    assert ingest(site.database, site.store, arrival(make_slice(study=1))) is IngestResult.NEW
    assert len(stored(site)) == 1


def test_a_deletion_killed_half_way_can_be_repeated_or_undone(site, monkeypatch):
    analysed(site, 1)
    with monkeypatch.context() as patched:
        patched.setattr(
            retention, "unlink_removed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            deletion.delete_study(site, UID, "sent by mistake", Participant("admin"))
    with site.database.reading() as session:
        study = studies.find(session, UID)
        assert (study.state, study.reason) == (StudyState.FAILED, "its deletion was started")
    retention.unlink_removed(site, study.id)
    assert ingest(site.database, site.store, arrival(make_slice(study=1))) is IngestResult.DUPLICATE
    with site.database.transaction() as session:
        operator_actions.requeue(session, UID, Participant("admin"))
    deletion.delete_study(site, UID, "after all", Participant("admin"))
    assert rows(site, Study) == 0


def test_a_study_of_which_an_image_waits_for_its_rows_is_not_deleted(site):
    analysed(site, 1)
    arrive(site, make_slice(study=1, number=99))
    with pytest.raises(Permanent, match="has just arrived"):
        deletion.delete_study(site, UID, "sent by mistake", Participant("admin"))
    assert Registrar(site).register_arrived() == 1
    deletion.delete_study(site, UID, "sent by mistake", Participant("admin"))
    assert rows(site, Instance) == 0


def test_an_image_that_arrives_while_its_study_is_deleted_is_a_new_study(site, monkeypatch):
    analysed(site, 1)
    remove_rows = deletion._remove_rows

    def arrives_first(*arguments):
        arrive(site, make_slice(study=1))
        return remove_rows(*arguments)

    monkeypatch.setattr(deletion, "_remove_rows", arrives_first)
    deletion.delete_study(site, UID, "sent by mistake", Participant("admin"))
    assert rows(site, Instance) == 0
    assert Registrar(site).register_arrived() == 1
    assert len(stored(site)) == 1


def test_what_could_not_be_registered_of_a_study_is_deleted_with_it(site, monkeypatch):
    analysed(site, 1)
    with monkeypatch.context() as patch:
        patch.setattr(registration, "identify", lambda path: (_ for _ in ()).throw(NotDicom("no")))
        arrive(site, make_slice(study=1, number=98))
        arrive(site, make_slice(study=2))
        assert Registrar(site).register_arrived() == 2
    deletion.delete_study(site, UID, "sent by mistake", Participant("admin"))
    (kept,) = (site.store.root / "quarantined").iterdir()
    assert kept.name.startswith(f"{ROOT}.2_")


def arrive(site, ds):
    """An image is acknowledged, and has no rows yet."""
    sent = arrival(ds)
    with ArrivingInstance(site.store, sent.announced) as arriving:
        arriving.write(sent.dataset.read())
        arriving.arrive()


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_a_deletion_without_a_reason_is_refused(site, reason):
    analysed(site, 1)
    with pytest.raises(Permanent, match="give a reason"):
        deletion.delete_study(site, UID, reason, Participant("admin"))
    assert rows(site, FindingRow) == 25


def test_a_study_that_does_not_exist_cannot_be_deleted(site):
    with pytest.raises(NotFound):
        deletion.delete_study(site, UID, "why not", Participant("admin"))


def test_a_superseded_report_is_not_sent_again(site):
    analysed(site, 1)
    with site.database.transaction() as session:
        study = studies.find(session, UID)
        jobs.create(session, JobKind.DELIVER, study, destination="pacs")
        study.revision += 1
        session.flush()
        jobs.create(session, JobKind.DELIVER, study, destination="pacs")
        old, new = session.scalars(
            select(Job).where(Job.kind == JobKind.DELIVER).order_by(Job.revision)
        )
        old.state, new.state = JobState.CANCELLED, JobState.DONE
        new.ended_at = datetime.now(UTC) - timedelta(hours=1)
    with (
        site.database.transaction() as session,
        pytest.raises(Permanent, match="a later one has replaced"),
    ):
        operator_actions.resend(session, old.id, Participant("anna"))
    with site.database.transaction() as session:
        operator_actions.resend(session, new.id, Participant("anna"))
        assert session.get_one(Job, new.id, populate_existing=True).state is JobState.PENDING
