"""Deletion of a study, also when a scanner sends it again or the process is killed meanwhile."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from db import audit, deletion, jobs, operator_actions, retention, studies
from db.ingest import IngestResult, RemovedMeanwhile, ingest
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
from lumbar.errors import NotFound, Permanent
from lumbar.store.files import StagingFile
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
    deletion.delete_study(site, UID, "sent by mistake", "admin")
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
    deletion.delete_study(site, UID, "sent by mistake", "admin")
    assert ingest(site.database, site.store, arrival(make_slice(study=1))) is IngestResult.NEW
    assert len(stored(site)) == 1


def test_a_deletion_killed_half_way_can_be_repeated_or_undone(site, monkeypatch):
    analysed(site, 1)
    with monkeypatch.context() as patched:
        patched.setattr(
            retention, "unlink_removed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            deletion.delete_study(site, UID, "sent by mistake", "admin")
    with site.database.reading() as session:
        study = studies.find(session, UID)
        assert (study.state, study.reason) == (StudyState.FAILED, "its deletion was started")
    retention.unlink_removed(site, study.id)
    assert ingest(site.database, site.store, arrival(make_slice(study=1))) is IngestResult.DUPLICATE
    with site.database.transaction() as session:
        operator_actions.requeue(session, UID, "admin")
    deletion.delete_study(site, UID, "after all", "admin")
    assert rows(site, Study) == 0


def test_an_image_received_while_its_study_is_deleted_must_be_sent_again(site, monkeypatch):
    """The deletion ends after the file was stored and before its rows are written.

    The image must not be acknowledged.
    """
    analysed(site, 1)
    commit = StagingFile.commit

    def committed_then_deleted(staging, kind, digest):
        place = commit(staging, kind, digest)
        monkeypatch.undo()
        deletion.delete_study(site, UID, "sent by mistake", "admin")
        return place

    monkeypatch.setattr(StagingFile, "commit", committed_then_deleted)
    with pytest.raises(RemovedMeanwhile, match="send it again"):
        ingest(site.database, site.store, arrival(make_slice(study=1)))
    assert rows(site, Instance) == 0
    assert ingest(site.database, site.store, arrival(make_slice(study=1))) is IngestResult.NEW


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_a_deletion_without_a_reason_is_refused(site, reason):
    analysed(site, 1)
    with pytest.raises(Permanent, match="give a reason"):
        deletion.delete_study(site, UID, reason, "admin")
    assert rows(site, FindingRow) == 25


def test_a_study_that_does_not_exist_cannot_be_deleted(site):
    with pytest.raises(NotFound):
        deletion.delete_study(site, UID, "why not", "admin")


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
        operator_actions.resend(session, old.id, "anna")
    with site.database.transaction() as session:
        operator_actions.resend(session, new.id, "anna")
        assert session.get_one(Job, new.id, populate_existing=True).state is JobState.PENDING
