"""The tables. They are authoritative; the rows of instances can be rebuilt from the store."""

from db.models.base import LeasedRow, Table
from db.models.findings import Bundle, FindingRow, ReportRow, Review
from db.models.maintenance import Maintenance, operating_s
from db.models.queue import Delivery, HeldDestination, Job, Preview
from db.models.states import (
    ACTIVE_STUDY_STATES,
    OPEN_JOB_STATES,
    REJECTED,
    UNFINISHED_JOB_STATES,
    DeliveryOutcome,
    JobKind,
    JobState,
    Permission,
    QuarantineReason,
    ReadingState,
    StudyState,
    UserRole,
)
from db.models.studies import (
    Explanation,
    Instance,
    Patient,
    Rejection,
    SearchKey,
    Series,
    StatedAttributes,
    Study,
    Tombstone,
)
from db.models.users import ApiToken, AuditEvent, AuditForward, SignInFailure, User, WebSession

__all__ = [
    "ACTIVE_STUDY_STATES",
    "OPEN_JOB_STATES",
    "REJECTED",
    "UNFINISHED_JOB_STATES",
    "ApiToken",
    "AuditEvent",
    "AuditForward",
    "Bundle",
    "Delivery",
    "DeliveryOutcome",
    "Explanation",
    "FindingRow",
    "HeldDestination",
    "Instance",
    "Job",
    "JobKind",
    "JobState",
    "LeasedRow",
    "Maintenance",
    "Patient",
    "Permission",
    "Preview",
    "QuarantineReason",
    "ReadingState",
    "Rejection",
    "ReportRow",
    "Review",
    "SearchKey",
    "Series",
    "SignInFailure",
    "StatedAttributes",
    "Study",
    "StudyState",
    "Table",
    "Tombstone",
    "User",
    "UserRole",
    "WebSession",
    "operating_s",
]
