"""The job table is the queue: a row is claimed by one conditional UPDATE and held by a lease.

The lease runs by the database's clock. Whoever finds that a row is no longer theirs returns quietly: another worker
has it, or a later revision has overtaken it.
"""

from dataclasses import dataclass
from random import uniform
from uuid import uuid4

import structlog
from sqlalchemy import Update, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from db.models import UNFINISHED_JOB_STATES, Job, JobKind, JobState, Study
from db.types import db_now

log = structlog.get_logger()


@dataclass(frozen=True)
class Claimed:
    """A job in one's hands. Everything written for it is written under ``lease_token``."""

    job_id: int
    kind: JobKind
    study_id: int
    revision: int
    destination: str
    report_id: int | None
    attempts: int  # this one included
    losses: int  # of these, how many ended because the worker was lost
    lease_token: str


@dataclass(frozen=True)
class Backoff:
    """How often and how patiently a job is tried; seconds."""

    attempts: int
    base_s: float
    longest_s: float

    def wait_s(self, attempts: int) -> float:
        """The wait after so many attempts: exponential, half of it jitter so that many do not return at once."""
        longest = min(self.longest_s, self.base_s * 2.0 ** (min(attempts, 32) - 1))
        return uniform(longest / 2, longest)


def create(
    session: Session,
    kind: JobKind,
    study: Study,
    *,
    destination: str = "",
    report_id: int | None = None,
) -> None:
    """Adds a job to do now; those of a study that was ordered as urgent go first."""
    session.add(
        Job(
            kind=kind,
            study_id=study.id,
            revision=study.revision,
            destination=destination,
            report_id=report_id,
            priority=1 if study.stat else 0,
        )
    )
    session.flush()


def due(session: Session, kind: JobKind, limit: int) -> list[tuple[int, int]]:
    """(job, study) of the jobs whose time has come: the urgent first, then who waited longest.

    A job that failed waits behind those that did not: its time came later.
    """
    question = (
        select(Job.id, Job.study_id)
        .where(Job.kind == kind, Job.state == JobState.PENDING, Job.run_after <= db_now())
        .order_by(Job.priority.desc(), Job.run_after, Job.id)
        .limit(limit)
    )
    return [(job_id, study_id) for job_id, study_id in session.execute(question)]


def claim(session: Session, job_id: int, *, lease_s: float) -> Claimed | None:
    """Takes a due job, or None when another worker got there first."""
    token = uuid4().hex
    taken = session.execute(
        change(Job.id == job_id, Job.state == JobState.PENDING, Job.run_after <= db_now()).values(
            state=JobState.RUNNING,
            lease_token=token,
            lease_expires_at=db_now(lease_s),
            attempts=Job.attempts + 1,
        )
    )
    if taken.rowcount != 1:  # type: ignore[attr-defined]
        return None
    return _claimed(session.get_one(Job, job_id, populate_existing=True))


def is_held(session: Session, claimed: Claimed) -> bool:
    """Whether the lease is still ours."""
    return session.scalar(select(Job.id).where(*_held(claimed))) is not None


def heartbeat(session: Session, claimed: Claimed, *, lease_s: float) -> bool:
    """Extends the lease; False when it is lost."""
    return _write(session, claimed, lease_expires_at=db_now(lease_s))


def finish(session: Session, claimed: Claimed) -> bool:
    """Ends a job well; False when the lease was lost, and then nothing of this transaction may be kept."""
    return _write(
        session, claimed, state=JobState.DONE, last_error=None, ended_at=db_now(), **RELEASED
    )


def retry(session: Session, claimed: Claimed, error: str, backoff: Backoff) -> bool:
    """Puts a job back for later; False when it was tried as often as it may be. Lost workers are no tries."""
    tries = claimed.attempts - claimed.losses
    if tries >= backoff.attempts:
        return False
    wait_s = backoff.wait_s(tries)
    put_back = {"state": JobState.PENDING, "last_error": error, "run_after": db_now(wait_s)}
    if _write(session, claimed, **put_back, **RELEASED):
        log.warning(
            "job.retry", job=claimed.job_id, attempts=claimed.attempts, wait_s=round(wait_s, 1)
        )
    return True


def replace_worker(session: Session, claimed: Claimed, max_losses: int) -> bool:
    """Puts a lost worker's job back at once; False when too many workers were lost over it.

    A restart is no fault of the job, so it is no try; but a study may be what kills its workers, so it is bounded.
    """
    if claimed.losses + 1 >= max_losses:
        return False
    put_back = {
        "state": JobState.PENDING,
        "last_error": "the worker was lost",
        "run_after": db_now(),
    }
    if _write(session, claimed, **put_back, losses=claimed.losses + 1, **RELEASED):
        log.warning("job.worker_lost", job=claimed.job_id, losses=claimed.losses + 1)
    return True


def bury(session: Session, claimed: Claimed, error: str) -> bool:
    """Ends a job as a dead letter with its last error; False when the lease was lost."""
    buried = _write(
        session, claimed, state=JobState.DEAD, last_error=error, ended_at=db_now(), **RELEASED
    )
    if buried:
        log.error("job.dead", job=claimed.job_id, kind=str(claimed.kind), attempts=claimed.attempts)
    return buried


def cancel(session: Session, claimed: Claimed) -> bool:
    """Ends a job that its study has no use for any more."""
    return _write(session, claimed, state=JobState.CANCELLED, ended_at=db_now(), **RELEASED)


def expired(session: Session, job_id: int | None = None) -> list[Claimed]:
    """Jobs whose worker was not heard of until the lease ended; or the one job, locked, if it still is one of them.

    A row that somebody else has locked is left out: it is being written, and the next look finds what became of it.
    """
    lost = (
        select(Job)
        .where(Job.state == JobState.RUNNING, Job.lease_expires_at < db_now())
        .order_by(Job.id)
    )
    if job_id is not None:
        lost = lost.where(Job.id == job_id).with_for_update(skip_locked=True)
    return [_claimed(job) for job in session.scalars(lost)]


def cancel_overtaken(session: Session, study_id: int, kind: JobKind) -> None:
    """Cancels a study's jobs of earlier revisions. A worker on an analysis finds its lease gone; a delivery that is
    under way ends, since the peer may have the report already.
    """
    current = select(Study.revision).where(Study.id == study_id).scalar_subquery()
    cancelled = UNFINISHED_JOB_STATES if kind is JobKind.ANALYSE else (JobState.PENDING,)
    session.execute(
        change(
            Job.study_id == study_id,
            Job.kind == kind,
            Job.revision < current,
            Job.state.in_(cancelled),
        ).values(state=JobState.CANCELLED, ended_at=db_now(), **RELEASED)
    )


def _claimed(job: Job) -> Claimed:
    return Claimed(
        job_id=job.id,
        kind=job.kind,
        study_id=job.study_id,
        revision=job.revision,
        destination=job.destination,
        report_id=job.report_id,
        attempts=job.attempts,
        losses=job.losses,
        lease_token=job.lease_token or "",
    )


RELEASED: dict[str, None] = {"lease_token": None, "lease_expires_at": None}


def change(*where: object) -> Update:
    return update(Job).where(*where).execution_options(synchronize_session=False)  # type: ignore[arg-type]


def _held(claimed: Claimed) -> tuple[ColumnElement[bool], ...]:
    return (
        Job.id == claimed.job_id,
        Job.state == JobState.RUNNING,
        Job.lease_token == claimed.lease_token,
    )


def _write(session: Session, claimed: Claimed, **values: object) -> bool:
    """Changes the row only while the lease is still ours."""
    written = session.execute(change(*_held(claimed)).values(**values))
    return written.rowcount == 1  # type: ignore[attr-defined,no-any-return]
