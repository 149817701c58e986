"""Queries about one study: its findings, how it was analysed, what became of its reports."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from db import stated_attributes
from db.models import (
    Bundle,
    Delivery,
    DeliveryOutcome,
    Explanation,
    FindingRow,
    Instance,
    Job,
    JobKind,
    JobState,
    QuarantineReason,
    ReportRow,
    Review,
    Series,
    Study,
    StudyState,
)
from lumbar import study_attributes
from lumbar.reports.finding_records import LatestReview, StudyFinding, StudyReference
from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey
from lumbar.spine.findings import Finding, ImagePoint
from lumbar.spine.provenance import BundleIdentity

MAX_IDS = 500  # in one statement

# A study and one of its 25 findings. None: the study ended without findings, so that this one is
# not assessed, for the study's reason.
ListedFinding = tuple[Study, FindingKey, FindingRow | None]


@dataclass(frozen=True)
class HowRead:
    """The notes on how a study's newest revision was read."""

    caveats: tuple[str, ...]  # why the levels may be misnamed, or the wrong images read
    choices: tuple[str, ...]  # what was chosen and refused, and why


@dataclass(frozen=True)
class DeliveryRow:
    """What became of a report at a destination."""

    job: int
    destination: str
    sop_instance_uid: str
    revision: int
    state: JobState
    status: str | None  # the peer's, for instance ``0000`` (DIMSE) or ``200`` (STOW-RS)
    outcome: DeliveryOutcome | None  # None until the peer reported success
    attempts: int
    last_error: str | None
    delivered_at: datetime | None


def findings(session: Session, study: Study) -> list[StudyFinding]:
    """A study's 25 findings in force, in the order of the RSNA rows.

    If it ended without findings, they are 25 that are not assessed, for its reason. While a
    revision is under way there are none: what is known about the study is not final.
    """
    if study.ended_at is None or study.state is StudyState.NO_IMAGES:
        return []
    in_force = session.scalars(
        select(FindingRow).where(FindingRow.study_id == study.id, FindingRow.superseded.is_(False))
    ).all()
    rows: list[ListedFinding] = [(study, key_of(row), row) for row in in_force]
    rows = rows or [(study, key, None) for key in ALL_FINDINGS]
    return sorted(with_context(session, rows), key=rsna_order)


def how_read(session: Session, study_id: int) -> HowRead:
    """The notes on the newest revision; empty until its analysis has ended."""
    lines = session.scalars(_explanations().where(Explanation.study_id == study_id)).all()
    return HowRead(
        tuple(line.text for line in lines if line.caveat),
        tuple(line.text for line in lines if not line.caveat),
    )


def deliveries(session: Session, study_id: int) -> list[DeliveryRow]:
    """What became of a study's reports at each destination, in the order of their jobs."""
    return [
        DeliveryRow(
            job=job.id,
            destination=job.destination,
            sop_instance_uid=report.sop_instance_uid,
            revision=job.revision,
            state=job.state,
            status=delivery.status if delivery else None,
            outcome=delivery.outcome if delivery else None,
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
    """How many of a study's images are kept but not read, by reason; and of its other objects.

    Former versions of other objects are not counted: they are only kept.
    """
    counted = (
        select(Instance.quarantined, func.count())
        .join(Series)
        .where(
            Series.study_id == study_id,
            Instance.quarantined.is_not(None),
            Instance.is_image | (Instance.quarantined != QuarantineReason.REPLACED.value),
        )
        .group_by(Instance.quarantined)
        .order_by(Instance.quarantined)
    )
    return {str(reason): count for reason, count in session.execute(counted)}


def images_removed_at(session: Session, study_id: int) -> datetime | None:
    """When retention removed the images of a study; None while it has one of those in use."""
    removed = (
        select(func.max(Instance.removed_at), func.count() - func.count(Instance.removed_at))
        .join(Series)
        .where(Series.study_id == study_id, Instance.quarantined.is_(None), Instance.is_image)
    )
    newest, left = session.execute(removed).one()
    return None if left else newest


def other_objects(session: Session, study_id: int) -> int:
    """How many objects of a study are no MR images: kept, and never read."""
    counted = (
        select(func.count())
        .select_from(Instance)
        .join(Series)
        .where(Series.study_id == study_id, Instance.quarantined.is_(None), ~Instance.is_image)
    )
    return session.scalar(counted) or 0


def other_objects_in_words(count: int) -> str:
    """For a person."""
    if count == 1:
        return "1 object that is no MR image"
    return f"{count} objects that are no MR images"


def disagreements(session: Session, study_id: int) -> tuple[str, ...]:
    """Where a study's images state several values of an attribute, one sentence for each."""
    stated = stated_attributes.in_use(session, study_id)
    return tuple(map(str, study_attributes.disagreements(stated)))


def _explanations() -> Select[Explanation]:
    """Selects the notes on every study's newest revision, in their order."""
    return (
        select(Explanation)
        .join(Study, (Study.id == Explanation.study_id) & (Study.revision == Explanation.revision))
        .order_by(Explanation.study_id, Explanation.ordinal)
    )


def caveats_of(session: Session, study_ids: Collection[int]) -> dict[int, tuple[str, ...]]:
    """The caveats of these studies' newest revisions, by study; only of studies that have any."""
    caveats: dict[int, tuple[str, ...]] = {}
    for ids in batches(list(study_ids)):
        statement = _explanations().where(
            Explanation.caveat.is_(True), Explanation.study_id.in_(ids)
        )
        for line in session.scalars(statement):
            caveats[line.study_id] = (*caveats.get(line.study_id, ()), line.text)
    return caveats


def batches(ids: Sequence[int]) -> list[Sequence[int]]:
    """The ids in batches that one statement may name."""
    return [ids[first : first + MAX_IDS] for first in range(0, len(ids), MAX_IDS)]


def key_of(row: FindingRow) -> FindingKey:
    """Which of the 25 findings a row holds."""
    return FindingKey(row.condition, row.level)


def finding_of(row: FindingRow) -> Finding:
    """A row as the value it was made from."""
    if row.severity is None:
        return Finding(row.condition, row.level, reason=row.reason)
    point = ImagePoint(**{part.name: getattr(row, part.name) for part in fields(ImagePoint)})
    probabilities: tuple[Any, Any, Any] = (row.normal_mild, row.moderate, row.severe)
    return Finding(
        row.condition, row.level, probabilities=probabilities, point=point, shows=row.shows
    )


def rsna_order(row: StudyFinding) -> FindingKey:
    """The sort key of one study's findings: that of the RSNA rows (``ALL_FINDINGS``)."""
    return row.finding.key


def with_context(session: Session, rows: Sequence[ListedFinding]) -> list[StudyFinding]:
    """Findings with their studies, caveats and latest reviews, in the order of the rows."""
    caveats = caveats_of(session, {study.id for study, _, _ in rows})
    latest = latest_reviews(session, [row for _, _, row in rows if row is not None])
    return [
        StudyFinding(
            study=reference_of(study),
            finding=finding_of(row) if row else not_assessed(study, key),
            bundle=identity_of(row.bundle) if row else None,
            caveats=caveats.get(study.id, ()),
            finding_id=row.id if row else None,
            found_at=row.found_at if row else None,
            review=latest.get(row.id) if row else None,
        )
        for study, key, row in rows
    ]


def latest_reviews(session: Session, rows: Sequence[FindingRow]) -> dict[int, LatestReview]:
    """The last review of each of these findings, by the finding's id; only of those reviewed."""
    severities = {row.id: row.severity for row in rows}
    latest: dict[int, LatestReview] = {}
    for ids in batches(list(severities)):
        newest = (
            select(func.max(Review.id))
            .where(Review.finding_id.in_(ids))
            .group_by(Review.finding_id)
        )
        for review in session.scalars(select(Review).where(Review.id.in_(newest))):
            latest[review.finding_id] = LatestReview(
                finding_id=review.finding_id,
                severity=review.severity,
                agrees=review.severity == severities[review.finding_id],
                reviewer=review.reviewer,
                comment=review.comment,
                reviewed_at=review.reviewed_at,
            )
    return latest


def reference_of(study: Study) -> StudyReference:
    """A study as lists of findings name it."""
    return StudyReference(
        study_instance_uid=study.study_instance_uid,
        received_at=study.last_received_at,
        study_date=study.study_date,
        study_time=study.study_time,
        patient_identifier=study.patient.patient_identifier,
        patient_name=study.patient.name,
        accession_number=study.accession_number,
        scanner=study.scanner,
    )


def not_assessed(study: Study, key: FindingKey) -> Finding:
    """A finding that is not assessed, because its study ended without findings."""
    return Finding(*key.parts, reason=f"{study.state.replace('_', ' ')}: {study.reason}")


def identity_of(bundle: Bundle) -> BundleIdentity:
    """A row as the value it was made from."""
    return BundleIdentity(
        bundle.name,
        bundle.version,
        bundle.weights_sha256,
        bundle.trained_on,
        bundle.preprocessing_version,
    )
