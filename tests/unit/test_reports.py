"""The Structured Report as a PACS, a viewer and a validator read it."""

import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from highdicom.sr import PlanarROIMeasurementsAndQualitativeEvaluations
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from lumbar.reports import codes
from lumbar.reports.report import Predecessor, Report
from lumbar.reports.report_uids import series_uid
from lumbar.reports.sr import draft_sr
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level
from lumbar.spine.findings import Finding, ImagePoint
from lumbar.spine.provenance import RESEARCH_USE_ONLY, BundleIdentity, Provenance, TrainedOn
from tests.factories.reports import (
    BUNDLE,
    CREATED,
    PROVENANCE,
    REASON,
    SERIES,
    STUDY,
    assessed,
    build,
    items,
    minimal_header,
    mixed,
    nothing_assessed,
    one,
    point,
    read,
    source,
    standard,
    texts,
)


def test_each_finding_has_its_own_measurement_group() -> None:
    content = read(standard()).content
    groups = content.get_image_measurement_groups() + content.get_planar_roi_measurement_groups()

    assert {group.tracking_identifier for group in groups} == {
        f"{k.condition}_{k.level}" for k in ALL_FINDINGS
    }
    assert len({group.tracking_uid for group in groups}) == len(groups) == 25


def group_of(report: Report, key: FindingKey) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """The one group of an assessed finding."""
    groups = read(report).content.get_planar_roi_measurement_groups()
    (group,) = (
        group for group in groups if group.tracking_identifier == f"{key.condition}_{key.level}"
    )
    return group


def test_an_assessed_finding_has_a_site_a_severity_and_probabilities() -> None:
    key = FindingKey(Condition.RIGHT_SUBARTICULAR_STENOSIS, Level.L4_L5)

    group = group_of(standard(), key)

    assert group.finding_type == codes.CONDITIONS[key.condition]
    (site,) = group.finding_sites
    assert (site.value.value, site.laterality.meaning) == ("243923001", "Right")
    (severity,) = group.get_qualitative_evaluations(codes.SEVERITY)
    assert severity.value.value == "24484000"
    percentages = {m.name.value: (m.value, m.unit.value) for m in group.get_measurements()}
    assert percentages == {
        "P_NORMAL_MILD": (10.0, "%"),
        "P_MODERATE": (25.0, "%"),
        "P_SEVERE": (65.0, "%"),
        "P_VIEW": (90.0, "%"),
    }


def test_the_origin_of_a_point_is_the_corner_of_the_first_pixel() -> None:
    region = group_of(standard(), ALL_FINDINGS[-1]).roi

    assert region.graphic_type.value == "POINT"
    assert region.value.tolist() == [[100.5, 50.75]]
    image = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert image.ReferencedSOPInstanceUID == point().sop_instance_uid
    assert "ReferencedFrameNumber" not in image


def test_the_canal_has_no_laterality() -> None:
    (site,) = group_of(
        standard(), FindingKey(Condition.SPINAL_CANAL_STENOSIS, Level.L5_S1)
    ).finding_sites

    assert site.laterality is None


def test_a_finding_not_assessed_has_a_reason_and_no_measurements() -> None:
    groups = read(standard()).content.get_image_measurement_groups()

    assert len(groups) == 5
    for group in groups:
        assert f"Not assessed: {REASON}" in texts(group[0])
        assert group.get_measurements() == []
        assert group.source_images[0].referenced_sop_instance_uid == source().SOPInstanceUID


def test_a_point_in_a_multi_frame_image_references_its_frame() -> None:
    multi_frame = minimal_header()
    multi_frame.SOPClassUID, multi_frame.NumberOfFrames = EnhancedMRImageStorage, 20
    multi_frame.Rows, multi_frame.Columns = 320, 256

    report = build([multi_frame], [assessed(key, point(frame=3)) for key in ALL_FINDINGS])

    image = group_of(report, ALL_FINDINGS[0]).roi.ContentSequence[0].ReferencedSOPSequence[0]
    assert image.ReferencedFrameNumber == 3
    assert image.ReferencedSOPClassUID == EnhancedMRImageStorage


def test_every_notice_is_in_the_tree_and_research_use_on_the_series() -> None:
    document = read(standard())

    in_tree = texts(document)
    assert len(PROVENANCE.notices) == 3
    assert [text for text in in_tree if text in PROVENANCE.notices] == list(PROVENANCE.notices)
    assert RESEARCH_USE_ONLY in document.SeriesDescription
    assert len(document.SeriesDescription) <= 64


def test_a_caveat_comes_after_the_notices_and_before_the_measurements() -> None:
    caveat = "the numbering is uncertain: another numbering fits almost as well"
    document = read(draft_sr([source()], mixed(), PROVENANCE, caveats=[caveat]).finish(CREATED))

    in_tree = texts(document)
    at = in_tree.index(f"Caution: {caveat}")
    assert at == in_tree.index(PROVENANCE.notices[-1]) + 1
    assert all(not text.startswith("Not assessed") for text in in_tree[:at])


def test_the_document_is_complete_preliminary_and_unverified() -> None:
    document = read(standard())

    assert (document.CompletionFlag, document.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert document.PreliminaryFlag == "PRELIMINARY"
    assert document.Manufacturer == "lumbar-triage"
    assert document.SoftwareVersions == "0.1.0"
    assert document.PerformedProcedureCodeSequence[0].CodeValue == "24968-0"
    assert (
        document.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator
        == codes.PRIVATE_SCHEME
    )
    assert (document.ContentDate, document.ContentTime) == ("20260304", "050607")


def test_the_algorithm_names_its_weights() -> None:
    in_tree = texts(read(standard()))

    assert f"weights_sha256={BUNDLE.weights_sha256}" in in_tree
    assert "bundle=baseline 1 (untrained)" in in_tree
    assert "preprocessing_version=1" in in_tree


def test_retraining_makes_another_device() -> None:
    retrained = Provenance(
        BundleIdentity("baseline", "2", "ef" * 32, TrainedOn.SYNTHETIC, "1"), "0.1.0", "", (), ""
    )

    before, after = (
        read(build(findings=one(), provenance=p)).ContributingEquipmentSequence[0].DeviceUID
        for p in (PROVENANCE, retrained)
    )

    assert before != after


@pytest.mark.slow
def test_equal_inputs_in_any_order_give_equal_bytes() -> None:
    forwards = build([source(1), source(2)], mixed())
    backwards = build([source(2), source(1)], mixed()[::-1])

    assert forwards.content == backwards.content
    assert forwards.sha256 == backwards.sha256


def test_the_file_carries_the_report_uids() -> None:
    report = standard()

    document = read(report)

    assert document.SOPInstanceUID == report.sop_instance_uid
    assert (
        document.SeriesInstanceUID
        == report.series_instance_uid
        == series_uid(STUDY, PROVENANCE, "sr")
    )
    assert document.file_meta.MediaStorageSOPInstanceUID == report.sop_instance_uid
    assert document.StudyInstanceUID == STUDY


def test_patient_and_study_are_copied_from_the_images() -> None:
    document = read(standard())

    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
    ):
        assert document[keyword].value == source()[keyword].value
    assert (document.StudyDate, document.StudyTime) == ("20260304", "010203")


@pytest.mark.parametrize(
    "name", ["Yamada^Tarou=山田^太郎=やまだ^たろう", "ヤマダ", "Müller^Jürgen", "Anonymous"]
)
def test_a_name_is_converted_from_its_character_set(name: str) -> None:
    header = source()
    header.SpecificCharacterSet = ["", "ISO 2022 IR 87"] if "ü" not in name else "ISO_IR 100"
    header.PatientName = name
    file = BytesIO()
    header.save_as(file, implicit_vr=False, little_endian=True)

    document = read(build([dcmread(BytesIO(file.getvalue()), force=True)], one()))

    assert document.SpecificCharacterSet == "ISO_IR 192"
    assert str(document.PatientName) == name


def test_headers_with_only_uids_are_enough() -> None:
    document = read(build([minimal_header()], nothing_assessed()))

    assert (document.PatientName, document.PatientID, document.StudyDate, document.PatientSex) == (
        "",
        "",
        "",
        "",
    )
    assert len(document.content.get_image_measurement_groups()) == 25


def test_unreadable_dates_and_an_unknown_sex_are_left_empty() -> None:
    header = source()
    file = BytesIO()
    header.save_as(file, implicit_vr=False, little_endian=True)
    damaged = (
        file.getvalue().replace(b"19700102", b"1970XX02").replace(b"CS\x02\x00F ", b"CS\x02\x00X ")
    )

    document = read(build([dcmread(BytesIO(damaged), force=True)], one()))

    assert (document.PatientBirthDate, document.PatientSex) == ("", "")
    assert document.StudyDate == "20260304"


def test_the_image_library_describes_only_a_complete_geometry() -> None:
    no_thickness = source(2)
    no_thickness.SliceThickness = None

    library = items(read(build([source(1), no_thickness], one())), "CONTAINER")[1]

    assert [spacings_in(image) for image in items(library, "IMAGE")] == [2, 0]


def spacings_in(image: Dataset) -> int:
    """How many spacings an entry of the image library has."""
    names = [item.ConceptNameCodeSequence[0].CodeMeaning for item in items(image, "NUM")]
    return sum(name.endswith("Spacing") for name in names)


def test_a_new_report_references_its_predecessor() -> None:
    old = Predecessor("1.2.3.4", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3.4.5")

    (study,) = read(build(findings=one(), predecessors=[old])).PredecessorDocumentsSequence

    assert study.StudyInstanceUID == STUDY
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.4"
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"


def test_an_instance_that_is_not_an_image_is_evidence_only() -> None:
    document = source()
    document.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"

    tree = read(build([document], nothing_assessed()))

    assert items(tree, "IMAGE") == []
    evidence = (
        tree.CurrentRequestedProcedureEvidenceSequence[0]
        .ReferencedSeriesSequence[0]
        .ReferencedSOPSequence[0]
    )
    assert evidence.ReferencedSOPInstanceUID == document.SOPInstanceUID


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        ([*mixed(), mixed()[0]], "only once"),
        ([assessed(ALL_FINDINGS[0], point(number=5))], "not among the sources"),
        (
            [
                assessed(
                    ALL_FINDINGS[0],
                    ImagePoint(SERIES, MRImageStorage, f"{SERIES}.1", None, 255.5, 0, 0, 0, 0),
                )
            ],
            "outside",
        ),
    ],
)
def test_duplicate_findings_and_points_outside_the_sources_are_refused(
    findings: list[Finding], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(findings=findings)


def test_a_report_without_any_instance_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one instance"):
        build([])


@pytest.fixture(params=["full headers", "bare headers", "multi-frame", "successor"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    enhanced = source()
    enhanced.SOPClassUID = EnhancedMRImageStorage
    report = {
        "full headers": lambda: build([source(1), source(2)]),
        "bare headers": lambda: build([minimal_header()], nothing_assessed()),
        "multi-frame": lambda: build(
            [enhanced], [assessed(key, point(frame=2)) for key in ALL_FINDINGS]
        ),
        "successor": lambda: build(
            predecessors=[Predecessor("1.2.3", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.4")]
        ),
    }[request.param]()
    path = tmp_path / "sr.dcm"
    path.write_bytes(report.content)
    return path


def test_dciodvfy_finds_no_error(file: Path) -> None:
    completed = subprocess.run(
        ["dciodvfy", "-filename", file], capture_output=True, text=True, check=False
    )

    assert "Comprehensive3DSR" in completed.stderr
    assert [line for line in completed.stderr.splitlines() if "Error" in line] == []


@pytest.mark.slow
def test_dcmtk_prints_the_whole_tree(file: Path) -> None:
    completed = subprocess.run(
        ["dsrdump", "+Pl", file], capture_output=True, text=True, check=False
    )

    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.count('Measurement Group"') == 25
    assert RESEARCH_USE_ONLY in completed.stdout
