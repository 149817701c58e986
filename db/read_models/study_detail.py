"""All that is known of one study, for the page and the API that show it."""

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import reviews, studies
from db.models import FindingRow, ReportRow, Study
from db.read_models import study_queries
from db.read_models.study_queries import DeliveryRow, HowRead
from db.read_models.worklist import Ranking, WorklistRow, row_of
from db.reviews import LatestReview
from lumbar.spine.anatomy import FindingKey, Severity
from lumbar.spine.findings import Finding


@dataclass(frozen=True)
class Cell:
    """One of the 25 findings; ``finding_id`` is None where the study ended without any, ``said`` the last review."""

    finding: Finding
    finding_id: int | None
    said: LatestReview | None


@dataclass(frozen=True)
class Change:
    """A finding whose severity another revision's is not; None: not assessed."""

    revision: int
    key: FindingKey
    before: Severity | None
    after: Severity | None


@dataclass(frozen=True)
class StoredReport:
    """A stored Structured ReportRow."""

    revision: int
    sop_instance_uid: str
    sha256: str
    created_at: datetime


@dataclass(frozen=True)
class StudyDetail:
    """A study with everything."""

    study: WorklistRow
    reason: str | None
    first_received_at: datetime
    ended_at: datetime | None
    images_removed_at: datetime | None
    cells: tuple[Cell, ...]
    read: HowRead
    quarantined: dict[str, int]
    deliveries: tuple[DeliveryRow, ...]
    reports: tuple[StoredReport, ...]
    changes: tuple[Change, ...]


def study_detail(session: Session, study_instance_uid: str, ranking: Ranking) -> StudyDetail:
    """Raises NotFound where no such study was received."""
    study = studies.find(session, study_instance_uid)
    said, ids = reviews.latest_reviews(session, [study.id]), reviews.finding_ids(session, study.id)
    rows = study_queries.findings(session, study_instance_uid=study_instance_uid)
    return StudyDetail(
        study=row_of(session, study, ranking),
        reason=study.reason,
        first_received_at=study.first_received_at,
        ended_at=study.ended_at,
        images_removed_at=study.images_removed_at,
        cells=tuple(
            Cell(row.finding, ids.get(row.finding.key), said.get(ids.get(row.finding.key, -1)))
            for row in rows
        ),
        read=study_queries.how_read(session, study.id),
        quarantined=study_queries.quarantined(session, study.id),
        deliveries=tuple(study_queries.deliveries(session, study.id)),
        reports=_reports(session, study),
        changes=_changes(session, study),
    )


def _reports(session: Session, study: Study) -> tuple[StoredReport, ...]:
    asked = select(ReportRow).where(ReportRow.study_id == study.id).order_by(ReportRow.id)
    return tuple(
        StoredReport(report.revision, report.sop_instance_uid, report.sha256, report.created_at)
        for report in session.scalars(asked)
    )


def _changes(session: Session, study: Study) -> tuple[Change, ...]:
    """From each revision that has findings to the next one."""
    asked = select(
        FindingRow.revision, FindingRow.condition, FindingRow.level, FindingRow.severity
    ).where(FindingRow.study_id == study.id)
    of: dict[int, dict[FindingKey, Severity | None]] = {}
    for revision, condition, level, severity in session.execute(asked):
        of.setdefault(revision, {})[FindingKey(condition, level)] = severity
    order = sorted(of)
    return tuple(
        Change(after, key, of[before].get(key), of[after][key])
        for before, after in pairwise(order)
        for key in sorted(of[after])
        if of[before].get(key) != of[after][key]
    )
