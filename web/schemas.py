"""What the REST API sends and takes, as its description shows it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from db.models import JobKind, JobState, StudyState
from db.read_models.findings import FoundRow
from db.read_models.worklist import StudyPage, WorklistRow
from lumbar.spine.anatomy import Condition, FindingKey, Level, Severity
from lumbar.spine.findings import Finding
from lumbar.spine.provenance import LOW_RANK_NOTICE, RESEARCH_USE_ONLY
from web.params import WITHOUT_NUL, Moment


class _Model(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class BundleModel(_Model):
    """Which weights."""

    name: str
    version: str
    weights_sha256: str
    trained_on: str
    preprocessing_version: str


class KeyModel(_Model):
    condition: Condition
    level: Level


class StudyModel(_Model):
    """A study as the worklist shows it."""

    study_instance_uid: str
    urgency: int = Field(description="1 first, 2 soon, 3 in turn")
    why: str
    patient_identifier: str
    patient_name: str
    accession_number: str
    study_date: str
    description: str
    scanner: str
    state: StudyState
    revision: int
    stat: bool
    images: int
    severe: list[KeyModel]
    moderate: list[KeyModel]
    flags: list[str]
    waiting_s: float
    last_received_at: datetime
    read_at: datetime | None
    bundle: BundleModel | None
    notice: str


class StudiesModel(_Model):
    rows: list[StudyModel]
    next_after: str | None


class ProbabilitiesModel(_Model):
    normal_mild: float
    moderate: float
    severe: float


class ImagePointModel(_Model):
    """Where it was read: 0-based pixels, integers at pixel centres, and mm in LPS."""

    series_instance_uid: str
    sop_instance_uid: str
    frame: int | None
    column: float
    row: float
    x: float
    y: float
    z: float


class FindingModel(_Model):
    """One condition at one level."""

    finding_id: int | None
    condition: Condition
    level: Level
    severity: Severity | None
    probabilities: ProbabilitiesModel | None
    shows: float | None
    reason: str | None
    place: ImagePointModel | None


class FoundModel(FindingModel):
    study_instance_uid: str
    accession_number: str
    patient_identifier: str
    scanner: str
    found_at: datetime
    bundle: BundleModel
    notice: str


class FoundPageModel(_Model):
    rows: list[FoundModel]
    next_after: int | None


class ReviewModel(_Model):
    """The last word on a finding."""

    finding_id: int
    severity: Severity
    agrees: bool
    reviewer: str
    comment: str
    reviewed_at: datetime


class DeliveryModel(_Model):
    job: int
    destination: str
    sop_instance_uid: str
    revision: int
    state: JobState
    status: str | None
    attempts: int
    last_error: str | None
    delivered_at: datetime | None


class StudyDetailModel(_Model):
    """A study with everything that is known of it."""

    study: StudyModel
    reason: str | None
    findings: list[FindingModel]
    reviews: list[ReviewModel]
    caveats: list[str]
    choices: list[str]
    quarantined: dict[str, int]
    deliveries: list[DeliveryModel]


class JobModel(_Model):
    job: int
    kind: JobKind
    study_instance_uid: str
    revision: int
    destination: str
    priority: int
    state: JobState
    attempts: int
    losses: int
    run_after: datetime
    last_error: str | None


class ReviewRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    severity: Severity
    comment: str = Field("", max_length=2000, pattern=WITHOUT_NUL)


class ReadRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    read: bool = True
    last_received_at: Annotated[datetime, Moment] | None = Field(
        None, description="As you saw it; if images came since: 409"
    )


class Done(BaseModel):
    """What was asked for is done."""

    done: bool = True


def studies_model(page: StudyPage) -> StudiesModel:
    """A page of the worklist or of all studies."""
    return StudiesModel(rows=[study_model(row) for row in page.rows], next_after=page.next_after)


def study_model(row: WorklistRow) -> StudyModel:
    """A study with the notices that stand on every output."""
    own = {name: getattr(row, name) for name in StudyModel.model_fields if hasattr(row, name)}
    notices = row.bundle.trained_on.notices if row.bundle else (RESEARCH_USE_ONLY, LOW_RANK_NOTICE)
    return StudyModel(
        **own
        | {
            "urgency": int(row.urgency),
            "severe": _keys(row.severe),
            "moderate": _keys(row.moderate),
            "flags": list(row.flags),
            "bundle": BundleModel.model_validate(row.bundle) if row.bundle else None,
            "notice": ". ".join(notices),
        }
    )


def _keys(keys: Sequence[FindingKey]) -> list[KeyModel]:
    return [KeyModel.model_validate(key) for key in keys]


def finding_values(finding: Finding) -> dict[str, Any]:
    """What ``FindingModel`` has besides the row\'s number."""
    probabilities = finding.probabilities
    return {
        "condition": finding.condition,
        "level": finding.level,
        "severity": finding.severity,
        "probabilities": ProbabilitiesModel(
            normal_mild=probabilities[0], moderate=probabilities[1], severe=probabilities[2]
        )
        if probabilities
        else None,
        "shows": finding.shows,
        "reason": finding.reason,
        "place": ImagePointModel.model_validate(finding.point) if finding.point else None,
    }


def found_model(row: FoundRow) -> FoundModel:
    """A finding with the study it belongs to."""
    return FoundModel(
        finding_id=row.finding_id,
        study_instance_uid=row.study_instance_uid,
        accession_number=row.accession_number,
        patient_identifier=row.patient_identifier,
        scanner=row.scanner,
        found_at=row.found_at,
        bundle=BundleModel.model_validate(row.bundle),
        notice=". ".join(row.bundle.trained_on.notices),
        **finding_values(row.finding),
    )
