"""Destinations as operators see them: what waits for each, since when, and why."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import (
    Delivery,
    DeliveryOutcome,
    HeldDestination,
    Job,
    JobKind,
    JobState,
)
from db.types import db_now


@dataclass(frozen=True)
class DestinationRow:
    """A destination; nothing of the patients."""

    destination: str
    configured: bool  # jobs of one that is not wait until it is, or are rerouted
    waiting: int  # jobs pending or running
    failing: int  # of these, that failed the last time
    dead: int
    absent: int  # reports it accepted, but does not list
    oldest_s: float  # how long the oldest waiting job has waited; 0 where none waits
    held_since: datetime | None  # None: it is not held
    next_probe: datetime | None
    last_error: str | None


def destinations(session: Session, configured: Collection[str]) -> list[DestinationRow]:
    """Every destination that is configured, or that has jobs that wait or are dead, by name."""
    counts = _counts(session)
    absent: dict[str, int] = {}
    for name, count in session.execute(
        select(Delivery.destination, func.count())
        .join(
            Job,
            (Job.report_id == Delivery.report_id) & (Job.destination == Delivery.destination),
        )
        .where(Delivery.outcome == DeliveryOutcome.ABSENT, Job.state == JobState.DEAD)
        .group_by(Delivery.destination)
    ):
        absent[name] = count
    holds = {row.destination: row for row in session.scalars(select(HeldDestination))}
    rows = []
    for name in sorted({*configured, *counts}):
        waiting, failing, dead, oldest_s = counts.get(name, (0, 0, 0, 0.0))
        held = holds.get(name)
        rows.append(
            DestinationRow(
                destination=name,
                configured=name in configured,
                waiting=waiting,
                failing=failing,
                dead=dead,
                absent=absent.get(name, 0),
                oldest_s=oldest_s,
                held_since=held.held_since if held else None,
                next_probe=held.probe_after if held else None,
                last_error=held.last_error if held else None,
            )
        )
    return rows


def _counts(session: Session) -> dict[str, tuple[int, int, int, float]]:
    """Waiting, failing and dead jobs, and the age of the oldest waiting one, by destination."""
    waits = Job.state.in_((JobState.PENDING, JobState.RUNNING))
    since = func.coalesce(Job.first_failed_at, Job.run_after)
    statement = (
        select(
            Job.destination,
            func.count().filter(waits),
            func.count().filter(waits & Job.first_failed_at.is_not(None)),
            func.count().filter(Job.state == JobState.DEAD),
            func.min(since).filter(waits),
            db_now(),
        )
        .where(
            Job.kind == JobKind.DELIVER,
            Job.state.in_((JobState.PENDING, JobState.RUNNING, JobState.DEAD)),
        )
        .group_by(Job.destination)
    )
    return {
        name: (waiting, failing, dead, max(0.0, (now - oldest).total_seconds()) if oldest else 0.0)
        for name, waiting, failing, dead, oldest, now in session.execute(statement)
    }
