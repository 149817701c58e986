"""Claiming: the most urgent due job, one worker each, and no waiting for locked studies."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, Event

import pytest
from sqlalchemy import event, select, update
from structlog.testing import capture_logs

from db import job_lifecycle, jobs, studies
from db.ingest import ingest
from db.models import Job, JobKind, JobState, Study, StudyState
from tests.factories.instances import ROOT, arrival, make_slice


@pytest.fixture
def queue(site):
    """Makes studies, each with its ANALYSE job; those named STAT are urgent."""

    def create_studies(*names):
        for number, name in enumerate(names, 1):
            urgent = {"RequestedProcedurePriority": "STAT"} if name == "STAT" else {}
            ingest(site.database, site.store, arrival(make_slice(study=number, **urgent)))
            with site.database.transaction() as session:
                studies.complete(session, study_id(session, number))

    return create_studies


def study_id(session, number):
    return studies.find(session, f"{ROOT}.{number}").id


def claim(site):
    """The number of the study whose job is claimed, or None."""
    with site.database.transaction() as session:
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)
        return claimed and int(
            session.get_one(Study, claimed.study_id).study_instance_uid.split(".")[-1]
        )


def change(site, number, **values):
    with site.database.transaction() as session:
        session.execute(
            update(Job).where(Job.study_id == study_id(session, number)).values(**values)
        )


def test_the_urgent_job_is_claimed_first_then_the_longest_waiting_and_one_due_later_waits(
    site, queue
):
    queue("routine", "routine", "STAT", "STAT", "STAT")
    change(site, 2, run_after=jobs.db_now(-60))
    change(site, 4, run_after=jobs.db_now(-60))
    change(site, 5, run_after=jobs.db_now(60))
    assert [claim(site) for _ in range(5)] == [4, 3, 2, 1, None]


def test_workers_that_claim_concurrently_get_one_job_each(site, queue):
    queue(*["routine"] * 6)
    together = Barrier(6)

    def work(_):
        together.wait(10)
        while (
            claimed := claim(site)
        ) is None:  # all jobs it looked at were claimed by others: the next notification follows
            pass
        return claimed

    with ThreadPoolExecutor(6) as workers:
        assert sorted(workers.map(work, range(6))) == [1, 2, 3, 4, 5, 6]


def test_of_two_workers_that_saw_the_same_job_the_second_gets_none_and_changes_nothing(
    site, queue, monkeypatch
):
    queue("routine")
    with site.database.reading() as session:
        due = jobs.due(session, JobKind.ANALYSE, 1)
    monkeypatch.setattr(jobs, "due", lambda *_: due)
    assert [claim(site), claim(site)] == [1, None]
    with site.database.reading() as session:
        job = session.scalars(select(Job)).one()
    assert (job.state, job.attempts) == (JobState.RUNNING, 1)


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "database", ["postgresql"], indirect=True
)  # SQLite has one write lock for all
def test_a_study_locked_by_a_receiver_is_skipped_without_waiting(site, queue):
    queue("STAT", "routine")
    locked, released = Event(), Event()

    def receive():
        with site.database.transaction() as session:
            studies.lock(session, study_id(session, 1))
            locked.set()
            assert released.wait(30)

    with ThreadPoolExecutor(1) as receiver:
        receiving = receiver.submit(receive)
        assert locked.wait(10)
        try:
            assert claim(site) == 2
            assert claim(site) is None
        finally:
            released.set()
        receiving.result()
    assert claim(site) == 1


def test_a_job_whose_study_is_receiving_again_is_cancelled_and_the_next_one_claimed(site, queue):
    queue("STAT", "routine")
    with site.database.transaction() as session:
        session.execute(
            update(Study).where(Study.id == study_id(session, 1)).values(state=StudyState.RECEIVING)
        )
    assert claim(site) == 2
    with site.database.reading() as session:
        states = select(Job.state).where(Job.study_id == study_id(session, 1))
        assert session.scalars(states).one() is JobState.CANCELLED


def test_two_sweeps_release_a_lost_job_once(site, queue):
    queue("routine")
    claim(site)
    change(site, 1, lease_expires_at=jobs.db_now(-1))
    with site.database.reading() as session:
        (expired,) = job_lifecycle.expired(session)
    together = Barrier(2)

    def sweep(_):
        together.wait(10)
        with site.database.transaction() as session:
            return job_lifecycle.recover(session, expired, max_losses=10) is not None

    with ThreadPoolExecutor(2) as sweeps:
        assert sorted(sweeps.map(sweep, range(2))) == [False, True]
    with site.database.reading() as session:
        assert session.scalars(select(Job.losses)).one() == 1


def test_a_worker_that_lost_its_lease_does_not_affect_the_one_that_holds_it(site, queue):
    queue("routine")
    with site.database.transaction() as session:
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)
    change(site, 1, lease_expires_at=jobs.db_now(-1))
    with site.database.transaction() as session:
        assert job_lifecycle.recover(session, claimed, max_losses=10)
    assert claim(site) == 1
    with site.database.transaction() as session:
        job_lifecycle.release(
            session, claimed, "the disk is unavailable", site.retry_policy(claimed.kind).temporary
        )
    with site.database.reading() as session:
        assert session.scalars(select(Study.state)).one() is StudyState.ANALYSING


def test_looking_for_work_writes_nothing_when_there_is_none(site):
    statements = []

    def note(connection, cursor, statement, *_):
        if statement.split()[0] in ("INSERT", "UPDATE", "DELETE"):
            statements.append(statement)

    event.listen(site.database.engine, "before_cursor_execute", note)
    assert claim(site) is None
    assert statements == []


def test_a_lost_worker_is_logged_once_the_row_says_so(site):
    ingest(site.database, site.store, arrival(make_slice()))
    with site.database.transaction() as session:
        studies.complete(session, studies.find(session, f"{ROOT}.1").id)
        claimed = job_lifecycle.claim_analysis(session, lease_s=-1)
    with capture_logs() as events:
        for error in (OSError(), None):
            with suppress(OSError), site.database.transaction() as session:
                job_lifecycle.recover(session, claimed, max_losses=3)
                assert events == []
                if error:
                    raise error
    assert [each["event"] for each in events] == ["job.worker_lost"]
