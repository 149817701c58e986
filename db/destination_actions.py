"""What operators do about all jobs of a destination. Each action is audited."""

from collections.abc import Collection

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.elements import ColumnElement

from db import audit, held_destinations, jobs, leases
from db.audit import Participant
from db.models import Job, JobKind, JobState
from db.operator_actions import CANCELLED, RESTARTED
from db.types import db_now
from lumbar.errors import NotFound, Permanent

OPEN = (JobState.PENDING, JobState.DEAD)


def retry_all(session: Session, destination: str, actor: Participant) -> int:
    """Makes a destination's waiting jobs due, and attempts its dead ones again; returns how many.

    Dead deliveries of reports that later ones have replaced stay as they are.

    Raises:
        NotFound: no job of this destination waits or is dead.
    """
    count = _count(session, destination)
    held_destinations.probe_now(session, destination)
    jobs.make_due(session, destination)
    _restart_dead(session, destination)
    audit.note(session, "destination.retried", actor, destination=destination, jobs=count)
    return count


def reroute(session: Session, old: str, new: str, actor: Participant) -> int:
    """Sends what waits for one destination, or is dead, to another; returns how many jobs.

    A report that has a job for the other one goes there by that job.

    Raises:
        NotFound: no job of the first destination waits or is dead.
        Permanent: both are the same.
    """
    if old == new:
        raise Permanent(f"both destinations are {old!r}; name another one")
    count = _count(session, old)
    held_destinations.release(session, old)
    ended = Job.state.in_((JobState.CANCELLED, JobState.DEAD))
    there = (Job.destination == new) & ended & _same_report(old, OPEN)
    session.execute(leases.change(Job, there).values(run_after=db_now(), **RESTARTED))
    session.execute(
        leases.change(Job, _waiting(old), _same_report(new)).values(
            state=JobState.CANCELLED, ended_at=db_now(), last_error=f"goes to {new} anyway"
        )
    )
    # nothing of what the first destination has said is true of the other one
    session.execute(
        leases.change(Job, _waiting(old)).values(
            destination=new, run_after=db_now(), last_error=None, **RESTARTED
        )
    )
    audit.note(session, "destination.rerouted", actor, destination=old, to=new, jobs=count)
    return count


def cancel_all(session: Session, destination: str, actor: Participant) -> int:
    """Cancels what waits for a destination, or is dead; returns how many jobs.

    For one that is gone for ever: as long as a report is not delivered, its study's images stay.

    Raises:
        NotFound: no job of the destination waits or is dead.
    """
    count = _count(session, destination)
    held_destinations.release(session, destination)
    open_jobs = (Job.destination == destination, Job.kind == JobKind.DELIVER, Job.state.in_(OPEN))
    session.execute(
        leases.change(Job, *open_jobs).values(
            state=JobState.CANCELLED, ended_at=db_now(), last_error=CANCELLED
        )
    )
    audit.note(session, "destination.cancelled", actor, destination=destination, jobs=count)
    return count


def _restart_dead(session: Session, destination: str) -> None:
    dead = (_waiting(destination), Job.state == JobState.DEAD)
    session.execute(leases.change(Job, *dead).values(run_after=db_now(), **RESTARTED))


def _same_report(
    destination: str, states: Collection[JobState] = tuple(JobState)
) -> ColumnElement[bool]:
    """Whether a report has a job for a destination, too."""
    other = aliased(Job)
    return exists().where(
        other.study_id == Job.study_id,
        other.kind == JobKind.DELIVER,
        other.kind == Job.kind,
        other.revision == Job.revision,
        other.destination == destination,
        other.state.in_(states),
    )


def _waiting(destination: str) -> ColumnElement[bool]:
    """The destination's jobs that are pending, or dead and not replaced by a later report."""
    later = aliased(Job)
    replaced = exists().where(
        later.study_id == Job.study_id,
        later.kind == JobKind.DELIVER,
        later.destination == Job.destination,
        later.revision > Job.revision,
    )
    return (
        (Job.destination == destination)
        & (Job.kind == JobKind.DELIVER)
        & ((Job.state == JobState.PENDING) | ((Job.state == JobState.DEAD) & ~replaced))
    )


def _count(session: Session, destination: str) -> int:
    """How many jobs an action concerns.

    Raises:
        NotFound: none.
    """
    statement = select(func.count()).select_from(Job).where(_waiting(destination))
    count = session.scalar(statement) or 0
    if not count:
        raise NotFound(f"no job waits for {destination!r} or is dead")
    return count
