"""The states of a study and the lease of a job, on both databases."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product

import pytest
from sqlalchemy import select, update

from db import job_lifecycle, jobs, leases, studies
from db.ingest import ingest
from db.job_lifecycle import Recovery
from db.leases import Backoff, LeaseLostError
from db.models import Job, JobKind, JobState, Study, StudyState
from db.studies import TRANSITIONS, Quiet, StudyEvent
from tests.factories.instances import ROOT, arrival, make_slice
from tests.stub_networks import StubNetworks
from worker.tasks import tasks


@pytest.fixture
def study_id(site):
    ingest(site.database, site.store, arrival(make_slice()))
    with site.database.reading() as session:
        return studies.find(session, f"{ROOT}.1").id


@pytest.fixture
def job_id(site, study_id):
    with site.database.transaction() as session:
        studies.complete(session, study_id)
        return session.scalars(select(Job.id)).one()


def state(site, table=Study):
    with site.database.reading() as session:
        return session.scalars(select(table.state)).one()


def recover(session, site):
    """As the sweep does."""
    return [
        job_lifecycle.recover(session, expired, max_losses=site.settings.worker_losses)
        for expired in job_lifecycle.expired(session)
    ]


def expire(site):
    """As if the lease had run out."""
    with site.database.transaction() as session:
        session.execute(update(Job).values(lease_expires_at=jobs.db_now(-1)))


@pytest.mark.parametrize(
    ("before", "event"),
    [pair for pair in product(StudyState, StudyEvent) if pair[1] is not StudyEvent.ARRIVED],
)
def test_a_study_changes_state_only_by_the_table_of_transitions(site, study_id, before, event):
    with site.database.transaction() as session:
        session.execute(update(Study).values(state=before))
    with site.database.transaction() as session:
        moved = studies.advance(session, study_id, event)
    after = TRANSITIONS.get((before, event))
    assert moved is (after is not None)
    assert state(site) is (after or before)


@pytest.mark.parametrize("before", StudyState)
def test_an_arrival_always_leads_back_to_receiving(site, study_id, before):
    with site.database.transaction() as session:
        session.execute(update(Study).values(state=before))
    ingest(site.database, site.store, arrival(make_slice(number=2)))
    with site.database.reading() as session:
        study = session.get_one(Study, study_id)
    assert study.state is TRANSITIONS[before, StudyEvent.ARRIVED]
    unread = (StudyState.RECEIVING, StudyState.NO_IMAGES)  # there is no revision to change
    assert study.revision == (1 if before in unread else 2)


def test_a_job_is_claimed_once(site, job_id):
    with site.database.transaction() as session:
        first = job_lifecycle.claim_analysis(session, lease_s=10)
    with site.database.transaction() as session:
        assert job_lifecycle.claim_analysis(session, lease_s=10) is None
    assert first is not None
    assert state(site) is StudyState.ANALYSING


def test_a_lost_workers_job_is_claimed_by_another_and_its_late_result_is_not_written(site, job_id):
    with site.database.transaction() as session:
        first_claim = job_lifecycle.claim_analysis(session, lease_s=10)
    expire(site)
    with site.database.transaction() as session:
        assert recover(session, site) == [Recovery.REQUEUED]
    assert state(site) is StudyState.QUEUED
    with site.database.transaction() as session:
        second_claim = job_lifecycle.claim_analysis(session, lease_s=10)
    assert (second_claim.lease.attempts, second_claim.study_id) == (2, first_claim.study_id)
    with pytest.raises(LeaseLostError), site.database.transaction() as session:
        job_lifecycle.end_analysis(session, first_claim, StudyEvent.ANALYSED)
    with site.database.transaction() as session:
        job_lifecycle.end_analysis(session, second_claim, StudyEvent.ANALYSED)
    assert state(site) is StudyState.ANALYSED


def test_a_heartbeat_extends_a_lease_but_not_a_lost_one(site, job_id):
    with site.database.transaction() as session:
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)
    expire(site)
    with site.database.transaction() as session:
        assert leases.extend(session, claimed.lease, lease_s=10)
    with site.database.transaction() as session:
        assert recover(session, site) == []
    expire(site)
    with site.database.transaction() as session:
        recover(session, site)
    with site.database.transaction() as session:
        assert not leases.extend(session, claimed.lease, lease_s=10)


def test_a_worker_whose_heartbeat_arrives_between_check_and_recovery_keeps_its_job(site, job_id):
    with site.database.transaction() as session:
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)
    expire(site)
    with site.database.reading() as session:
        (expired,) = job_lifecycle.expired(session)
    with site.database.transaction() as session:
        assert leases.extend(session, claimed.lease, lease_s=10)
    with site.database.transaction() as session:
        assert not job_lifecycle.recover(session, expired, max_losses=10)
        leases.finish(session, claimed.lease)


def test_a_job_lost_too_often_fails_its_study_with_a_reason(site, job_id):
    for _ in range(site.settings.worker_losses):
        with site.database.transaction() as session:
            assert job_lifecycle.claim_analysis(session, lease_s=10)
        expire(site)
        with site.database.transaction() as session:
            recover(session, site)
    with site.database.reading() as session:
        study = session.scalars(select(Study)).one()
    assert (study.state, study.reason) == (
        StudyState.FAILED,
        f"the worker was lost {site.settings.worker_losses} times; it may need too much memory",
    )
    assert state(site, Job) is JobState.DEAD


def test_a_job_that_fails_too_often_fails_its_study_and_lost_workers_do_not_count(site, job_id):
    with site.database.transaction() as session:
        job_lifecycle.claim_analysis(session, lease_s=10)
    expire(site)
    with site.database.transaction() as session:
        recover(session, site)
    for tries in range(site.settings.fault_attempts):
        assert state(site) is StudyState.QUEUED, tries
        with site.database.transaction() as session:
            session.execute(update(Job).values(run_after=jobs.db_now(-1)))
        with site.database.transaction() as session:
            claimed = job_lifecycle.claim_analysis(session, lease_s=10)
            job_lifecycle.release(
                session, claimed, "the disk is unavailable", site.retry_policy(claimed.kind).fault
            )
    with site.database.reading() as session:
        study = session.scalars(select(Study)).one()
    assert (study.state, study.reason) == (StudyState.FAILED, "the disk is unavailable")


def test_a_study_is_complete_when_it_has_all_roles_and_is_quiet(site):
    roles = (("sagittal", "T1"), ("sagittal", "T2"), ("axial", "T2"))
    for series, (plane, weighting) in enumerate(roles, 1):
        with site.database.reading() as session:
            assert studies.quiet_studies(session, Quiet(-1, 1000)) == []
        for number in range(8):
            ds = make_slice(series=series, number=number, plane=plane, weighting=weighting)
            ingest(site.database, site.store, arrival(ds))
    with site.database.reading() as session:
        study = studies.find(session, f"{ROOT}.1")
        assert studies.quiet_studies(session, Quiet(-1, 1000)) == [study.id]
        assert studies.quiet_studies(session, Quiet(1000, 1000)) == []


def test_a_study_is_not_complete_when_an_image_arrived_since_the_quiet_check(site, study_id):
    with site.database.transaction() as session:
        assert not studies.complete(session, study_id, Quiet(1000, 1000))
        assert studies.complete(session, study_id, Quiet(1000, -1))


def test_any_study_is_complete_after_a_long_quiet_period(site, study_id):
    with site.database.reading() as session:
        assert studies.quiet_studies(session, Quiet(1000, -1)) == [study_id]


def test_the_wait_before_a_retry_grows_with_jitter_up_to_its_limit():
    backoff = Backoff(attempts=9, base_s=2, max_s=60)
    for attempts, longest in ((1, 2), (2, 4), (5, 32), (6, 60), (9, 60), (500, 60)):
        waits = {backoff.wait_s(attempts) for _ in range(20)}
        assert longest / 2 <= min(waits) < max(waits) <= longest


def test_an_analysis_whose_stored_images_are_unavailable_waits_for_them(site, job_id):
    shutil.move(site.store.root, site.store.root.with_name("elsewhere"))
    tasks(site, StubNetworks)[JobKind.ANALYSE]()
    assert state(site) is StudyState.QUEUED
    with site.database.reading() as session:
        assert "is the store mounted?" in session.scalars(select(Job.last_error)).one()


def test_a_late_image_while_results_are_written_causes_no_deadlock(site, job_id):
    with site.database.transaction() as session:
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)

    def write(_):
        with suppress(LeaseLostError), site.database.transaction() as session:
            job_lifecycle.end_analysis(session, claimed, StudyEvent.ANALYSED)

    def send(number):
        ingest(site.database, site.store, arrival(make_slice(number=number)))

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(write if n == 4 else send, n) for n in range(2, 10)]:
            done.result()
    with site.database.reading() as session:
        study = session.scalars(select(Study)).one()
    assert (study.state, study.revision) == (StudyState.RECEIVING, 2)
