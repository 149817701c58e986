"""A finding with the study it belongs to, and the columns in which findings are exported.

The page's CSV, and the command line's CSV and JSON, have these columns in this order.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lumbar.spine.anatomy import Severity
from lumbar.spine.findings import Finding
from lumbar.spine.provenance import BundleIdentity, TrainedOn

FINDING_COLUMNS = (
    "row_id",  # the RSNA submission's: <study>_<condition>_<level>
    "finding_id",
    "received_at",  # of the study's last image; ISO 8601, UTC
    "found_at",
    "study_date",  # YYYYMMDD or empty
    "study_time",  # HHMMSS.FFFFFF, shortened or empty (DICOM TM)
    "study_instance_uid",
    "patient_identifier",
    "patient_name",
    "accession_number",
    "scanner",
    "condition",
    "level",
    "severity",
    "reviewed_severity",  # of the last review
    "reviewer",
    "reviewed_at",
    "normal_mild",  # probabilities, 0–1
    "moderate",
    "severe",
    "shows",  # probability, 0–1, that the crop shows the condition
    "assessed",
    "reason",  # why not assessed
    "caveats",
    "sop_instance_uid",
    "frame",  # 1-based; empty in a single-frame image
    "column",  # 0-based pixels, integers at pixel centres
    "row",
    "bundle",
    "weights_sha256",
    "trained_on",
    "notice",
)


@dataclass(frozen=True)
class StudyReference:
    """The study of a finding, as lists identify it; unknown values are empty."""

    study_instance_uid: str
    received_at: datetime | None = None  # its last image
    study_date: str = ""  # YYYYMMDD or empty
    study_time: str = ""  # HHMMSS.FFFFFF, shortened or empty
    patient_identifier: str = ""
    patient_name: str = ""
    accession_number: str = ""
    scanner: str = ""


@dataclass(frozen=True)
class LatestReview:
    """The last review of a finding."""

    finding_id: int
    severity: Severity
    agrees: bool  # with the finding's severity
    reviewer: str
    comment: str
    reviewed_at: datetime


@dataclass(frozen=True)
class StudyFinding:
    """One of a study's 25 findings.

    ``bundle``, ``finding_id`` and ``found_at`` are None where the study ended without findings: the
    finding is then not assessed, and its reason is the study's. ``caveats`` are the study's: why
    its levels may be misnamed, or the wrong images read.
    """

    study: StudyReference
    finding: Finding
    bundle: BundleIdentity | None
    caveats: tuple[str, ...] = ()
    finding_id: int | None = None
    found_at: datetime | None = None
    review: LatestReview | None = None


def finding_record(row: StudyFinding) -> dict[str, Any]:
    """The values of ``FINDING_COLUMNS``; None where there is none."""
    study, finding, point, review = row.study, row.finding, row.finding.point, row.review
    normal_mild, moderate, severe = finding.probabilities or (None, None, None)
    return {
        "row_id": finding.key.row_id(study.study_instance_uid),
        "finding_id": row.finding_id,
        "received_at": _moment(study.received_at),
        "found_at": _moment(row.found_at),
        "study_date": study.study_date,
        "study_time": study.study_time,
        "study_instance_uid": study.study_instance_uid,
        "patient_identifier": study.patient_identifier,
        "patient_name": study.patient_name,
        "accession_number": study.accession_number,
        "scanner": study.scanner,
        "condition": finding.condition,
        "level": finding.level,
        "severity": finding.severity,
        "reviewed_severity": review.severity if review else None,
        "reviewer": review.reviewer if review else None,
        "reviewed_at": _moment(review.reviewed_at) if review else None,
        "normal_mild": _rounded(normal_mild, 6),
        "moderate": _rounded(moderate, 6),
        "severe": _rounded(severe, 6),
        "shows": _rounded(finding.shows, 6),
        "assessed": finding.assessed,
        "reason": finding.reason,
        "caveats": "; ".join(row.caveats),
        "sop_instance_uid": point.sop_instance_uid if point else None,
        "frame": point.frame if point else None,
        "column": _rounded(point.column, 2) if point else None,
        "row": _rounded(point.row, 2) if point else None,
        "bundle": str(row.bundle) if row.bundle else None,
        "weights_sha256": row.bundle.weights_sha256 if row.bundle else None,
        "trained_on": row.bundle.trained_on if row.bundle else None,
        "notice": notice(row.bundle),
    }


def notice(bundle: BundleIdentity | None) -> str:
    """The notices on every output of these weights; None: on outputs without weights."""
    return ". ".join((bundle.trained_on if bundle else TrainedOn.CLINICAL).notices)


def _moment(value: datetime | None) -> str | None:
    return value.isoformat(timespec="seconds") if value else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
