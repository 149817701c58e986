"""What headers of files given by hand lack is inferred from the rest; at the receiver it is not."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from lumbar.dicom.discover import MRInstance, find_instances
from lumbar.dicom.headers import read_header
from lumbar.dicom.instance_identity import identity_of
from lumbar.dicom.missing_elements import IDENTIFIERS, infer_uids
from lumbar.errors import NotAnalysable
from lumbar.spine.anatomy import ALL_FINDINGS
from lumbar.spine.findings import Finding, ImagePoint
from lumbar.spine.roles import Roles
from lumbar.study_attributes import agreed
from tests.factories.instances import ROOT, make_slice
from tests.factories.reports import CREATED
from tests.stub_networks import StubNetworks
from worker.analysis import draft_report, provenance_of, stated_by, why_no_report
from worker.pipeline import Analysis

Change = Callable[[Dataset], object]


def write(folder: Path, series: int = 1, number: int = 1, change: Change = lambda ds: None) -> Path:
    file = folder / str(series) / f"{number}.dcm"
    file.parent.mkdir(parents=True, exist_ok=True)
    ds = make_slice(1, series, number)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.preamble = bytes(128)
    change(ds)
    ds.save_as(file)
    return file


def without(*keywords: str) -> Change:
    def remove(ds: Dataset) -> None:
        for keyword in keywords:
            ds.pop(keyword, None)

    return remove


def with_meta_class(uid: str, *missing: str) -> Change:
    def change(ds: Dataset) -> None:
        ds.file_meta.MediaStorageSOPClassUID = uid
        without("SOPClassUID", *missing)(ds)

    return change


def enhanced(uid: str) -> Change:
    def change(ds: Dataset) -> None:
        with_meta_class(uid, "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")(ds)
        plane, place, measures, groups = Dataset(), Dataset(), Dataset(), Dataset()
        plane.ImageOrientationPatient, place.ImagePositionPatient = [0, 1, 0, 0, 0, -1], [1, 2, 3]
        measures.PixelSpacing = [1, 1]
        groups.PlaneOrientationSequence, groups.PlanePositionSequence = [plane], [place]
        groups.PixelMeasuresSequence = [measures]
        ds.PerFrameFunctionalGroupsSequence, ds.NumberOfFrames = [groups], 1

    return change


def read(folder: Path) -> list[MRInstance]:
    instances, rejected = find_instances(folder, folder)
    assert rejected == []
    return instances


def refusal(folder: Path) -> str:
    with pytest.raises(NotAnalysable) as error:
        find_instances(folder, folder)
    return str(error.value)


@pytest.mark.parametrize("meta", [EnhancedMRImageStorage, MRImageStorage, ""])
@pytest.mark.parametrize("modality", [None, "", "MR"])
def test_a_single_slice_without_a_class_is_an_mr_image(
    tmp_path: Path, meta: str, modality: str | None
) -> None:
    def change(ds: Dataset) -> None:
        with_meta_class(meta)(ds)
        del ds.Modality
        if modality is not None:
            ds.Modality = modality

    write(tmp_path, change=change)
    (instance,) = read(tmp_path)
    assert instance.slices[0].sop_class_uid == MRImageStorage
    assert instance.slices[0].frame is None
    assert not instance.made_up


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ("", EnhancedMRImageStorage),
        (EnhancedMRImageStorage, EnhancedMRImageStorage),
        (MRImageStorage, EnhancedMRImageStorage),
        (LegacyConvertedEnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage),
    ],
)
def test_functional_groups_without_a_class_are_enhanced_mr(
    tmp_path: Path, meta: str, expected: str
) -> None:
    write(tmp_path, change=enhanced(meta))
    (instance,) = read(tmp_path)
    assert instance.slices[0].sop_class_uid == expected
    assert instance.slices[0].frame == 1


def other_modality(ds: Dataset) -> None:
    without("SOPClassUID")(ds)
    ds.Modality = "CT"


def with_tube_voltage(ds: Dataset) -> None:
    with_meta_class("", "Modality")(ds)
    ds.KVP = 120


@pytest.mark.parametrize(
    "change",
    [with_meta_class(CTImageStorage), other_modality, with_tube_voltage],
    ids=["its meta information", "its modality", "its attributes"],
)
def test_an_image_of_another_modality_is_not_taken_for_mr(tmp_path: Path, change: Change) -> None:
    write(tmp_path, change=change)
    assert "not an MR image" in refusal(tmp_path)


def test_several_frames_without_functional_groups_get_no_class(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        with_meta_class(MRImageStorage)(ds)
        ds.NumberOfFrames = 2

    write(tmp_path, change=change)
    assert "without functional groups" in refusal(tmp_path)


@pytest.mark.slow
@given(missing=st.sets(st.sampled_from(IDENTIFIERS), min_size=1), one=st.integers(0, 3))
def test_one_file_without_uids_belongs_to_the_others(
    tmp_path_factory: pytest.TempPathFactory, missing: set[str], one: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    for n in range(4):
        write(folder, number=n + 1, change=without(*missing) if n == one else without())
    for n, instance in enumerate(read(folder)):
        (header,) = instance.slices
        assert header.study_instance_uid == f"{ROOT}.1"
        assert header.series_instance_uid == f"{ROOT}.1.1"
        assert header.frame_of_reference_uid == f"{ROOT}.1.9"
        assert header.sop_instance_uid == f"{ROOT}.1.1.{n + 1}"  # from the file meta information
        assert not instance.made_up


def test_files_without_any_uid_are_told_apart_by_file_and_series_by_folder(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        without(*IDENTIFIERS)(ds)
        del ds.file_meta.MediaStorageSOPInstanceUID

    for series in (1, 2):
        for n in (1, 2):
            write(tmp_path, series, n, change)
    instances = read(tmp_path)
    headers = [instance.slices[0] for instance in instances]
    assert len({header.study_instance_uid for header in headers}) == 1
    assert len({header.series_instance_uid for header in headers}) == 2
    assert len({header.sop_instance_uid for header in headers}) == 4
    assert {header.frame_of_reference_uid for header in headers} == {""}
    assert [header.file for header in headers] == [str(i.path) for i in instances]
    assert why_no_report(instances) == "images without UIDs cannot be referred to"


def test_a_uid_that_is_none_is_lent_as_it_is(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Invalid value for VR UI"):
        write(tmp_path, number=1, change=lambda ds: setattr(ds, "StudyInstanceUID", "study 1"))
    write(tmp_path, number=2, change=without("StudyInstanceUID"))
    assert {i.slices[0].study_instance_uid for i in read(tmp_path)} == {"study 1"}


def test_a_file_without_a_study_among_two_studies_is_skipped(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2, change=lambda ds: setattr(ds, "StudyInstanceUID", "1.2.3"))
    write(tmp_path, 3, change=without("StudyInstanceUID"))
    instances, (rejected,) = find_instances(tmp_path, tmp_path)
    assert len(instances) == 2
    assert rejected.reason == "StudyInstanceUID is missing"


def test_files_that_are_not_mr_images_lend_no_uids(tmp_path: Path) -> None:
    image = read_header(write(tmp_path, 1, change=without("StudyInstanceUID")))
    report = read_header(write(tmp_path, 2))
    report.SOPClassUID, report.StudyInstanceUID = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.3"
    assert infer_uids({Path("a"): image, Path("b"): report}) == {Path("a")}
    assert image.StudyInstanceUID != "1.2.3"


def test_nothing_is_inferred_at_the_receiver(tmp_path: Path) -> None:
    file = write(tmp_path, change=with_meta_class(EnhancedMRImageStorage, "StudyInstanceUID"))
    identity = identity_of(read_header(file))
    assert (identity.sop_class_uid, identity.study_instance_uid) == ("", "")
    assert identity.role is None


def test_a_report_needs_unique_uids_but_a_copied_file_is_one_instance(tmp_path: Path) -> None:
    first = write(tmp_path, 1)
    (tmp_path / "copy.dcm").write_bytes(first.read_bytes())
    instances = read(tmp_path)
    assert why_no_report(instances) is None
    header = instances[0].slices[0]
    uids = (header.series_instance_uid, header.sop_class_uid, header.sop_instance_uid)
    point = ImagePoint(*uids, None, 1.0, 1.0, 0.0, 0.0, 0.0)
    graded = Finding(*ALL_FINDINGS[0].parts, probabilities=(1, 0, 0), point=point, shows=1)
    analysis = Analysis(header.study_instance_uid, (graded,), (), Roles({}, ()))
    attributes = agreed(stated_by(instances))
    provenance = provenance_of("0" * 64, StubNetworks(), instances, [], attributes)
    report = draft_report(analysis, instances, provenance, attributes).finish(CREATED)
    (evidence,) = dcmread(BytesIO(report.content)).CurrentRequestedProcedureEvidenceSequence
    (series,) = evidence.ReferencedSeriesSequence
    (reference,) = series.ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == header.sop_instance_uid
    other = dcmread(write(tmp_path, 2))
    other.SOPInstanceUID = f"{ROOT}.1.1.1"
    other.save_as(tmp_path / "2" / "1.dcm")
    assert "SOP Instance UIDs repeat" in (why_no_report(read(tmp_path)) or "")
