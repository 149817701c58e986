"""Rows of ``job``: analyses and deliveries of studies, claimed in the order of urgency."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session, aliased

from db import leases
from db.leases import Lease
from db.models import (
    OPEN_JOB_STATES,
    UNFINISHED_JOB_STATES,
    Job,
    JobKind,
    JobState,
    Study,
    StudyState,
)
from db.types import db_now


@dataclass(frozen=True)
class ClaimedJob:
    """A job that a worker has claimed; every write for it requires ``lease``."""

    lease: Lease
    kind: JobKind
    study_id: int
    revision: int
    destination: str
    report_id: int | None

    @property
    def log_fields(self) -> dict[str, object]:
        """The fields that identify it in log events."""
        return {"job": self.lease.row_id, "study": self.study_id, "kind": str(self.kind)}


def create(
    session: Session,
    kind: JobKind,
    study: Study,
    *,
    destination: str = "",
    report_id: int | None = None,
) -> None:
    """Adds a job that is due now; those of STAT orders go first, then those of severe studies."""
    session.add(
        Job(
            kind=kind,
            study_id=study.id,
            revision=study.revision,
            destination=destination,
            report_id=report_id,
            priority=2 * study.stat + study.severe,
        )
    )
    session.flush()


def due(session: Session, kind: JobKind, limit: int) -> Sequence[tuple[int, int]]:
    """The ids (job, study) of due jobs: the most urgent first, then the longest waiting.

    A job that is retried comes after those never attempted, because it became due later.
    """
    statement = (
        select(Job.id, Job.study_id)
        .where(Job.kind == kind, leases.is_due(Job))
        .order_by(Job.priority.desc(), Job.run_after, Job.id)
        .limit(limit)
    )
    return [(job_id, study_id) for job_id, study_id in session.execute(statement)]


def due_deliveries(
    session: Session, destination: str, limit: int, *, probe: bool = False
) -> Sequence[tuple[int, int]]:
    """The ids (job, study) of a destination's due jobs, the most urgent first.

    Of one study's reports only one is under way at a time, lest an earlier one arrives last.
    ``probe``: those that have not met with a failure of the destination come first, then those
    whose failure is longest ago, so that no report alone can hold it.
    """
    other = aliased(Job)
    under_way = exists().where(
        other.study_id == Job.study_id,
        other.kind == Job.kind,
        other.destination == Job.destination,
        other.state == JobState.RUNNING,
    )
    order = (Job.priority.desc(), Job.run_after, Job.id)
    statement = (
        select(Job.id, Job.study_id)
        .where(*_of(destination), leases.is_due(Job), ~under_way)
        .order_by(*((Job.failed_at.is_not(None), Job.failed_at) if probe else ()), *order)
        .limit(limit)
    )
    return [(job_id, study_id) for job_id, study_id in session.execute(statement)]


def is_any(session: Session, destination: str, *states: JobState) -> bool:
    """Whether a destination has a job in one of these states."""
    statement = select(Job.id).where(*_of(destination), Job.state.in_(states))
    return session.scalar(statement.limit(1)) is not None


def _of(destination: str) -> tuple[ColumnElement[bool], ...]:
    return Job.kind == JobKind.DELIVER, Job.destination == destination


def make_due(session: Session, destination: str) -> None:
    """Makes every pending job of a destination due."""
    waiting = (Job.destination == destination, Job.state == JobState.PENDING)
    session.execute(
        leases.change(Job, *waiting, Job.run_after > db_now()).values(run_after=db_now())
    )


def is_replaced(session: Session, claimed: ClaimedJob) -> bool:
    """Whether a later revision's report is to go to the same destination."""
    later = select(Job.id).where(
        Job.study_id == claimed.study_id,
        Job.kind == claimed.kind,
        Job.destination == claimed.destination,
        Job.revision > claimed.revision,
    )
    return session.scalar(later.limit(1)) is not None


def claim(session: Session, job_id: int, *, lease_s: float) -> ClaimedJob | None:
    """Claims a due job; None if another worker has claimed it."""
    lease = leases.claim(session, Job, job_id, lease_s=lease_s)
    return claimed_job(session.get_one(Job, job_id)) if lease else None


def claimed_job(job: Job) -> ClaimedJob:
    """A running job, as its worker holds it."""
    return ClaimedJob(
        lease=leases.lease_of(job),
        kind=job.kind,
        study_id=job.study_id,
        revision=job.revision,
        destination=job.destination,
        report_id=job.report_id,
    )


def expired(session: Session) -> list[ClaimedJob]:
    """Jobs whose worker is lost."""
    return [claimed_job(job) for job in leases.expired(session, Job)]


def cancel_superseded(session: Session, study_id: int, kind: JobKind) -> None:
    """Cancels a study's jobs of earlier revisions.

    The worker of a running analysis finds its lease lost. A running delivery may finish, because
    the peer may already have the report.
    """
    current = select(Study.revision).where(Study.id == study_id).scalar_subquery()
    states = UNFINISHED_JOB_STATES if kind is JobKind.ANALYSE else (JobState.PENDING,)
    superseded = (
        Job.study_id == study_id,
        Job.kind == kind,
        Job.revision < current,
        Job.state.in_(states),
    )
    session.execute(
        leases.change(Job, *superseded).values(
            state=JobState.CANCELLED, ended_at=db_now(), **leases.RELEASED
        )
    )


def has_undelivered_report() -> ColumnElement[bool]:
    """The condition that a report of the study has not reached its destination.

    Its delivery is pending, running or dead, and no later report is meant for the same destination.
    A report that is not sent any more does not count (``studies.report_superseded``).
    """
    later = aliased(Job)
    replaced = exists().where(
        later.study_id == Job.study_id,
        later.kind == JobKind.DELIVER,
        later.destination == Job.destination,
        later.revision > Job.revision,
    )
    not_sent = (Job.revision < Study.corrected_revision) | (
        (Study.state == StudyState.NO_IMAGES) & (Job.revision < Study.revision)
    )
    return exists().where(
        Job.study_id == Study.id,
        Job.kind == JobKind.DELIVER,
        Job.state.in_(OPEN_JOB_STATES),
        ~replaced,
        ~not_sent,
    )
