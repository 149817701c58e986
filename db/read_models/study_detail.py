"""Everything that is known about one study, for its page and the API."""

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import studies
from db.models import FindingRow, ReportRow, Study
from db.read_models import study_queries
from db.read_models.corrections import Correction, corrections_of
from db.read_models.study_queries import DeliveryRow, HowRead
from db.read_models.worklist import row_of
from db.read_models.worklist_rows import Ranking, WorklistRow
from lumbar.reports.finding_records import StudyFinding
from lumbar.spine.anatomy import FindingKey, Severity


@dataclass(frozen=True)
class Change:
    """A finding whose severity changed from one revision to the next; None: not assessed."""

    revision: int  # the later one
    key: FindingKey
    before: Severity | None
    after: Severity | None


@dataclass(frozen=True)
class StoredReport:
    """A Structured Report in the store."""

    revision: int
    sop_instance_uid: str
    sha256: str
    created_at: datetime


@dataclass(frozen=True)
class StudyDetail:
    """Everything that is known about a study."""

    study: WorklistRow
    reason: str | None
    first_received_at: datetime
    ended_at: datetime | None
    images_removed_at: datetime | None
    findings: tuple[StudyFinding, ...]  # 25, or none while a revision is under way
    read: HowRead
    quarantined: dict[str, int]  # images, by the reason
    other_objects: int  # in use that are no MR images
    corrections: tuple[Correction, ...]  # that wait, the complete ones first
    disagreements: tuple[str, ...]  # where its images state several values
    deliveries: tuple[DeliveryRow, ...]
    reports: tuple[StoredReport, ...]
    changes: tuple[Change, ...]


def study_detail(session: Session, study_instance_uid: str, ranking: Ranking) -> StudyDetail:
    """The details of the study with this UID.

    Raises:
        NotFound: no such study was received.
    """
    study = studies.find(session, study_instance_uid)
    return StudyDetail(
        study=row_of(session, study, ranking),
        reason=study.reason,
        first_received_at=study.first_received_at,
        ended_at=study.ended_at,
        images_removed_at=study_queries.images_removed_at(session, study.id),
        findings=tuple(study_queries.findings(session, study)),
        read=study_queries.how_read(session, study.id),
        quarantined=study_queries.quarantined(session, study.id),
        other_objects=study_queries.other_objects(session, study.id),
        corrections=corrections_of(session, study.id),
        disagreements=study_queries.disagreements(session, study.id),
        deliveries=tuple(study_queries.deliveries(session, study.id)),
        reports=_reports(session, study),
        changes=_changes(session, study),
    )


def _reports(session: Session, study: Study) -> tuple[StoredReport, ...]:
    stored = (ReportRow.study_id == study.id, ReportRow.file.is_not(None))
    return tuple(
        StoredReport(
            report.revision, report.sop_instance_uid, report.sha256 or "", report.created_at
        )
        for report in session.scalars(select(ReportRow).where(*stored).order_by(ReportRow.id))
    )


def _changes(session: Session, study: Study) -> tuple[Change, ...]:
    """The changes from each revision that has findings to the next, since it was corrected."""
    statement = select(
        FindingRow.revision, FindingRow.condition, FindingRow.level, FindingRow.severity
    ).where(FindingRow.study_id == study.id, FindingRow.revision >= study.corrected_revision)
    severities: dict[int, dict[FindingKey, Severity | None]] = {}
    for revision, condition, level, severity in session.execute(statement):
        severities.setdefault(revision, {})[FindingKey(condition, level)] = severity
    return tuple(
        Change(after, key, severities[before].get(key), severities[after][key])
        for before, after in pairwise(sorted(severities))
        for key in sorted(severities[after])
        if severities[before].get(key) != severities[after][key]
    )
