"""The bodies of the REST API's requests and responses, as its OpenAPI description shows them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from db.models import DeliveryOutcome, JobKind, JobState, ReadingState, StudyState
from db.read_models.corrections import Correction
from db.read_models.findings import FindingsPage
from db.read_models.worklist import StudyPage
from db.read_models.worklist_rows import WorklistRow
from lumbar.reports.finding_records import StudyFinding, notice
from lumbar.spine.anatomy import Condition, FindingKey, Level, Severity
from web.params import WITHOUT_NUL, Moment


class _Model(BaseModel):
    """A response; it can be made from a value with the same attributes."""

    model_config = ConfigDict(from_attributes=True)


def _renamed(name: str) -> Any:
    """A field's former name, still sent beside the new one in this version."""
    return Field(description=f"Deprecated: use `{name}`", json_schema_extra={"deprecated": True})


class BundleModel(_Model):
    """The weights that made a finding."""

    name: str
    version: str
    weights_sha256: str
    trained_on: str
    preprocessing_version: str


class KeyModel(_Model):
    """Which of a study's 25 findings."""

    condition: Condition
    level: Level


class StudyModel(_Model):
    """A study as the worklist shows it."""

    study_instance_uid: str
    urgency: int = Field(description="1 urgent, 2 priority, 3 routine")
    why: str
    patient_identifier: str
    patient_name: str
    accession_number: str
    study_date: str = Field(description="YYYYMMDD or empty")
    description: str
    scanner: str
    state: StudyState
    revision: int
    stat: bool
    images: int
    severe: list[KeyModel]
    moderate: list[KeyModel]
    flags: list[str]
    waiting_s: float = Field(description="Seconds since the last image")
    last_received_at: datetime
    reading: ReadingState = Field(
        description="`waiting`: on the worklist; `read`; `expired`: left the worklist unread"
    )
    read_at: datetime | None
    expired_at: datetime | None = Field(description="When it left the worklist unread")
    bundle: BundleModel | None
    notice: str


class WaitingModel(_Model):
    """How many studies wait to be read, and how many have left the worklist unread."""

    unread: int
    severe: int = Field(description="Of these, with a severe finding that ranks")
    severe_expiring: int = Field(description="Of these, that leave the worklist within 24 h")
    expired: int = Field(description="Left the worklist unread; counted up to 1000")
    expired_severe: int = Field(description="Those with a severe finding; counted up to 1000")


class StudiesModel(_Model):
    """A page of studies."""

    rows: list[StudyModel]
    next_after: str | None


class ProbabilitiesModel(_Model):
    """The probability of each severity, 0–1; they sum to 1."""

    normal_mild: float
    moderate: float
    severe: float


class ImagePointModel(_Model):
    """Where a finding was read: 0-based pixels, integers at pixel centres, and mm in LPS."""

    series_instance_uid: str
    sop_instance_uid: str
    frame: int | None = Field(description="1-based; null in a single-frame image")
    column: float
    row: float
    x: float
    y: float
    z: float


class FindingModel(_Model):
    """One condition at one level of the spine; not assessed where there is no severity."""

    finding_id: int | None = Field(description="null where the study ended without findings")
    condition: Condition
    level: Level
    severity: Severity | None
    probabilities: ProbabilitiesModel | None
    shows: float | None = Field(
        description="Probability, 0–1, that the crop shows this condition; below 0.5 the severity "
        "is uncertain"
    )
    reason: str | None = Field(description="Why it was not assessed")
    point: ImagePointModel | None
    place: ImagePointModel | None = _renamed("point")


class ReviewModel(_Model):
    """The last review of a finding."""

    finding_id: int
    severity: Severity
    agrees: bool = Field(description="With the severity of the finding")
    reviewer: str
    comment: str
    reviewed_at: datetime


class StudyFindingModel(FindingModel):
    """A finding with the study it belongs to."""

    study_instance_uid: str
    study_date: str = Field(description="YYYYMMDD or empty")
    study_time: str = Field(description="HHMMSS.FFFFFF, shortened or empty")
    accession_number: str
    patient_identifier: str
    patient_name: str
    scanner: str
    received_at: datetime | None = Field(description="The study's last image")
    found_at: datetime | None
    caveats: list[str] = Field(
        description="Why its levels may be misnamed, or the wrong images read"
    )
    review: ReviewModel | None
    bundle: BundleModel | None
    notice: str


class FindingsPageModel(_Model):
    """A page of findings."""

    rows: list[StudyFindingModel]
    next_after: str | None


class DeliveryModel(_Model):
    """What became of a report at a destination."""

    job: int
    destination: str
    sop_instance_uid: str
    revision: int
    state: JobState
    outcome: DeliveryOutcome | None = Field(
        description="confirmed: it lists the report; accepted: it reported success, and was not or "
        "cannot be asked; absent: it reported success, but does not list it"
    )
    status: str | None = Field(description="The peer's: `0000`, `200`")
    attempts: int
    last_error: str | None
    delivered_at: datetime | None


class StatedModel(_Model):
    """Patient and accession number as images state them; empty where they state none."""

    patient_identifier: str
    patient_name: str
    birth_date: str = Field(description="YYYYMMDD or empty")
    sex: str
    accession_number: str


class CorrectionModel(_Model):
    """What newer copies of a study's images state, and how many of the images have one."""

    current: StatedModel = Field(description="What counts for the study now")
    newer: StatedModel = Field(description="What the newer copies state")
    replaced: int = Field(description="Images that have a newer copy")
    images: int = Field(description="Images that need one")
    complete: bool = Field(description="Whether the study can be taken over")
    token: str = Field(description="Names this correction, to take over no other one")


class QuarantinedModel(_Model):
    """An instance that is kept but not used, or a file that could not be registered."""

    id: str = Field(description="A number; the file's name if it could not be registered")
    study_instance_uid: str
    sop_instance_uid: str
    patient_identifier: str = Field(description="As the instance itself states it")
    patient_name: str
    accession_number: str
    source: str = Field(description="Calling AE title, or another source's name")
    received_at: datetime
    size: int = Field(description="Bytes")
    reason: str
    has_file: bool = Field(description="False: its file was removed to make room")


class StudyDetailModel(_Model):
    """Everything that is known about a study."""

    study: StudyModel
    reason: str | None
    findings: list[FindingModel]
    reviews: list[ReviewModel]
    caveats: list[str] = Field(
        description="Why the levels may be misnamed, or the wrong images read"
    )
    doubts: list[str] = _renamed("caveats")
    choices: list[str] = Field(description="How the study was read")
    quarantined: dict[str, int] = Field(description="Images kept but not read, by the reason")
    set_aside: dict[str, int] = _renamed("quarantined")
    other_objects: int = Field(description="Objects in use that are no MR images")
    corrections: list[CorrectionModel] = Field(
        description="Newer copies that state another patient, name or accession number"
    )
    disagreements: list[str] = Field(description="Where the images state several values")
    deliveries: list[DeliveryModel]


class JobModel(_Model):
    """A job; nothing of the patient."""

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


class DestinationModel(_Model):
    """A destination and what waits for it; nothing of the patients."""

    destination: str
    configured: bool = Field(description="If not, its jobs wait until it is, or are rerouted")
    waiting: int
    failing: int = Field(description="Of the waiting ones, those that failed the last time")
    dead: int
    absent: int = Field(description="Reports that it accepted, but does not list")
    oldest_s: float = Field(description="How long the oldest waiting report has waited, seconds")
    held_since: datetime | None = Field(description="Since when it fails and is only probed")
    next_probe: datetime | None
    last_error: str | None


class JobsModel(_Model):
    """How many jobs an action concerned."""

    jobs: int


class RerouteRequest(BaseModel):
    """Where the jobs of a destination are sent instead."""

    model_config = ConfigDict(extra="forbid")

    to: str = Field(min_length=1, max_length=64, pattern=WITHOUT_NUL)


class ReviewRequest(BaseModel):
    """A reader's review of a finding."""

    model_config = ConfigDict(extra="forbid")

    severity: Severity
    comment: str = Field("", max_length=2000, pattern=WITHOUT_NUL)


class CorrectRequest(BaseModel):
    """Which correction of a study is meant."""

    model_config = ConfigDict(extra="forbid")

    correction: str | None = Field(
        None, description="Its `token`; needed where several wait, 409 if it is none of them"
    )


class ReadRequest(BaseModel):
    """Whether a study has been read."""

    model_config = ConfigDict(extra="forbid")

    read: bool = True
    last_received_at: Annotated[datetime, Moment] | None = Field(
        None, description="As you saw it; 409 if images have been received since"
    )


class Done(BaseModel):
    """The request was carried out."""

    done: bool = True


def studies_model(page: StudyPage) -> StudiesModel:
    """A page of the worklist or of all studies."""
    return StudiesModel(rows=[study_model(row) for row in page.rows], next_after=page.next_after)


def study_model(row: WorklistRow) -> StudyModel:
    """A study as the worklist shows it."""
    values = {name: getattr(row, name) for name in StudyModel.model_fields if hasattr(row, name)}
    return StudyModel(
        **values
        | {
            "urgency": int(row.urgency),
            "severe": _keys(row.severe),
            "moderate": _keys(row.moderate),
            "flags": list(row.flags),
            "bundle": BundleModel.model_validate(row.bundle) if row.bundle else None,
            "notice": notice(row.bundle),
        }
    )


def _keys(keys: Sequence[FindingKey]) -> list[KeyModel]:
    return [KeyModel.model_validate(key) for key in keys]


def correction_model(correction: Correction) -> CorrectionModel:
    """A correction that waits."""
    return CorrectionModel(
        current=StatedModel.model_validate(correction.current),
        newer=StatedModel.model_validate(correction.attributes),
        replaced=correction.replaced,
        images=correction.images,
        complete=correction.complete,
        token=correction.token,
    )


def finding_model(row: StudyFinding) -> FindingModel:
    """A finding by itself."""
    return FindingModel(**_finding_values(row))


def findings_model(page: FindingsPage) -> FindingsPageModel:
    """A page of findings across studies."""
    rows = [study_finding_model(row) for row in page.rows]
    return FindingsPageModel(rows=rows, next_after=page.next_after)


def study_finding_model(row: StudyFinding) -> StudyFindingModel:
    """A finding with the study it belongs to."""
    study = row.study
    return StudyFindingModel(
        **_finding_values(row),
        study_instance_uid=study.study_instance_uid,
        study_date=study.study_date,
        study_time=study.study_time,
        accession_number=study.accession_number,
        patient_identifier=study.patient_identifier,
        patient_name=study.patient_name,
        scanner=study.scanner,
        received_at=study.received_at,
        found_at=row.found_at,
        caveats=list(row.caveats),
        review=ReviewModel.model_validate(row.review) if row.review else None,
        bundle=BundleModel.model_validate(row.bundle) if row.bundle else None,
        notice=notice(row.bundle),
    )


def _finding_values(row: StudyFinding) -> dict[str, Any]:
    finding, point = row.finding, None
    if finding.point is not None:
        point = ImagePointModel.model_validate(finding.point)
    probabilities = None
    if finding.probabilities is not None:
        normal_mild, moderate, severe = finding.probabilities
        probabilities = ProbabilitiesModel(
            normal_mild=normal_mild, moderate=moderate, severe=severe
        )
    return {
        "finding_id": row.finding_id,
        "condition": finding.condition,
        "level": finding.level,
        "severity": finding.severity,
        "probabilities": probabilities,
        "shows": finding.shows,
        "reason": finding.reason,
        "point": point,
        "place": point,
    }
