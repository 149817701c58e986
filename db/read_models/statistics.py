"""Figures over many studies: what is in flight, which scanners and weights there are, weeks, the audit trail."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from math import ceil
from typing import Any

from sqlalchemy import Select, func, literal, select
from sqlalchemy.orm import Session

from db.models import AuditEvent, Bundle, FindingRow, Review, Study, Tombstone
from db.read_models.study_queries import InFlight, in_flight
from lumbar.errors import NotFound
from lumbar.spine.anatomy import Severity

__all__ = ["InFlight", "in_flight"]

MAX_SCANNERS = 200
WEEKS = 26
MAX_STUDIES = 300  # of a week, whose findings are counted; where more came, those of every second, third, … are


@dataclass
class Week:
    """Findings by severity of the studies that came in a week, and what readers said of them. ``first`` is a Monday.

    Counted are the findings of every ``every``-th of its ``studies``; the reviews are counted all.
    """

    first: date
    studies: int = 0
    every: int = 1
    counts: dict[Severity, int] = field(default_factory=lambda: dict.fromkeys(Severity, 0))
    reviewed: int = 0
    agreed: int = 0

    @property
    def assessed(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class AuditRow:
    """A line of the audit trail; ``study`` is the UID where the study is still there."""

    id: int
    happened_at: datetime
    event: str
    actor: str
    study: str | None
    detail: str


def scanners(session: Session) -> list[str]:
    """Those that studies came from, by name: one index look-up each, however many studies there are."""
    names: list[str] = []
    last = ""
    while len(names) < MAX_SCANNERS:
        found = session.scalar(select(func.min(Study.scanner)).where(Study.scanner > last))
        if found is None:
            break
        names.append(found)
        last = found
    return names


def count_rows(session: Session, asked: Select[Any], most: int) -> int:
    """How many rows a question has, counted to ``most``."""
    some = (
        asked.with_only_columns(literal(1), maintain_column_froms=True)
        .order_by(None)
        .limit(most)
        .subquery()
    )
    return session.scalar(select(func.count()).select_from(some)) or 0


def bundles(session: Session) -> list[Bundle]:
    """All weights that ever made a finding, the newest first."""
    return list(session.scalars(select(Bundle).order_by(Bundle.id.desc())))


def by_week(
    session: Session,
    *,
    scanner: str = "",
    bundle_id: int | None = None,
    now: datetime | None = None,
) -> list[Week]:
    """The last half year, the oldest week first; of one scanner or all, by one bundle's weights or any."""
    now = now or datetime.now(UTC)
    monday = now.date() - timedelta(days=now.weekday())
    weeks = {
        first: Week(first)
        for first in (monday - timedelta(weeks=ago) for ago in reversed(range(WEEKS)))
    }
    of_scanner = [Study.scanner == scanner] if scanner else []
    of_bundle = [FindingRow.bundle_id == bundle_id] if bundle_id is not None else []
    for week in weeks.values():
        begins = datetime.combine(week.first, time(), UTC)
        came = (
            Study.last_received_at >= begins,
            Study.last_received_at < begins + timedelta(weeks=1),
            *of_scanner,
        )
        week.studies = session.scalar(select(func.count()).select_from(Study).where(*came)) or 0
        week.every = max(1, ceil(week.studies / MAX_STUDIES))
        asked = (
            select(FindingRow.severity, func.count())
            .join(Study, Study.id == FindingRow.study_id)
            .where(*came, Study.id % week.every == 0, *of_bundle)
            .where(FindingRow.superseded.is_(False), FindingRow.severity.is_not(None))
            .group_by(FindingRow.severity)
        )
        week.counts |= {
            severity: count for severity, count in session.execute(asked) if severity is not None
        }
    begins = datetime.combine(min(weeks), time(), UTC)
    reviews = (
        select(FindingRow.id, Study.last_received_at, FindingRow.severity == Review.severity)
        .select_from(Review)
        .join(FindingRow, FindingRow.id == Review.finding_id)
        .join(Study, Study.id == FindingRow.study_id)
        .where(
            Review.reviewed_at >= begins, Study.last_received_at >= begins, *of_scanner, *of_bundle
        )
        .where(
            Study.last_received_at < begins + timedelta(weeks=WEEKS),
            FindingRow.severity.is_not(None),
        )
        .order_by(Review.id)
    )
    said = {
        finding_id: (came_at.date(), agrees)
        for finding_id, came_at, agrees in session.execute(reviews)
    }
    for day, agrees in said.values():  # the last word on each finding
        reviewed = weeks[day - timedelta(days=day.weekday())]
        reviewed.reviewed += 1
        reviewed.agreed += bool(agrees)
    return list(weeks.values())


def audit_trail(
    session: Session, *, event: str, actor: str, study: str, limit: int, after: int | None = None
) -> tuple[list[AuditRow], int | None]:
    """The newest first, and the number after which more stand. Raises NotFound: no study has, or had, the UID."""
    asked = select(AuditEvent, Study.study_instance_uid).outerjoin(
        Study, Study.id == AuditEvent.study_id
    )
    if event:
        asked = asked.where(AuditEvent.event == event)
    if actor:
        asked = asked.where(AuditEvent.actor == actor)
    if study:
        here = select(Study.id).where(Study.study_instance_uid == study)
        deleted = select(Tombstone.study_id).where(Tombstone.study_instance_uid == study)
        ids = [*session.scalars(here), *session.scalars(deleted)]
        if not ids:
            raise NotFound("no study has this UID, or had it")
        asked = asked.where(AuditEvent.study_id.in_(ids))
    if after is not None:
        asked = asked.where(AuditEvent.id < after)
    rows = [
        AuditRow(
            id=row.id,
            happened_at=row.happened_at,
            event=row.event,
            actor=row.actor,
            study=uid,
            detail=", ".join(f"{name} {value}" for name, value in row.detail.items()),
        )
        for row, uid in session.execute(asked.order_by(AuditEvent.id.desc()).limit(limit + 1))
    ]
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None
