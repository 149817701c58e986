"""Figures for monitoring: present counts, and those of the last hour. No patient data."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import quantiles

from sqlalchemy import func, literal, select, text
from sqlalchemy.orm import Session

from db.models import (
    ACTIVE_STUDY_STATES,
    Delivery,
    Instance,
    Job,
    JobKind,
    JobState,
    Preview,
    ReportRow,
    Study,
    StudyState,
)
from db.read_models.destinations import DestinationRow, destinations
from db.read_models.statistics import active_studies, open_jobs
from db.types import db_now, read_clock

HOUR = timedelta(hours=1)
MAX_STUDIES = 2000  # of the last hour whose times are measured


@dataclass(frozen=True)
class Figures:
    """Counts, ages and times in seconds."""

    studies: dict[StudyState, int]  # active ones, by state
    jobs: dict[tuple[JobKind, JobState], int]  # open ones
    queue_age_s: dict[JobKind, float]  # of the oldest job that waits, due or not; 0 where none does
    destinations: list[DestinationRow]
    last_hour: dict[str, int]
    stages_s: dict[tuple[str, str], float]  # by stage and quantile (0.5, 0.95)


def ping(session: Session) -> None:
    """A trivial query; if it fails, the session's transaction ends in DatabaseUnavailable."""
    session.execute(text("SELECT 1"))


def figures(session: Session, configured: Collection[str]) -> Figures:
    """The present figures, each read from an index; ``configured``: the destinations' names."""
    now = read_clock(session)
    return Figures(
        studies=dict.fromkeys(ACTIVE_STUDY_STATES, 0) | active_studies(session),
        jobs=open_jobs(session),
        queue_age_s=_queue_ages(session),
        destinations=destinations(session, configured),
        last_hour=_last_hour(session, now),
        stages_s=_stages(session, now - HOUR),
    )


def _queue_ages(session: Session) -> dict[JobKind, float]:
    """How long the oldest waiting job of each kind has waited, in seconds; 0 where none waits."""
    since = func.coalesce(Job.first_failed_at, Job.run_after)
    jobs = (
        select(Job.kind, func.min(since), db_now())
        .where(Job.state == JobState.PENDING)
        .group_by(Job.kind)
    )
    uploads = select(literal(JobKind.PREVIEW), func.min(Preview.uploaded_at), db_now()).where(
        Preview.state == JobState.PENDING
    )
    ages = dict.fromkeys(JobKind, 0.0)
    for statement in (jobs, uploads):
        for kind, oldest, now in session.execute(statement):
            if oldest is not None:
                ages[kind] = max(0.0, (now - oldest).total_seconds())
    return ages


def _last_hour(session: Session, now: datetime) -> dict[str, int]:
    """Instances received, reports delivered, and studies that ended, by state."""
    since = now - HOUR
    received = select(func.count()).where(Instance.received_at.between(since, now))
    delivered = select(func.count()).where(Delivery.delivered_at.between(since, now))
    ended = (
        select(Study.state, func.count())
        .where(Study.last_received_at > now - 24 * HOUR, Study.ended_at.between(since, now))
        .group_by(Study.state)
    )
    return {
        "instances_received": session.scalar(received) or 0,
        "reports_delivered": session.scalar(delivered) or 0,
        **{f"studies_{state}": count for state, count in session.execute(ended)},
    }


def _stages(session: Session, since: datetime) -> dict[tuple[str, str], float]:
    """Seconds from the last image to the delivery, and its parts, of reports delivered since."""
    statement = (
        select(Study.last_received_at, ReportRow.created_at, Delivery.delivered_at)
        .join(ReportRow, ReportRow.id == Delivery.report_id)
        .join(Study, Study.id == ReportRow.study_id)
        .where(Delivery.delivered_at > since, ReportRow.revision == Study.revision)
        .limit(MAX_STUDIES)
    )
    rows = session.execute(statement).all()
    times = [(last, built, sent) for last, built, sent in rows if sent is not None]
    seconds = {
        "last_image_to_result": [(built - last).total_seconds() for last, built, _ in times],
        "result_to_delivery": [(sent - built).total_seconds() for _, built, sent in times],
        "last_image_to_delivery": [(sent - last).total_seconds() for last, _, sent in times],
    }
    stages: dict[tuple[str, str], float] = {}
    for stage, values in seconds.items():
        stages |= {(stage, name): value for name, value in _quantiles(values).items()}
    return stages


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    if len(values) == 1:
        return {"0.5": values[0], "0.95": values[0]}
    cuts = quantiles(values, n=20, method="inclusive")
    return {"0.5": cuts[9], "0.95": cuts[18]}
