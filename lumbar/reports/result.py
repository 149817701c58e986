"""The result of a study: the one value from which every output is built.

Database, Structured Report, picture, HL7 and FHIR messages, webhook, CSV and page read it, so a new
field is added here. ``docs/result.schema.json`` is the JSON schema of what ``to_json`` returns.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, computed_field

from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Severity, Side
from lumbar.spine.findings import Finding, ImagePoint
from lumbar.spine.provenance import BundleIdentity, TrainedOn
from lumbar.study_attributes import StudyAttributes

SCHEMA_VERSION = 1


class Outcome(StrEnum):
    """How the analysis of a study ended."""

    ANALYSED = "analysed"
    NOT_ANALYSABLE = "not_analysable"
    FAILED = "failed"


class Status(StrEnum):
    """Of the result as a whole. None of them is final: a person has to report the study."""

    PRELIMINARY = "preliminary"
    WITHDRAWN = "withdrawn"  # the study is not this patient's, was rejected or was deleted


class _Value(BaseModel):
    """An immutable part of a result; unknown fields, of a later version, are ignored."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", json_schema_serialization_defaults_required=True
    )


class Probabilities(_Value):
    """Of the three severities, 0–1, summing to 1."""

    normal_mild: float
    moderate: float
    severe: float


class Point(_Value):
    """Where something lies: pixels of one image, and mm in the patient (see ``ImagePoint``)."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None = None  # 1-based; None in a single-frame image
    column: float  # 0-based, integers at pixel centres
    row: float
    x: float  # mm, LPS
    y: float
    z: float


class Measurement(_Value):
    """A length or an area; the program makes none yet."""

    name: str
    value: float
    unit: Literal["mm", "mm2"]


class Prior(_Value):
    """The same finding in an earlier study; the program compares none yet."""

    study_instance_uid: str
    study_date: str  # YYYYMMDD
    severity: Severity
    change: Literal["better", "same", "worse"]


class Review(_Value):
    """What a reader says of a condition at a level. It holds for later revisions, too."""

    severity: Severity
    reviewer: str
    reviewed_at: datetime
    comment: str = ""
    revision: int  # that the reader saw
    graded: Severity | None = None  # by the program, in that revision


class FindingResult(_Value):
    """One of the 25 findings: assessed (probabilities and a point) or not (a reason).

    ``shows``: VGG16's probability, 0–1, that the crop shows this condition's view. ``graded`` is
    the program's severity; ``severity`` is the reader's where one reviewed it.
    """

    condition: Condition
    level: Level
    probabilities: Probabilities | None = None
    shows: float | None = None
    point: Point | None = None
    reason: str | None = None
    measurements: tuple[Measurement, ...] = ()
    prior: Prior | None = None
    review: Review | None = None
    caveats: tuple[str, ...] = ()  # of this finding alone

    @classmethod
    def of(cls, finding: Finding) -> Self:
        """As the pipeline found it."""
        return cls(
            condition=finding.condition,
            level=finding.level,
            probabilities=_probabilities(finding),
            shows=finding.shows,
            point=Point(**vars(finding.point)) if finding.point else None,
            reason=finding.reason,
        )

    @property
    def finding(self) -> Finding:
        """As the pipeline found it."""
        p = self.probabilities
        return Finding(
            self.condition,
            self.level,
            probabilities=(p.normal_mild, p.moderate, p.severe) if p else None,
            point=ImagePoint(**dict(self.point)) if self.point else None,
            shows=self.shows,
            reason=self.reason,
        )

    @property
    def key(self) -> FindingKey:
        return FindingKey(self.condition, self.level)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def side(self) -> Side | None:
        return self.condition.side

    @computed_field  # type: ignore[prop-decorator]
    @property
    def graded(self) -> Severity | None:
        """The most probable severity, the more severe of two equal ones; None if not assessed."""
        return self.finding.severity

    @computed_field  # type: ignore[prop-decorator]
    @property
    def severity(self) -> Severity | None:
        """The reader's severity or, without a review, the program's."""
        return self.review.severity if self.review else self.graded

    @computed_field  # type: ignore[prop-decorator]
    @property
    def corrected(self) -> bool:
        """Whether the reader's severity is not the program's."""
        return self.review is not None and self.review.severity != self.graded


class NamedLevel(_Value):
    """A disc level as the locator named it: the point in the canal behind the disc."""

    level: Level
    presence: float  # probability, 0–1, that the disc is there
    point: Point


class Patient(_Value):
    """As the images state it; empty where they do not."""

    identifier: str = ""
    issuer: str = ""
    name: str = ""  # DICOM PN: components separated by ^, groups by =
    birth_date: str = ""  # YYYYMMDD
    sex: str = ""  # M, F, O


class StudyInfo(_Value):
    """As the images state it; empty where they do not."""

    study_instance_uid: str
    accession_number: str = ""
    study_id: str = ""
    date: str = ""  # YYYYMMDD
    time: str = ""  # HHMMSS.FFFFFF, as far as it goes
    description: str = ""
    referring_physician: str = ""  # DICOM PN
    scanner: str = ""
    institution: str = ""
    source: str = ""  # calling AE title of the sender


class Result(_Value):
    """What is known of a study after an analysis, and what readers have said of it.

    ``findings`` are all 25, in the order of ``ALL_FINDINGS``; where the study was not analysed they
    are not assessed, for the study's reason. Nothing in it depends on when an output is made of it.
    """

    schema_version: Literal[1] = 1
    status: Status = Status.PRELIMINARY
    revision: int  # of the study's images
    outcome: Outcome
    reason: str | None = None  # why it was not analysed, or why it is withdrawn
    patient: Patient
    study: StudyInfo
    findings: tuple[FindingResult, ...]
    levels: tuple[NamedLevel, ...] = ()
    caveats: tuple[str, ...] = ()  # why levels may be misnamed, or the wrong images read
    choices: tuple[str, ...] = ()  # which images were read, and which were not
    notices: tuple[str, ...]
    bundle: BundleIdentity | None = None
    code_version: str
    settings_sha256: str = ""
    inputs_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """The value as JSON has it."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The value that ``to_json`` returned."""
        return cls.model_validate(stored)

    @property
    def by_urgency(self) -> tuple[FindingResult, ...]:
        """The findings for a person: the worst first, of equal ones the canal, levels downwards."""
        return tuple(sorted(self.findings, key=_reading_order))

    @property
    def worst(self) -> Severity | None:
        """The worst severity of all findings; None where none is assessed."""
        grades = [finding.severity for finding in self.findings if finding.severity]
        return max(grades, key=tuple(Severity).index, default=None)

    @property
    def is_corrected(self) -> bool:
        """Whether a reader has corrected a finding."""
        return any(finding.corrected for finding in self.findings)

    def at(self, key: FindingKey) -> FindingResult:
        """One of the findings."""
        return self.findings[ALL_FINDINGS.index(key)]

    def with_findings(self, findings: Iterable[FindingResult]) -> Self:
        """The same result with other findings, in any order."""
        ordered = sorted(findings, key=lambda finding: ALL_FINDINGS.index(finding.key))
        return self.model_copy(update={"findings": tuple(ordered)})

    def withdrawn(self, reason: str) -> Self:
        """The same result, withdrawn for a reason in words."""
        return self.model_copy(update={"status": Status.WITHDRAWN, "reason": reason})


def patient_of(attributes: StudyAttributes) -> Patient:
    """The patient whom a study's images state."""
    return Patient(
        identifier=attributes.patient_identifier,
        issuer=attributes.issuer,
        name=attributes.patient_name,
        birth_date=attributes.birth_date,
        sex=attributes.sex,
    )


def study_info_of(
    attributes: StudyAttributes,
    study_instance_uid: str,
    *,
    scanner: str = "",
    institution: str = "",
    source: str = "",
) -> StudyInfo:
    """The study as its images state it."""
    return StudyInfo(
        study_instance_uid=study_instance_uid,
        accession_number=attributes.accession_number,
        study_id=attributes.study_id,
        date=attributes.study_date,
        time=attributes.study_time,
        description=attributes.study_description,
        referring_physician=attributes.referring_physician,
        scanner=scanner,
        institution=institution,
        source=source,
    )


def attributes_of(result: Result) -> StudyAttributes:
    """The inverse of ``patient_of`` and ``study_info_of``."""
    patient, study = result.patient, result.study
    return StudyAttributes(
        patient_identifier=patient.identifier,
        issuer=patient.issuer,
        patient_name=patient.name,
        birth_date=patient.birth_date,
        sex=patient.sex,
        accession_number=study.accession_number,
        referring_physician=study.referring_physician,
        study_id=study.study_id,
        study_date=study.date,
        study_time=study.time,
        study_description=study.description,
    )


def not_assessed(reason: str) -> tuple[FindingResult, ...]:
    """The 25 findings of a study that was not analysed."""
    return tuple(
        FindingResult(condition=key.condition, level=key.level, reason=reason)
        for key in ALL_FINDINGS
    )


def findings_of(findings: Sequence[Finding]) -> tuple[FindingResult, ...]:
    """The pipeline's findings, in the order of ``ALL_FINDINGS``."""
    ordered = sorted(findings, key=lambda finding: ALL_FINDINGS.index(finding.key))
    return tuple(map(FindingResult.of, ordered))


def notices_of(bundle: BundleIdentity | None) -> tuple[str, ...]:
    """The notices on every output of these weights; None: of a study without findings."""
    return (bundle.trained_on if bundle else TrainedOn.CLINICAL).notices


def schema() -> dict[str, Any]:
    """The JSON schema of ``Result.to_json``."""
    return Result.model_json_schema(mode="serialization")


def _probabilities(finding: Finding) -> Probabilities | None:
    if finding.probabilities is None:
        return None
    normal_mild, moderate, severe = finding.probabilities
    return Probabilities(normal_mild=normal_mild, moderate=moderate, severe=severe)


def _reading_order(finding: FindingResult) -> tuple[int, int, int]:
    severities = (Severity.SEVERE, Severity.MODERATE, Severity.NORMAL_MILD, None)
    return (
        severities.index(finding.severity),
        finding.condition is not Condition.SPINAL_CANAL_STENOSIS,
        ALL_FINDINGS.index(finding.key),
    )
