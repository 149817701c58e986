"""The 25 findings as a Comprehensive 3D SR (TID 1500): preliminary, marked for research use only.

There is one measurement group per finding: TID 1410 around a point if it was assessed, TID 1501
with the reason if not. See PS3.3 A.35.13, PS3.16 TID 1500, and IHE AI Results for this encoding.
"""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from highdicom import ContributingEquipment
from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.valuerep import DT

from lumbar.reports import codes
from lumbar.reports.creator import MANUFACTURER, SERIES_NAME, SERIES_NUMBER
from lumbar.reports.report import DRAFT_TIME, DRAFT_UID, Draft
from lumbar.reports.report_uids import device_uid, series_uid, tracking_uid
from lumbar.reports.sources import (
    copy_issuer_of_accession_number,
    copy_patient_and_study,
    evidence_of,
    is_mr_image,
    library_entries,
    requested_procedures,
    utc_offset,
)
from lumbar.spine.anatomy import ALL_FINDINGS, Severity
from lumbar.spine.findings import Finding, ImagePoint, Probabilities
from lumbar.spine.provenance import RESEARCH_USE_ONLY, Provenance

SERIES_DESCRIPTION = f"{SERIES_NAME} {RESEARCH_USE_ONLY}"  # LO: at most 64 characters
OUTPUT = "sr"

_MeasurementGroup = (
    MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations
)


def draft_sr(
    sources: Sequence[Dataset],
    findings: Sequence[Finding],
    provenance: Provenance,
    *,
    caveats: Sequence[str] = (),
    study: Dataset | None = None,
) -> Draft:
    """The Structured Report of one study, without time and identity.

    Equal arguments give equal bytes, whatever the order of the sequences. The text is UTF-8
    (ISO_IR 192).

    Args:
        sources: Headers of one study: of the instances that the findings' points reference, or of
            any instance if nothing was assessed. Values missing from a header stay empty.
        findings: Each finding at most once.
        provenance: What the findings were made with; its notices come first in the report.
        caveats: Written after the notices and before the measurements.
        study: What the report states of patient and study; None: what the first source states.

    Raises:
        ValueError: there is no source, a finding occurs twice, or a point references an instance
            that is not among the sources or lies outside its image.
    """
    if not sources:
        raise ValueError("a report needs at least one instance of the study")
    sources = sorted(sources, key=lambda source: (not is_mr_image(source), source.SOPInstanceUID))
    findings = sorted(findings, key=lambda finding: ALL_FINDINGS.index(finding.key))
    if len({finding.key for finding in findings}) < len(findings):
        raise ValueError("a finding may occur only once in a report")
    _check_points(findings, {source.SOPInstanceUID: source for source in sources})

    study_uid = sources[0].StudyInstanceUID
    document = Comprehensive3DSR(
        evidence=[evidence_of(source) for source in sources],
        content=_content(sources, findings, provenance, caveats),
        series_instance_uid=series_uid(study_uid, provenance, OUTPUT),
        series_number=SERIES_NUMBER,
        sop_instance_uid=DRAFT_UID,
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        device_serial_number=provenance.bundle.version,
        software_versions=provenance.code_version,
        series_description=SERIES_DESCRIPTION,
        specific_character_set="ISO_IR 192",
        coding_schemes=[codes.private_scheme()],
        performed_procedure_codes=[codes.PROCEDURE_PERFORMED],
        contributing_equipment=[_equipment(provenance)],
        requested_procedures=requested_procedures(sources) or None,
        is_complete=True,
        content_date=DRAFT_TIME.date(),
        content_time=DRAFT_TIME.time(),
    )
    # highdicom sets these to the current time, and adds itself to the equipment with it.
    document.InstanceCreationDate = document.ContentDate
    document.InstanceCreationTime = document.ContentTime
    for equipment in document.ContributingEquipmentSequence:
        equipment.ContributionDateTime = DT(DRAFT_TIME)
    copy_patient_and_study(document, sources[0] if study is None else study)
    copy_issuer_of_accession_number(document, sources)
    if offset := utc_offset(sources):
        document.TimezoneOffsetFromUTC = offset
    file = BytesIO()
    document.save_as(file, enforce_file_format=True)
    return Draft(OUTPUT, file.getvalue())


def _check_points(findings: Sequence[Finding], sources: dict[str, Dataset]) -> None:
    for point in (finding.point for finding in findings if finding.point):
        source = sources.get(point.sop_instance_uid)
        if source is None:
            raise ValueError(
                "a finding's point references an instance that is not among the sources"
            )
        rows, columns = source.get("Rows"), source.get("Columns")
        if (
            rows
            and columns
            and not (-0.5 <= point.column < columns - 0.5 and -0.5 <= point.row < rows - 0.5)
        ):
            raise ValueError(
                f"a finding's point lies outside its image: column {point.column}, row {point.row}"
            )


def _content(
    sources: Sequence[Dataset],
    findings: Sequence[Finding],
    provenance: Provenance,
    caveats: Sequence[str],
) -> MeasurementReport:
    algorithm = _algorithm(provenance)
    content = MeasurementReport(
        observation_context=_observer(provenance),
        procedure_reported=codes.PROCEDURE_REPORTED,
        imaging_measurements=[
            _measurement_group(finding, sources, algorithm) for finding in findings
        ],
        referenced_images=library_entries(sources),
    )
    for notice in reversed((*provenance.notices, *(f"Caution: {caveat}" for caveat in caveats))):
        _insert_before_measurements(content, notice)
    return content


def _measurement_group(
    finding: Finding,
    sources: Sequence[Dataset],
    algorithm: AlgorithmIdentification,
) -> _MeasurementGroup:
    side = finding.condition.side
    tracking = TrackingIdentifier(
        uid=tracking_uid(DRAFT_UID, finding.key),
        identifier=f"{finding.condition}_{finding.level}",
    )
    site = FindingSite(codes.LEVELS[finding.level], laterality=codes.SIDES[side] if side else None)
    if (
        finding.probabilities is None
        or finding.point is None
        or finding.shows is None
        or finding.severity is None
    ):
        images = [
            SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)
            for source in sources[:1]
            if is_mr_image(source)
        ]
        group = MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            finding_type=codes.CONDITIONS[finding.condition],
            finding_sites=[site],
            algorithm_id=algorithm,
            source_images=images,
        )
        group[0].ContentSequence.append(_comment(f"Not assessed: {finding.reason}"))
        return group
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        referenced_region=_point(finding.point),
        finding_type=codes.CONDITIONS[finding.condition],
        finding_sites=[site],
        algorithm_id=algorithm,
        qualitative_evaluations=[
            QualitativeEvaluation(codes.SEVERITY, codes.SEVERITIES[finding.severity])
        ],
        measurements=_percentages(finding.probabilities, finding.shows),
    )


def _point(point: ImagePoint) -> ImageRegion:
    """The SCOORD of a point.

    The origin of a SCOORD is the corner of the first pixel (PS3.3 C.18.6.1.1); that of an
    ``ImagePoint`` is its centre.
    """
    return ImageRegion(
        graphic_type=GraphicTypeValues.POINT,
        graphic_data=np.array([[point.column + 0.5, point.row + 0.5]]),
        source_image=SourceImageForRegion(
            referenced_sop_class_uid=point.sop_class_uid,
            referenced_sop_instance_uid=point.sop_instance_uid,
            referenced_frame_numbers=None if point.frame is None else [point.frame],
        ),
    )


def _percentages(probabilities: Probabilities, shows: float) -> list[Measurement]:
    pairs = [
        (codes.PROBABILITIES[severity], p)
        for severity, p in zip(Severity, probabilities, strict=True)
    ]
    return [
        Measurement(name=name, value=round(100 * float(p), 3), unit=codes.PERCENT)
        for name, p in [*pairs, (codes.VIEW_PROBABILITY, shows)]
    ]


def _algorithm(provenance: Provenance) -> AlgorithmIdentification:
    bundle = provenance.bundle
    return AlgorithmIdentification(
        name=f"{MANUFACTURER}: VGG16 (condition), ResNet-50 (severity)",
        version=provenance.code_version,
        family=codes.ARTIFICIAL_INTELLIGENCE,
        parameters=[
            f"bundle={bundle}",
            f"weights_sha256={bundle.weights_sha256}",
            f"preprocessing_version={bundle.preprocessing_version}",
            f"settings_sha256={provenance.settings_sha256}",
            f"inputs_sha256={provenance.inputs_sha256}",
        ],
    )


def _observer(provenance: Provenance) -> ObservationContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=device_uid(provenance),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=provenance.bundle.name,
        serial_number=provenance.bundle.version,
    )
    return ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=standard.DCM.Device, observer_identifying_attributes=device
        )
    )


def _equipment(provenance: Provenance) -> ContributingEquipment:
    equipment = ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.PROCESSING_EQUIPMENT,
        manufacturer_model_name=provenance.bundle.name,
        software_versions=[provenance.code_version, provenance.bundle.version],
        contribution_description=str(provenance.bundle),
    )
    equipment.DeviceUID = device_uid(provenance)
    return equipment


def _comment(text: str) -> TextContentItem:
    return TextContentItem(
        name=codes.COMMENT, value=text, relationship_type=RelationshipTypeValues.CONTAINS
    )


def _insert_before_measurements(content: MeasurementReport, notice: str) -> None:
    items = content[0].ContentSequence
    first = next(
        i
        for i, item in enumerate(items)
        if item.RelationshipType == RelationshipTypeValues.CONTAINS.value
    )
    items.insert(first, _comment(notice))
