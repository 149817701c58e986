"""The questions people ask of a study: what was found, how it was read, what became of it."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from db.models import (
    Bundle,
    Delivery,
    Explanation,
    FindingRow,
    Instance,
    Job,
    JobKind,
    JobState,
    Preview,
    ReportRow,
    Series,
    Study,
    StudyState,
)
from db.types import db_now
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, Level, Severity
from lumbar.spine.findings import Finding, ImagePoint
from lumbar.spine.provenance import BundleIdentity

ASKED_AT_ONCE = 500  # studies in one statement
UNFINISHED = (StudyState.RECEIVING, StudyState.QUEUED, StudyState.ANALYSING)
NOT_WELL = (JobState.PENDING, JobState.RUNNING, JobState.DEAD)


@dataclass(frozen=True)
class StudyFinding:
    """One of a study's 25 findings; ``bundle`` is None where the study ended without any weights being asked.

    ``caveats`` are the study's: for which nobody can vouch for the levels' names.
    """

    study_instance_uid: str
    finding: Finding
    bundle: BundleIdentity | None
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True)
class HowRead:
    """In words how a study's newest revision was read: what is in caveat, and what was chosen and refused and why."""

    caveats: tuple[str, ...]
    choices: tuple[str, ...]


@dataclass(frozen=True)
class DeliveryRow:
    """What became of a report at a destination; ``status`` is the peer's word, ``0000`` or ``200`` for instance."""

    job: int
    destination: str
    sop_instance_uid: str
    revision: int
    state: JobState
    status: str | None
    attempts: int
    last_error: str | None
    delivered_at: datetime | None


@dataclass(frozen=True)
class InFlight:
    """How many studies and jobs have not ended (well), by state, and how many leases ran out while nobody swept."""

    studies: dict[StudyState, int]
    jobs: dict[tuple[JobKind, JobState], int]
    leases_expired: int


def findings(
    session: Session,
    *,
    study_instance_uid: str | None = None,
    severities: Collection[Severity] = (),
    conditions: Collection[Condition] = (),
    levels: Collection[Level] = (),
    since: datetime | None = None,
) -> list[StudyFinding]:
    """The current findings of every study that has ended, 25 a study, narrowed by the filters that are given.

    A study of which a later revision is on its way is left out: what is known of it is not final.
    """
    question = (
        select(Study, FindingRow)
        .outerjoin(FindingRow, (FindingRow.study_id == Study.id) & FindingRow.superseded.is_(False))
        .where(Study.ended_at.is_not(None))
        .order_by(Study.last_received_at, Study.id)
    )
    if study_instance_uid is not None:
        question = question.where(Study.study_instance_uid == study_instance_uid)
    if since is not None:
        question = question.where(Study.last_received_at >= since)
    if severities:
        question = question.where(FindingRow.severity.in_(severities))
    if conditions:
        question = question.where(FindingRow.condition.in_(conditions) | FindingRow.id.is_(None))
    if levels:
        question = question.where(FindingRow.level.in_(levels) | FindingRow.id.is_(None))
    found = session.execute(question).all()
    caveats = caveats_of(session, {study.id for study, _ in found})
    rows: dict[str, list[StudyFinding]] = defaultdict(list)
    for study, finding in found:
        uid, doubted = study.study_instance_uid, caveats.get(study.id, ())
        if finding is None:
            rows[uid] += [StudyFinding(uid, found, None, doubted) for found in _not_assessed(study)]
        else:
            rows[uid].append(
                StudyFinding(uid, assembled(finding), identity_of(finding.bundle), doubted)
            )
    order = {key: place for place, key in enumerate(ALL_FINDINGS)}
    return [
        row
        for of_study in rows.values()
        for row in sorted(of_study, key=lambda row: order[row.finding.key])
        if (not conditions or row.finding.condition in conditions)
        and (not levels or row.finding.level in levels)
    ]


def how_read(session: Session, study_id: int) -> HowRead:
    """Empty until the newest revision's analysis has ended."""
    lines = session.scalars(_explanations().where(Explanation.study_id == study_id)).all()
    return HowRead(
        tuple(line.text for line in lines if line.caveat),
        tuple(line.text for line in lines if not line.caveat),
    )


def deliveries(session: Session, study_id: int) -> list[DeliveryRow]:
    """What became of a study's reports, in the order they were made."""
    return [
        DeliveryRow(
            job=job.id,
            destination=job.destination,
            sop_instance_uid=report.sop_instance_uid,
            revision=job.revision,
            state=job.state,
            status=delivery.status if delivery else None,
            attempts=job.attempts,
            last_error=job.last_error,
            delivered_at=delivery.delivered_at if delivery else None,
        )
        for job, report, delivery in session.execute(
            select(Job, ReportRow, Delivery)
            .join(ReportRow, ReportRow.id == Job.report_id)
            .outerjoin(
                Delivery,
                (Delivery.report_id == ReportRow.id) & (Delivery.destination == Job.destination),
            )
            .where(Job.study_id == study_id, Job.kind == JobKind.DELIVER)
            .order_by(Job.id)
        )
    ]


def quarantined(session: Session, study_id: int) -> dict[str, int]:
    """How many of a study's images are kept but not read, by the reason."""
    counted = (
        select(Instance.quarantined, func.count())
        .join(Series)
        .where(Series.study_id == study_id, Instance.quarantined.is_not(None))
        .group_by(Instance.quarantined)
        .order_by(Instance.quarantined)
    )
    return {str(reason): count for reason, count in session.execute(counted)}


def in_flight(session: Session) -> InFlight:
    """What a start-up finds."""
    studies = (
        select(Study.state, func.count()).where(Study.state.in_(UNFINISHED)).group_by(Study.state)
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
    expired = [
        select(func.count()).where(
            table.state == JobState.RUNNING, table.lease_expires_at < db_now()
        )
        for table in (Job, Preview)
    ]
    return InFlight(
        studies={state: count for state, count in session.execute(studies)},  # noqa: C416
        jobs={(kind, state): count for kind, state, count in session.execute(jobs)}
        | {(JobKind.PREVIEW, state): count for state, count in session.execute(previews)},
        leases_expired=sum(session.scalar(asked) or 0 for asked in expired),
    )


def _explanations() -> Select[Explanation]:
    """Of every study's newest revision, in their order."""
    return (
        select(Explanation)
        .join(Study, (Study.id == Explanation.study_id) & (Study.revision == Explanation.revision))
        .order_by(Explanation.study_id, Explanation.ordinal)
    )


def caveats_of(session: Session, ids: Collection[int]) -> dict[int, tuple[str, ...]]:
    """What is in caveat in the newest revision of these studies, by study; only those with a caveat."""
    caveats: dict[int, tuple[str, ...]] = {}
    for some in in_parts(list(ids)):
        asked = _explanations().where(Explanation.caveat.is_(True), Explanation.study_id.in_(some))
        for line in session.scalars(asked):
            caveats[line.study_id] = (*caveats.get(line.study_id, ()), line.text)
    return caveats


def in_parts(ids: Sequence[int]) -> list[Sequence[int]]:
    """As many as one statement may name."""
    return [ids[first : first + ASKED_AT_ONCE] for first in range(0, len(ids), ASKED_AT_ONCE)]


def assembled(row: FindingRow) -> Finding:
    """A row as the value it was made from."""
    if row.severity is None:
        return Finding(row.condition, row.level, reason=row.reason)
    point = ImagePoint(**{part.name: getattr(row, part.name) for part in fields(ImagePoint)})
    probabilities: tuple[Any, Any, Any] = (row.normal_mild, row.moderate, row.severe)
    return Finding(
        row.condition, row.level, probabilities=probabilities, point=point, shows=row.shows
    )


def _not_assessed(study: Study) -> list[Finding]:
    """25 for a study that ended without findings, for its reason."""
    reason = f"{study.state.replace('_', ' ')}: {study.reason}"
    return [Finding(*key.parts, reason=reason) for key in ALL_FINDINGS]


def identity_of(bundle: Bundle | None) -> BundleIdentity | None:
    """Which weights a row stands for."""
    if bundle is None:
        return None
    return BundleIdentity(
        bundle.name,
        bundle.version,
        bundle.weights_sha256,
        bundle.trained_on,
        bundle.preprocessing_version,
    )
