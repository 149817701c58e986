"""Destinations that fail are held: one job at a time probes them, and the others wait.

So a destination that is away for a night costs one attempt per wait, whatever is queued for it, and
the jobs that wait neither fail nor lose their order.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from db.database import insert_if_new, log_committed
from db.leases import Backoff
from db.models import HeldDestination
from db.types import db_now
from lumbar.log import get_logger

log = get_logger()


@dataclass(frozen=True)
class Hold:
    """Why and since when a destination is held."""

    held_since: datetime
    probe_after: datetime
    failures: int
    last_error: str


def hold_of(session: Session, destination: str) -> Hold | None:
    """The hold on a destination; None if it is not held."""
    row = session.get(HeldDestination, destination, populate_existing=True)
    return Hold(row.held_since, row.probe_after, row.failures, row.last_error) if row else None


def may_be_probed(session: Session, destination: str, longest_s: float) -> bool:
    """Whether the next probe of a held destination is due; locks it until the transaction ends.

    A probe that is due later than ``longest_s`` from now was planned by a clock that has been set
    back: it is due.
    """
    due = (HeldDestination.probe_after <= db_now()) | (
        HeldDestination.probe_after > db_now(longest_s)
    )
    statement = select(due).where(HeldDestination.destination == destination)
    return session.scalar(statement.with_for_update()) is True


def hold(session: Session, destination: str, error: str, backoff: Backoff) -> float:
    """Holds a destination that has failed; returns the seconds until its next probe."""
    new = {"destination": destination, "failures": 0, "last_error": error}
    insert_if_new(session, HeldDestination, ("destination",), **new, probe_after=db_now())
    failures = (
        1
        + session.scalars(
            select(HeldDestination.failures)
            .where(HeldDestination.destination == destination)
            .with_for_update()
        ).one()
    )
    wait_s = backoff.wait_s(failures)
    _change(session, destination, failures=failures, last_error=error, probe_after=db_now(wait_s))
    if failures == 1:
        log_committed(session, log.error, "destination.held", destination=destination, why=error)
    return wait_s


def release(session: Session, destination: str) -> bool:
    """Ends the hold on a destination; False if it was not held."""
    released = session.execute(
        delete(HeldDestination).where(HeldDestination.destination == destination)
    )
    if not released.rowcount:  # type: ignore[attr-defined]
        return False
    log_committed(session, log.info, "destination.released", destination=destination)
    return True


def probe_now(session: Session, destination: str) -> None:
    """Makes the next probe of a held destination due."""
    _change(session, destination, probe_after=db_now())


def _change(session: Session, destination: str, **values: object) -> None:
    session.execute(
        update(HeldDestination)
        .where(HeldDestination.destination == destination)
        .values(**values)
        .execution_options(synchronize_session=False)
    )
