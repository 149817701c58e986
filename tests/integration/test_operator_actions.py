"""Operator actions on jobs: what may be retried or cancelled, the study's state, the audit."""

import pytest
from sqlalchemy import select, update

from db import job_lifecycle, jobs, operator_actions, studies
from db.ingest import ingest
from db.leases import Backoff, LeaseLostError
from db.models import AuditEvent, Job, JobKind, JobState, ReportRow, Study, StudyState
from db.operator_actions import CANCELLED
from db.studies import StudyEvent
from lumbar.errors import Permanent
from tests.factories.instances import ROOT, arrival, make_slice

LATER, ONCE = Backoff(2, 1000, 1000), Backoff(1, 1, 1)
REPORT = {
    "sop_class_uid": "1.2",
    "series_instance_uid": "1.3",
    "sha256": "ab" * 32,
    "file": "reports/ab.dcm",
}


@pytest.fixture
def analysis(site):
    """The id of a study's ANALYSE job."""
    ingest(site.database, site.store, arrival(make_slice()))
    return next_analysis(site)


@pytest.fixture
def delivery(site, analysis):
    """The id of the DELIVER job of its report."""
    return analysed(site, 1)


def next_analysis(site):
    with site.database.transaction() as session:
        studies.complete(session, studies.find(session, f"{ROOT}.1").id)
        return session.scalars(select(Job.id).order_by(Job.id.desc())).first()


def analysed(site, number):
    with site.database.transaction() as session:
        claimed = job_lifecycle.claim(session, JobKind.ANALYSE, lease_s=10)
        report = ReportRow(study_id=1, revision=number, sop_instance_uid=f"1.2.{number}", **REPORT)
        job_lifecycle.end_analysis(
            session, claimed, StudyEvent.ANALYSED, report=report, destinations=["pacs"]
        )
        return session.scalars(select(Job.id).order_by(Job.id.desc())).first()


def claim(site, kind):
    with site.database.transaction() as session:
        return job_lifecycle.claim(session, kind, lease_s=10)


def give_back(site, claimed, backoff):
    with site.database.transaction() as session:
        job_lifecycle.release(session, claimed, "the disk is away", backoff)


def by_a_person(site, act, job_id):
    with site.database.transaction() as session:
        act(session, job_id, "person")


def refused(site, act, job_id, said):
    with pytest.raises(Permanent, match=said):
        by_a_person(site, act, job_id)


def audited(site):
    with site.database.reading() as session:
        return [
            (one.event, one.actor, one.study_id, one.detail)
            for one in session.scalars(select(AuditEvent))
        ]


def row(site, table, number=1):
    with site.database.reading() as session:
        return session.get_one(table, number)


def test_a_job_that_waits_for_its_next_try_is_due_now(site, analysis):
    give_back(site, claim(site, JobKind.ANALYSE), LATER)
    assert claim(site, JobKind.ANALYSE) is None
    by_a_person(site, operator_actions.retry, analysis)
    assert claim(site, JobKind.ANALYSE).lease.row_id == analysis
    assert audited(site) == [("job.retried", "person", 1, {"job": analysis})]


def test_a_dead_delivery_has_all_its_tries_again(site, delivery):
    give_back(site, claim(site, JobKind.DELIVER), ONCE)
    assert row(site, Job, delivery).state is JobState.DEAD
    by_a_person(site, operator_actions.retry, delivery)
    claimed = claim(site, JobKind.DELIVER)
    assert (claimed.lease.row_id, claimed.lease.attempts, claimed.lease.losses) == (delivery, 1, 0)


def test_a_dead_analysis_is_made_again_as_the_studys_next_revision(site, analysis):
    give_back(site, claim(site, JobKind.ANALYSE), ONCE)
    assert row(site, Study).state is StudyState.FAILED
    by_a_person(site, operator_actions.retry, analysis)
    assert (row(site, Study).state, row(site, Study).revision) == (StudyState.QUEUED, 2)
    assert claim(site, JobKind.ANALYSE).revision == 2


def test_what_was_superseded_or_has_ended_is_not_tried_again(site, analysis):
    refused(site, operator_actions.retry, 4711, "no job 4711")
    give_back(site, claim(site, JobKind.ANALYSE), ONCE)
    ingest(site.database, site.store, arrival(make_slice(number=2)))
    refused(site, operator_actions.retry, analysis, "superseded")
    next_analysis(site)
    early = analysed(site, 2)
    give_back(site, claim(site, JobKind.DELIVER), ONCE)
    ingest(site.database, site.store, arrival(make_slice(number=3)))
    done = next_analysis(site)
    analysed(site, 3)
    refused(site, operator_actions.retry, early, "a later one has replaced")
    refused(site, operator_actions.retry, done, "is done")
    assert audited(site) == []


@pytest.mark.parametrize("running", [False, True])
def test_a_cancelled_analysis_fails_its_study_with_the_reason_and_ends_its_workers_lease(
    site, analysis, running
):
    claimed = claim(site, JobKind.ANALYSE) if running else None
    by_a_person(site, operator_actions.cancel, analysis)
    study = row(site, Study)
    assert (study.state, study.reason) == (StudyState.FAILED, f"its analysis was {CANCELLED}")
    assert study.ended_at is not None
    assert (row(site, Job, analysis).state, row(site, Job, analysis).last_error) == (
        JobState.CANCELLED,
        CANCELLED,
    )
    if running:
        with pytest.raises(LeaseLostError), site.database.transaction() as session:
            job_lifecycle.end_analysis(session, claimed, StudyEvent.ANALYSED)
        give_back(site, claimed, LATER)
    assert claim(site, JobKind.ANALYSE) is None
    assert audited(site) == [("job.cancelled", "person", 1, {"job": analysis})]
    with site.database.transaction() as session:
        assert studies.requeue(session, study.id)
    assert claim(site, JobKind.ANALYSE).revision == 2


def test_a_cancelled_delivery_is_not_sent_and_its_study_stays_analysed(site, delivery):
    by_a_person(site, operator_actions.cancel, delivery)
    assert claim(site, JobKind.DELIVER) is None
    assert row(site, Study).state is StudyState.ANALYSED
    refused(site, operator_actions.cancel, delivery, "is cancelled")


def test_jobs_are_listed_as_they_are_taken_and_by_state_and_kind(site, analysis):
    for number, priority in ((2, "STAT"), (3, "LOW")):
        ingest(
            site.database,
            site.store,
            arrival(make_slice(study=number, RequestedProcedurePriority=priority)),
        )
        with site.database.transaction() as session:
            studies.complete(session, studies.find(session, f"{ROOT}.{number}").id)
            session.execute(update(Job).where(Job.study_id == 3).values(run_after=jobs.db_now(-60)))

    def listed(**filters):
        with site.database.reading() as session:
            return [
                row.study_instance_uid[-1] for row in operator_actions.list_jobs(session, **filters)
            ]

    assert listed() == ["2", "3", "1"]
    claim(site, JobKind.ANALYSE)
    assert listed(states=[JobState.PENDING]) == ["3", "1"]
    assert listed(states=[JobState.RUNNING, JobState.DEAD]) == ["2"]
    assert listed(kinds=[JobKind.DELIVER]) == []
