"""Operator actions on jobs: what may be retried or cancelled, the study's state, the audit."""

import pytest
from sqlalchemy import select, update

from db import job_lifecycle, jobs, operator_actions, studies
from db.audit import Participant
from db.ingest import ingest
from db.leases import Backoff, LeaseLostError
from db.models import AuditEvent, Job, JobKind, JobState, ReportRow, Study, StudyState
from db.operator_actions import CANCELLED
from db.studies import StudyEvent
from lumbar.errors import Permanent
from tests.factories.deliveries import claim_delivery
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
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)
        report = ReportRow(study_id=1, revision=number, sop_instance_uid=f"1.2.{number}", **REPORT)
        job_lifecycle.end_analysis(
            session, claimed, StudyEvent.ANALYSED, report=report, destinations=["pacs"]
        )
        return session.scalars(select(Job.id).order_by(Job.id.desc())).first()


def claim(site, kind):
    with site.database.transaction() as session:
        if kind is JobKind.DELIVER:
            return claim_delivery(session)
        return job_lifecycle.claim_analysis(session, lease_s=10)


def release(site, claimed, backoff):
    with site.database.transaction() as session:
        job_lifecycle.release(session, claimed, "the disk is unavailable", backoff)


def act_as_operator(site, act, job_id):
    with site.database.transaction() as session:
        act(session, job_id, Participant("person"))


def refused(site, act, job_id, text):
    with pytest.raises(Permanent, match=text):
        act_as_operator(site, act, job_id)


def audited(site):
    with site.database.reading() as session:
        return [
            (event.event, event.actor, event.study_id, event.detail)
            for event in session.scalars(select(AuditEvent))
        ]


def row(site, table, number=1):
    with site.database.reading() as session:
        return session.get_one(table, number)


def test_a_retried_job_that_was_waiting_is_due_now(site, analysis):
    release(site, claim(site, JobKind.ANALYSE), LATER)
    assert claim(site, JobKind.ANALYSE) is None
    act_as_operator(site, operator_actions.retry, analysis)
    assert claim(site, JobKind.ANALYSE).lease.row_id == analysis
    assert audited(site) == [("job.retried", "person", 1, {"job": analysis})]


def test_a_retried_dead_delivery_has_all_its_attempts_again(site, delivery):
    release(site, claim(site, JobKind.DELIVER), ONCE)
    assert row(site, Job, delivery).state is JobState.DEAD
    act_as_operator(site, operator_actions.retry, delivery)
    claimed = claim(site, JobKind.DELIVER)
    assert (claimed.lease.row_id, claimed.lease.attempts, claimed.lease.losses) == (delivery, 1, 0)


def test_a_retried_dead_analysis_is_the_studys_next_revision(site, analysis):
    release(site, claim(site, JobKind.ANALYSE), ONCE)
    assert row(site, Study).state is StudyState.FAILED
    act_as_operator(site, operator_actions.retry, analysis)
    assert (row(site, Study).state, row(site, Study).revision) == (StudyState.QUEUED, 2)
    assert claim(site, JobKind.ANALYSE).revision == 2


def test_a_superseded_or_ended_job_is_not_retried(site, analysis):
    refused(site, operator_actions.retry, 4711, "no job 4711")
    release(site, claim(site, JobKind.ANALYSE), ONCE)
    ingest(site.database, site.store, arrival(make_slice(number=2)))
    refused(site, operator_actions.retry, analysis, "superseded")
    next_analysis(site)
    delivered_first = analysed(site, 2)
    release(site, claim(site, JobKind.DELIVER), ONCE)
    ingest(site.database, site.store, arrival(make_slice(number=3)))
    finished_job = next_analysis(site)
    analysed(site, 3)
    refused(site, operator_actions.retry, delivered_first, "a later one has replaced")
    refused(site, operator_actions.retry, finished_job, "is done")
    assert audited(site) == []


@pytest.mark.parametrize("running", [False, True])
def test_a_cancelled_analysis_fails_its_study_with_the_reason_and_ends_its_workers_lease(
    site, analysis, running
):
    claimed = claim(site, JobKind.ANALYSE) if running else None
    act_as_operator(site, operator_actions.cancel, analysis)
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
        release(site, claimed, LATER)
    assert claim(site, JobKind.ANALYSE) is None
    assert audited(site) == [("job.cancelled", "person", 1, {"job": analysis})]
    with site.database.transaction() as session:
        assert studies.requeue(session, study.id)
    assert claim(site, JobKind.ANALYSE).revision == 2


def test_a_cancelled_delivery_is_not_sent_and_its_study_stays_analysed(site, delivery):
    act_as_operator(site, operator_actions.cancel, delivery)
    assert claim(site, JobKind.DELIVER) is None
    assert row(site, Study).state is StudyState.ANALYSED
    refused(site, operator_actions.cancel, delivery, "is cancelled")


def test_jobs_are_listed_in_claiming_order_and_by_state_and_kind(site, analysis):
    for number, priority in ((2, "STAT"), (3, "LOW")):
        ingest(
            site.database,
            site.store,
            arrival(make_slice(study=number, RequestedProcedurePriority=priority)),
        )
        with site.database.transaction() as session:
            studies.complete(session, studies.find(session, f"{ROOT}.{number}").id)
            session.execute(update(Job).where(Job.study_id == 3).values(run_after=jobs.db_now(-60)))

    def study_numbers(**filters):
        with site.database.reading() as session:
            return [
                row.study_instance_uid[-1] for row in operator_actions.list_jobs(session, **filters)
            ]

    assert study_numbers() == ["2", "3", "1"]
    claim(site, JobKind.ANALYSE)
    assert study_numbers(states=[JobState.PENDING]) == ["3", "1"]
    assert study_numbers(states=[JobState.RUNNING, JobState.DEAD]) == ["2"]
    assert study_numbers(kinds=[JobKind.DELIVER]) == []
