"""Figures over many studies: numbers in flight, all scanners and weights, weekly counts."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from math import ceil
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, select
from sqlalchemy.orm import Session

from db.models import (
    ACTIVE_STUDY_STATES,
    OPEN_JOB_STATES,
    Bundle,
    FindingRow,
    Job,
    JobKind,
    JobState,
    Preview,
    Review,
    Study,
    StudyState,
)
from db.types import db_now, read_clock
from lumbar.spine.anatomy import Severity

MAX_SCANNERS = 200
WEEKS = 26
# Studies of a week whose findings are counted; of more, every second, third, … study is counted
MAX_STUDIES = 300


@dataclass(frozen=True)
class InFlight:
    """How many studies are active, and how many jobs and previews unfinished or dead, by state."""

    studies: dict[StudyState, int]
    jobs: dict[tuple[JobKind, JobState], int]
    leases_expired: int  # that no sweep has recovered yet


@dataclass
class Week:
    """A week's studies: the severities of their findings, and how often reviews agreed with them.

    Findings are counted of every ``every``-th of the ``studies``; reviews are counted of all.
    """

    first: date  # a Monday (UTC)
    studies: int = 0
    every: int = 1
    counts: dict[Severity, int] = field(default_factory=lambda: dict.fromkeys(Severity, 0))
    reviewed: int = 0
    agreed: int = 0

    @property
    def assessed(self) -> int:
        return sum(self.counts.values())


def in_flight(session: Session) -> InFlight:
    """The present numbers; a sweep logs them at its start."""
    expired = [
        select(func.count()).where(
            table.state == JobState.RUNNING, table.lease_expires_at < db_now()
        )
        for table in (Job, Preview)
    ]
    return InFlight(
        studies=active_studies(session),
        jobs=open_jobs(session),
        leases_expired=sum(session.scalar(statement) or 0 for statement in expired),
    )


def active_studies(session: Session) -> dict[StudyState, int]:
    """How many studies are in each of ``ACTIVE_STUDY_STATES``; states without any are left out."""
    statement = (
        select(Study.state, func.count())
        .where(Study.state.in_(ACTIVE_STUDY_STATES))
        .group_by(Study.state)
    )
    return {state: count for state, count in session.execute(statement)}  # noqa: C416


def open_jobs(session: Session) -> dict[tuple[JobKind, JobState], int]:
    """How many jobs and previews are in each of ``OPEN_JOB_STATES``; zeros are left out."""
    jobs = (
        select(Job.kind, Job.state, func.count())
        .where(Job.state.in_(OPEN_JOB_STATES))
        .group_by(Job.kind, Job.state)
    )
    previews = (
        select(Preview.state, func.count())
        .where(Preview.state.in_(OPEN_JOB_STATES))
        .group_by(Preview.state)
    )
    return {(kind, state): count for kind, state, count in session.execute(jobs)} | {
        (JobKind.PREVIEW, state): count for state, count in session.execute(previews)
    }


def scanners(session: Session) -> list[str]:
    """The scanners of all studies, by name: one index look-up each, however many studies."""
    names: list[str] = []
    last = ""
    while len(names) < MAX_SCANNERS:
        name = session.scalar(select(func.min(Study.scanner)).where(Study.scanner > last))
        if name is None:
            break
        names.append(name)
        last = name
    return names


def count_rows(session: Session, statement: Select[Any], limit: int) -> int:
    """How many rows a statement has, counted no further than ``limit``."""
    rows = (
        statement.with_only_columns(literal(1), maintain_column_froms=True)
        .order_by(None)
        .limit(limit)
        .subquery()
    )
    return session.scalar(select(func.count()).select_from(rows)) or 0


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
    """The last half year, the oldest week first; of one scanner or all, of one bundle or all."""
    now = now or read_clock(session)
    monday = now.date() - timedelta(days=now.weekday())
    weeks = [Week(monday - timedelta(weeks=ago)) for ago in reversed(range(WEEKS))]
    study_filter = [Study.scanner == scanner] if scanner else []
    finding_filter = [FindingRow.bundle_id == bundle_id] if bundle_id is not None else []
    for week in weeks:
        _count_findings(session, week, study_filter, finding_filter)
    _count_reviews(session, weeks, [*study_filter, *finding_filter])
    return weeks


def _count_findings(
    session: Session,
    week: Week,
    study_filter: list[ColumnElement[bool]],
    finding_filter: list[ColumnElement[bool]],
) -> None:
    begin = _midnight(week.first)
    received = (
        Study.last_received_at >= begin,
        Study.last_received_at < begin + timedelta(weeks=1),
        *study_filter,
    )
    week.studies = session.scalar(select(func.count()).select_from(Study).where(*received)) or 0
    week.every = max(1, ceil(week.studies / MAX_STUDIES))
    statement = (
        select(FindingRow.severity, func.count())
        .join(Study, Study.id == FindingRow.study_id)
        .where(*received, Study.id % week.every == 0, *finding_filter)
        .where(FindingRow.superseded.is_(False), FindingRow.severity.is_not(None))
        .group_by(FindingRow.severity)
    )
    week.counts |= {
        severity: count for severity, count in session.execute(statement) if severity is not None
    }


def _count_reviews(session: Session, weeks: list[Week], filters: list[ColumnElement[bool]]) -> None:
    """Counts the last review of each finding."""
    begin = _midnight(weeks[0].first)
    statement = (
        select(FindingRow.id, Study.last_received_at, FindingRow.severity == Review.severity)
        .select_from(Review)
        .join(FindingRow, FindingRow.id == Review.finding_id)
        .join(Study, Study.id == FindingRow.study_id)
        .where(
            Review.reviewed_at >= begin,
            Study.last_received_at >= begin,
            Study.last_received_at < begin + timedelta(weeks=WEEKS),
            FindingRow.severity.is_not(None),
            *filters,
        )
        .order_by(Review.id)
    )
    last = {
        finding_id: (received_at.date(), agrees)
        for finding_id, received_at, agrees in session.execute(statement)
    }
    by_monday = {week.first: week for week in weeks}
    for day, agrees in last.values():
        week = by_monday[day - timedelta(days=day.weekday())]
        week.reviewed += 1
        week.agreed += bool(agrees)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
