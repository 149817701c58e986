"""Figures for monitoring: of the database as it stands, and of the last hour. Never of a patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import quantiles

from sqlalchemy import func, literal, select, text
from sqlalchemy.orm import Session

from db.models import (
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
from db.read_models.study_queries import NOT_WELL, UNFINISHED
from db.types import db_now

HOUR = timedelta(hours=1)
MAX_STUDIES = 2000  # of the last hour that times are told of


@dataclass(frozen=True)
class Figures:
    """Counts, ages and times in seconds."""

    studies: dict[StudyState, int]  # in flight, and what ended in the last hour, by state
    jobs: dict[tuple[JobKind, JobState], int]
    queue_age_s: dict[JobKind, float]
    last_hour: dict[str, int]
    stages_s: dict[tuple[str, str], float]  # stage and quantile: 0.5, 0.95


def ping(session: Session) -> None:
    """Raises DatabaseUnavailable where the database does not answer."""
    session.execute(text("SELECT 1"))


def figures(session: Session) -> Figures:
    """A few questions, each of an index.

    The clock is read first: PostgreSQL searches no index for what may change within the statement.
    """
    now = session.scalars(select(db_now())).one()
    since = now - HOUR
    by_state = (
        select(Study.state, func.count()).where(Study.state.in_(UNFINISHED)).group_by(Study.state)
    )
    ended = (
        select(Study.state, func.count())
        .where(Study.last_received_at > now - 24 * HOUR, Study.ended_at > since)
        .group_by(Study.state)
    )
    jobs = (
        select(Job.kind, Job.state, func.count())
        .where(Job.state.in_(NOT_WELL))
        .group_by(Job.kind, Job.state)
    )
    previews = (
        select(Preview.state, func.count())
        .where(Preview.state.in_(NOT_WELL))
        .group_by(Preview.state)
    )
    oldest = (
        select(Job.kind, func.min(Job.run_after), db_now())
        .where(Job.state == JobState.PENDING, Job.run_after <= db_now())
        .group_by(Job.kind)
    )
    oldest_upload = select(literal(JobKind.PREVIEW), func.min(Preview.uploaded_at), db_now()).where(
        Preview.state == JobState.PENDING
    )
    received = select(func.count()).where(Instance.received_at > since)
    delivered = select(func.count()).where(Delivery.delivered_at > since)
    return Figures(
        studies=dict.fromkeys(UNFINISHED, 0) | {s: n for s, n in session.execute(by_state)},  # noqa: C416
        jobs={(kind, state): count for kind, state, count in session.execute(jobs)}
        | {(JobKind.PREVIEW, state): count for state, count in session.execute(previews)},
        queue_age_s=dict.fromkeys(JobKind, 0.0)
        | {
            kind: max(0.0, (now - first).total_seconds())
            for question in (oldest, oldest_upload)
            for kind, first, now in session.execute(question)
            if first is not None
        },
        last_hour={
            "instances_received": session.scalar(received) or 0,
            "reports_delivered": session.scalar(delivered) or 0,
            **{f"studies_{state}": count for state, count in session.execute(ended)},
        },
        stages_s=_stages(session, since),
    )


def _stages(session: Session, since: datetime) -> dict[tuple[str, str], float]:
    """From the last image to the report in the PACS, and its parts, of reports delivered in the last hour."""
    asked = (
        select(Study.last_received_at, ReportRow.created_at, Delivery.delivered_at)
        .join(ReportRow, ReportRow.id == Delivery.report_id)
        .join(Study, Study.id == ReportRow.study_id)
        .where(Delivery.delivered_at > since, ReportRow.revision == Study.revision)
        .limit(MAX_STUDIES)
    )
    rows = session.execute(asked).all()
    told: dict[tuple[str, str], float] = {}
    for stage, values in {
        "last_image_to_result": [(made - last).total_seconds() for last, made, _ in rows],
        "result_to_delivery": [(there - made).total_seconds() for _, made, there in rows],
        "last_image_to_delivery": [(there - last).total_seconds() for last, _, there in rows],
    }.items():
        told |= {(stage, name): value for name, value in _quantiles(values).items()}
    return told


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    if len(values) == 1:
        return {"0.5": values[0], "0.95": values[0]}
    cuts = quantiles(values, n=20, method="inclusive")
    return {"0.5": cuts[9], "0.95": cuts[18]}
