"""The queue as operators see it, and their actions on it. Each action is audited, by ids only."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import audit, corrections, held_destinations, leases, studies
from db.audit import Participant
from db.models import OPEN_JOB_STATES, UNFINISHED_JOB_STATES, Job, JobKind, JobState, Study
from db.studies import StudyEvent
from db.types import db_now
from lumbar.errors import NotFound, Permanent, Transient

CANCELLED = "cancelled by an operator"
RESTARTED = {
    "state": JobState.PENDING,
    "attempts": 0,
    "losses": 0,
    "faults": 0,
    "first_failed_at": None,
    "first_failed_s": None,
    "failed_at": None,
    "sends": 0,
    "sent_status": None,
    "unlisted": False,
    "ended_at": None,
}


@dataclass(frozen=True)
class JobRow:
    """A job as an operator sees it; nothing of the patient."""

    job: int
    kind: JobKind
    study_instance_uid: str
    revision: int
    destination: str
    priority: int
    state: JobState
    attempts: int
    losses: int
    run_after: datetime
    last_error: str | None


def list_jobs(
    session: Session,
    *,
    states: Collection[JobState] = (),
    kinds: Collection[JobKind] = (),
    limit: int | None = None,
) -> list[JobRow]:
    """Jobs in the order in which workers claim them: the most urgent, then the longest waiting."""
    statement = select(Job, Study.study_instance_uid).join(Study, Study.id == Job.study_id)
    if states:
        statement = statement.where(Job.state.in_(states))
    if kinds:
        statement = statement.where(Job.kind.in_(kinds))
    ordered = statement.order_by(Job.priority.desc(), Job.run_after, Job.id)
    return [
        JobRow(
            job=job.id,
            kind=job.kind,
            study_instance_uid=study_instance_uid,
            revision=job.revision,
            destination=job.destination,
            priority=job.priority,
            state=job.state,
            attempts=job.attempts,
            losses=job.losses,
            run_after=job.run_after,
            last_error=job.last_error,
        )
        for job, study_instance_uid in session.execute(ordered.limit(limit))
    ]


def retry(session: Session, job_id: int, actor: Participant) -> None:
    """Makes a pending job due now, or attempts a dead one again.

    A dead analysis is repeated as the study's next revision.

    Raises:
        NotFound: there is no such job.
        Permanent: its state does not allow it, or it was superseded.
    """
    job = _locked(session, job_id)
    if job.state not in (JobState.PENDING, JobState.DEAD):
        raise Permanent(f"job {job_id} is {job.state}; only a pending or dead one can be retried")
    if job.kind is JobKind.DELIVER:
        _require_current(session, job)
        held_destinations.probe_now(session, job.destination)
    if job.kind is JobKind.ANALYSE and job.state is JobState.DEAD:
        if session.get_one(Study, job.study_id).revision != job.revision or not studies.requeue(
            session, job.study_id
        ):
            raise Permanent(f"job {job_id} is superseded: its study has a later revision")
    else:
        session.execute(
            leases.change(Job, Job.id == job_id).values(
                run_after=db_now(), **(RESTARTED if job.state is JobState.DEAD else {})
            )
        )
    audit.note(session, "job.retried", actor, study_id=job.study_id, job=job.id)


def cancel(session: Session, job_id: int, actor: Participant) -> None:
    """Cancels a job that has not ended; its worker finds its lease lost.

    The study of a cancelled analysis has failed. A dead delivery can be cancelled, too: then the
    study does not wait for it any more (``jobs.has_undelivered_report``).

    Raises:
        NotFound: there is no such job.
        Permanent: it has ended.
    """
    job = _locked(session, job_id)
    states = OPEN_JOB_STATES if job.kind is JobKind.DELIVER else UNFINISHED_JOB_STATES
    ended = session.execute(
        leases.change(Job, Job.id == job_id, Job.state.in_(states)).values(
            state=JobState.CANCELLED, last_error=CANCELLED, ended_at=db_now(), **leases.RELEASED
        )
    )
    if ended.rowcount != 1:  # type: ignore[attr-defined]
        raise Permanent(
            f"job {job_id} is {job.state}; only a pending or running one can be cancelled, "
            "or a dead delivery"
        )
    if job.kind is JobKind.ANALYSE:
        reason = f"its analysis was {CANCELLED}"
        studies.advance(
            session, job.study_id, StudyEvent.CANCELLED, revision=job.revision, reason=reason
        )
        studies.ended_without_findings(session, job.study_id)
    audit.note(session, "job.cancelled", actor, study_id=job.study_id, job=job.id)


def requeue(session: Session, study_instance_uid: str, actor: Participant) -> None:
    """Analyses an ended study again, as its next revision.

    Raises:
        NotFound: there is no such study.
        Permanent: it has not ended, or has no images.
    """
    study = studies.find(session, study_instance_uid)
    if not studies.requeue(session, study.id):
        raise Permanent(
            f"the study is {study.state.label}; only one that has ended can be analysed again"
        )
    audit.note(session, "study.requeued", actor, study_id=study.id)


def correct(
    session: Session, study_instance_uid: str, actor: Participant, token: str | None = None
) -> None:
    """Takes a study over under the patient, name or accession number that newer copies state.

    ``token``: of the correction meant; None where there is only one.

    Raises:
        NotFound: there is no such study.
        Permanent: no newer copies state anything else, some images have none yet, or it is not
            clear which correction is meant.
    """
    corrections.correct(session, studies.find(session, study_instance_uid), actor, token)


def complete(
    session: Session, study_instance_uid: str, actor: Participant, arriving: Collection[str]
) -> None:
    """Analyses a study now, without waiting for it to become quiet.

    ``arriving`` has the studies of which images wait for their rows (``Store.arriving``).

    Raises:
        Transient: it is among them.
        NotFound: there is no such study.
        Permanent: it is not receiving, or none of its images is in use.
    """
    if study_instance_uid in arriving:
        raise Transient("images of the study have just arrived; complete it again in a moment")
    study = studies.find(session, study_instance_uid)
    if why := studies.why_empty(session, study.id):
        raise Permanent(f"there is nothing to analyse: {why}")
    if not studies.complete(session, study.id):
        raise Permanent(
            f"the study is {study.state.label}, not receiving; it can be requeued once it ends"
        )
    audit.note(session, "study.completed", actor, study_id=study.id)


def resend(session: Session, job_id: int, actor: Participant) -> None:
    """Delivers a report again to its destination: the same bytes under the same UID.

    Raises:
        NotFound: there is no such job.
        Permanent: it is not a delivery, has not ended, or was superseded.
    """
    job = _locked(session, job_id)
    if job.kind is not JobKind.DELIVER or job.state not in (
        JobState.DONE,
        JobState.DEAD,
        JobState.CANCELLED,
    ):
        raise Permanent(
            f"job {job_id} is a {job.state} {job.kind} job; only ended deliveries are sent again"
        )
    _require_current(session, job)
    session.execute(
        leases.change(Job, Job.id == job_id).values(
            run_after=db_now(), last_error=None, **RESTARTED
        )
    )
    audit.note(session, "report.sent_again", actor, study_id=job.study_id, job=job.id)


def _locked(session: Session, job_id: int) -> Job:
    """A job, with its study's row locked.

    Raises:
        NotFound: there is no such job.
    """
    study_id = session.scalar(select(Job.study_id).where(Job.id == job_id))
    if study_id is None:
        raise NotFound(f"there is no job {job_id}; `lumbar jobs list` shows the jobs")
    studies.lock(session, study_id)
    return session.get_one(Job, job_id, populate_existing=True)


def _require_current(session: Session, job: Job) -> None:
    """Requires that a delivery's report is its study's.

    Raises:
        Permanent: a later one has replaced it, or it is not true of the study any more.
    """
    if studies.report_superseded(session, job.study_id, job.revision):
        raise Permanent(
            f"job {job.id} delivers a report from before its study was corrected or its images "
            "were rejected; it is not sent any more"
        )
    later = select(Job.id).where(
        Job.study_id == job.study_id,
        Job.kind == job.kind,
        Job.destination == job.destination,
        Job.revision > job.revision,
    )
    if session.scalar(later.limit(1)) is not None:
        raise Permanent(
            f"job {job.id} delivers a report that a later one has replaced; that one has a job of "
            "its own"
        )
