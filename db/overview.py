"""Figures over many studies: what is in flight, which scanners and weights there are, weeks, the audit trail."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.queries import InFlight, in_flight
from db.tables import AuditEvent, Bundle, Finding, Review, Study
from lumbar.errors import NotThere
from lumbar.spine.anatomy import Severity

__all__ = ["InFlight", "in_flight"]

MOST_SCANNERS = 200
WEEKS = 26


@dataclass
class Week:
    """Findings of a week by severity, and what readers said of them. ``first`` is a Monday."""

    first: date
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
    while len(names) < MOST_SCANNERS:
        found = session.scalar(select(func.min(Study.scanner)).where(Study.scanner > last))
        if found is None:
            break
        names.append(found)
        last = found
    return names


def bundles(session: Session) -> list[Bundle]:
    """All weights that ever made a finding, the newest first."""
    return list(session.scalars(select(Bundle).order_by(Bundle.id.desc())))


def by_week(session: Session, *, scanner: str = "", now: datetime | None = None) -> list[Week]:
    """The last half year, the oldest week first; of one scanner or all."""
    now = now or datetime.now(UTC)
    first = (now - timedelta(days=now.weekday() + 7 * (WEEKS - 1))).date()
    weeks = {first + timedelta(days=7 * n): Week(first + timedelta(days=7 * n)) for n in range(WEEKS)}
    for monday in weeks:
        begins = datetime(monday.year, monday.month, monday.day, tzinfo=UTC)
        within = (Finding.found_at >= begins, Finding.found_at < begins + timedelta(days=7))
        asked = (
            select(Finding.severity, func.count())
            .where(Finding.superseded.is_(False), Finding.severity.is_not(None), *within)
            .group_by(Finding.severity)
        )
        reviews = (
            select(Finding.severity, Review.severity, Finding.id)
            .join(Finding, Finding.id == Review.finding_id)
            .where(*within)
            .order_by(Review.id)
        )
        if scanner:
            asked = asked.join(Study, Study.id == Finding.study_id).where(Study.scanner == scanner)
            reviews = reviews.join(Study, Study.id == Finding.study_id).where(Study.scanner == scanner)
        for severity, count in session.execute(asked):
            if severity is not None:
                weeks[monday].counts[severity] = count
        said: dict[int, bool] = defaultdict(bool)
        for was, now_said, finding_id in session.execute(reviews):
            said[finding_id] = was == now_said
        weeks[monday].reviewed, weeks[monday].agreed = len(said), sum(said.values())
    return list(weeks.values())


def audit_trail(
    session: Session, *, event: str, actor: str, study: str, limit: int, after: int | None = None
) -> tuple[list[AuditRow], int | None]:
    """The newest first, and the number after which the next ones stand. Raises NotThere: no study has that UID."""
    asked = select(AuditEvent, Study.study_instance_uid).outerjoin(Study, Study.id == AuditEvent.study_id)
    if event:
        asked = asked.where(AuditEvent.event == event)
    if actor:
        asked = asked.where(AuditEvent.actor == actor)
    if study:
        study_id = session.scalar(select(Study.id).where(Study.study_instance_uid == study))
        if study_id is None:
            raise NotThere("no study has this UID")
        asked = asked.where(AuditEvent.study_id == study_id)
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
