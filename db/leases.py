"""The lease queue: rows of ``job`` and ``preview`` are claimed, worked on and ended under a lease.

A row is claimed by one conditional UPDATE. Its lease expires by the database's clock and is
extended by heartbeats. Every write of a worker is conditional on its lease: a worker that has lost
its lease changes nothing and returns quietly, because another worker has the row, a later revision
has superseded it, or an operator has cancelled it.
"""

from dataclasses import dataclass
from random import uniform
from typing import TypeVar
from uuid import uuid4

from sqlalchemy import Select, Update, func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from db.models import JobState, LeasedRow, operating_s
from db.types import db_now

Row = TypeVar("Row", bound=LeasedRow)

RELEASED: dict[str, None] = {"lease_token": None, "lease_expires_at": None}


class LeaseLostError(Exception):
    """The row is no longer ours: roll the transaction back and return quietly."""


@dataclass(frozen=True)
class Lease:
    """The right to work on one row until the lease expires."""

    table: type[LeasedRow]
    row_id: int
    token: str
    attempts: int  # this one included
    losses: int  # attempts that ended because the worker was lost
    faults: int  # attempts that ended by a fault of ours


@dataclass(frozen=True)
class Backoff:
    """How often and how long a row is attempted, and how long to wait in between; seconds.

    It is given up once it has had ``attempts`` and has been failing for ``at_least_s`` of operating
    time (``db.operating_time``): a clock that is set forward is no reason to give up.
    """

    attempts: int
    base_s: float
    max_s: float
    at_least_s: float = 0

    def wait_s(self, attempts: int) -> float:
        """The wait after so many failures, seconds: exponential, half of it jitter."""
        wait_s = min(self.max_s, self.base_s * 2.0 ** (min(attempts, 32) - 1))
        return uniform(wait_s / 2, wait_s)


@dataclass(frozen=True)
class RetryPolicy:
    """When a row is attempted again: after a temporary error, a fault of ours, a lost worker."""

    temporary: Backoff
    fault: Backoff
    max_losses: int | None  # None: any number


def is_due(table: type[LeasedRow]) -> ColumnElement[bool]:
    """The condition that a row waits for a worker and is due."""
    return (table.state == JobState.PENDING) & (table.run_after <= db_now())


def claim(session: Session, table: type[LeasedRow], row_id: int, *, lease_s: float) -> Lease | None:
    """Claims a row that is due; None if another worker has claimed it."""
    token = uuid4().hex
    claimed = change(table, table.id == row_id, is_due(table)).values(
        state=JobState.RUNNING,
        lease_token=token,
        lease_expires_at=db_now(lease_s),
        attempts=table.attempts + 1,
    )
    if not execute(session, claimed):
        return None
    return lease_of(session.get_one(table, row_id, populate_existing=True))


def lease_of(row: LeasedRow) -> Lease:
    """The lease under which a row is running."""
    token = row.lease_token or ""
    return Lease(type(row), row.id, token, row.attempts, row.losses, row.faults)


def is_held(session: Session, lease: Lease) -> bool:
    """Whether the lease is still in force."""
    return session.scalar(select(lease.table.id).where(_held(lease))) is not None


def extend(session: Session, lease: Lease, *, lease_s: float) -> bool:
    """The heartbeat; False when the lease is lost."""
    return write(session, lease, lease_expires_at=db_now(lease_s))


def write(session: Session, lease: Lease, **values: object) -> bool:
    """Changes the row under its lease; False, and nothing is written, when the lease is lost."""
    return execute(session, change(lease.table, _held(lease)).values(**values))


def finish(session: Session, lease: Lease, **values: object) -> None:
    """Ends the row as done, with further values.

    Raises:
        LeaseLostError: the lease is lost; nothing of this transaction may be kept.
    """
    done = {"state": JobState.DONE, "last_error": None, "ended_at": db_now()}
    if not write(session, lease, **done, **RELEASED, **values):
        raise LeaseLostError


def retry(session: Session, lease: Lease, error: str, backoff: Backoff) -> float | None:
    """Returns a row that failed for now to the queue; the result is the wait in seconds.

    None if it is to be given up, or the lease is lost. Attempts that ended otherwise do not count.
    """
    if is_given_up(session, lease, backoff):
        return None
    wait_s = backoff.wait_s(_failures(lease))
    return wait_s if postpone(session, lease, error, wait_s) else None


def is_given_up(session: Session, lease: Lease, backoff: Backoff) -> bool:
    """Whether a row that has failed once more has had all its attempts, for long enough."""
    if _failures(lease) < backoff.attempts:
        return False
    table, at_least_s = lease.table, backoff.at_least_s
    long = table.first_failed_s <= operating_s() - int(at_least_s)
    return at_least_s <= 0 or session.scalar(select(long).where(table.id == lease.row_id)) is True


def retry_after_fault(session: Session, lease: Lease, error: str, backoff: Backoff) -> float | None:
    """As ``retry``, after a fault of ours, which is given up sooner."""
    faults = lease.faults + 1
    if faults >= backoff.attempts:
        return None
    wait_s = backoff.wait_s(faults)
    return wait_s if postpone(session, lease, error, wait_s, faults=faults) else None


def postpone(
    session: Session, lease: Lease, error: str | None, wait_s: float | None, **values: object
) -> bool:
    """Returns a row to the queue, due after ``wait_s`` or, if None, at once and in its old place.

    With an ``error``, it has been failing from the first of them on. False when the lease is lost.
    """
    pending: dict[str, object] = {"state": JobState.PENDING, "last_error": error, **RELEASED}
    if wait_s is not None:
        pending["run_after"] = db_now(wait_s)
    if error is not None:
        pending["first_failed_at"] = func.coalesce(lease.table.first_failed_at, db_now())
        pending["first_failed_s"] = func.coalesce(lease.table.first_failed_s, operating_s())
    return write(session, lease, **(pending | values))


def requeue_lost(
    session: Session, lease: Lease, error: str, max_losses: int | None, **values: object
) -> bool:
    """Returns a lost worker's row to the queue at once; False if too many workers were lost on it.

    A worker's restart is not the row's fault and does not count as a failed attempt; but the row
    may be what kills its workers, so the number of losses may be bounded.
    """
    if max_losses is not None and lease.losses + 1 >= max_losses:
        return False
    pending = {"state": JobState.PENDING, "last_error": error, "run_after": db_now()}
    return write(session, lease, **pending, losses=lease.losses + 1, **RELEASED, **values)


def dead_letter(session: Session, lease: Lease, error: str) -> bool:
    """Gives the row up with its last error; False when the lease is lost."""
    dead = {"state": JobState.DEAD, "last_error": error, "ended_at": db_now()}
    return write(session, lease, **dead, **RELEASED)


def cancel(session: Session, lease: Lease) -> bool:
    """Ends a row whose work is no longer needed; False when the lease is lost."""
    return write(session, lease, state=JobState.CANCELLED, ended_at=db_now(), **RELEASED)


def expired(session: Session, table: type[Row]) -> list[Row]:
    """Rows whose lease ran out without a heartbeat: their worker is lost."""
    return list(session.scalars(_expired(table).order_by(table.id)))


def lock_expired(session: Session, lease: Lease) -> bool:
    """Locks a row whose lease ran out; False if it has not expired after all, or is locked.

    A locked row is being written; the next sweep sees the outcome.
    """
    table = lease.table
    statement = _expired(table).where(_held(lease)).with_for_update(skip_locked=True)
    return session.scalar(statement) is not None


def change(table: type[LeasedRow], *where: ColumnElement[bool]) -> Update:
    """An UPDATE of the rows that meet the conditions."""
    return update(table).where(*where).execution_options(synchronize_session=False)


def execute(session: Session, statement: Update) -> bool:
    """Executes an UPDATE; whether it changed exactly one row."""
    return session.execute(statement).rowcount == 1  # type: ignore[attr-defined,no-any-return]


def _expired(table: type[Row]) -> Select[Row]:
    return select(table).where(table.state == JobState.RUNNING, table.lease_expires_at < db_now())


def _failures(lease: Lease) -> int:
    """The attempts that a temporary error ended, this one included."""
    return lease.attempts - lease.losses - lease.faults


def _held(lease: Lease) -> ColumnElement[bool]:
    table = lease.table
    return (
        (table.id == lease.row_id)
        & (table.state == JobState.RUNNING)
        & (table.lease_token == lease.token)
    )
