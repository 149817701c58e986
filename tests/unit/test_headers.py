"""Headers of untrusted files: what is read, and what is refused for which reason."""

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, SecondaryCaptureImageStorage

from lumbar.dicom.headers import read_header, slice_headers
from lumbar.errors import LumbarError, NotDicom
from lumbar.spine.anatomy import Plane

SMALL = Path(str(get_testdata_file("MR_small.dcm", download=False)))


@pytest.fixture
def ds() -> Dataset:
    return deepcopy(read_header(SMALL))


def enhanced(ds: Dataset, frames: int) -> Dataset:
    """The same instance as Enhanced MR: orientation and timing shared, position per frame."""

    def dataset_with(**values: object) -> Dataset:
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        return item

    shared_groups = dataset_with(
        PlaneOrientationSequence=[dataset_with(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])],
        PixelMeasuresSequence=[dataset_with(PixelSpacing=[0.5, 0.75], SliceThickness=4)],
        MRTimingAndRelatedParametersSequence=[dataset_with(RepetitionTime=3500)],
        MREchoSequence=[dataset_with(EffectiveEchoTime=101.5)],
        MRModifierSequence=[
            dataset_with(InversionTimes=[160.0], SpectrallySelectedSuppression="FAT")
        ],
    )
    own_groups = [
        dataset_with(PlanePositionSequence=[dataset_with(ImagePositionPatient=[4 * n, 10, 20])])
        for n in range(frames)
    ]
    for keyword in (
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "PixelSpacing",
        "RepetitionTime",
        "EchoTime",
    ):
        delattr(ds, keyword)
    ds.SOPClassUID = EnhancedMRImageStorage
    ds.NumberOfFrames = frames
    ds.EchoPulseSequence = "SPIN"
    del ds.ScanningSequence
    ds.SharedFunctionalGroupsSequence = Sequence([shared_groups])
    ds.PerFrameFunctionalGroupsSequence = Sequence(own_groups)
    return ds


def test_a_single_frame_header_is_read(ds: Dataset) -> None:
    (header,) = slice_headers(ds)
    assert header.frame is None
    assert (header.rows, header.columns) == (64, 64)
    assert header.position == (-83.9063, -91.2, 6.6406)
    assert header.spacing == (0.3125, 0.3125)
    assert header.plane == Plane.AXIAL
    assert (header.repetition_time, header.echo_time) == (4000.0, 240.0)
    assert header.scanning_sequence == ("SE",)


def test_the_pixels_are_not_read(ds: Dataset) -> None:
    assert "PixelData" not in ds


def test_enhanced_mr_gives_one_header_per_frame(ds: Dataset) -> None:
    headers = slice_headers(enhanced(ds, 3))
    assert [h.frame for h in headers] == [1, 2, 3]
    assert [h.position[0] for h in headers] == [0, 4, 8]
    last = headers[-1]
    assert last.plane == Plane.SAGITTAL
    assert last.spacing == (0.5, 0.75)
    assert (last.repetition_time, last.echo_time, last.inversion_time) == (3500, 101.5, 160)
    assert last.scanning_sequence == ("SE",)
    assert "FS" in last.scan_options


def test_a_frames_own_group_takes_precedence_over_the_shared_one(ds: Dataset) -> None:
    enhanced(ds, 2)
    measures = Dataset()
    measures.PixelSpacing = [1.5, 1.5]
    ds.PerFrameFunctionalGroupsSequence[1].PixelMeasuresSequence = [measures]
    assert [h.spacing for h in slice_headers(ds)] == [(0.5, 0.75), (1.5, 1.5)]


@pytest.mark.parametrize("zero", [0, -1])
def test_a_zero_or_negative_value_is_none_and_the_next_one_counts(ds: Dataset, zero: int) -> None:
    enhanced(ds, 2)
    (shared,) = ds.SharedFunctionalGroupsSequence
    ds.EchoTime = 114
    shared.MREchoSequence[0].EffectiveEchoTime = zero
    own = ds.PerFrameFunctionalGroupsSequence[0]
    own.PixelMeasuresSequence = [Dataset()]
    own.PixelMeasuresSequence[0].PixelSpacing = [zero, zero]
    own.PixelMeasuresSequence[0].SliceThickness = zero
    own.PlaneOrientationSequence = [Dataset()]
    own.PlaneOrientationSequence[0].ImageOrientationPatient = [0] * 6
    own.MRTimingAndRelatedParametersSequence = [Dataset()]
    own.MRTimingAndRelatedParametersSequence[0].RepetitionTime = zero
    own.MRModifierSequence = [Dataset()]
    own.MRModifierSequence[0].InversionTimes = zero
    first, second = slice_headers(ds)
    assert replace(first, frame=2, position=second.position) == second
    assert (first.spacing, first.thickness) == ((0.5, 0.75), 4)
    assert (first.repetition_time, first.echo_time, first.inversion_time) == (3500, 114, 160)


def test_times_and_thickness_of_zero_are_unknown(ds: Dataset) -> None:
    ds.RepetitionTime = ds.EchoTime = ds.SliceThickness = ds.InversionTime = 0
    (header,) = slice_headers(ds)
    assert (header.repetition_time, header.echo_time, header.thickness) == (None, None, None)
    assert header.inversion_time == 0


@pytest.mark.parametrize("number", [0, None])
def test_a_single_frame_image_may_state_no_frames(ds: Dataset, number: int | None) -> None:
    ds.NumberOfFrames = number
    assert len(slice_headers(ds)) == 1


def test_other_spacings_do_not_stand_in_for_the_pixel_spacing(ds: Dataset) -> None:
    ds.PixelSpacing = [0, 0]
    ds.ImagerPixelSpacing = ds.NominalScannedPixelSpacing = [0.5, 0.5]
    with pytest.raises(NotDicom, match="PixelSpacing is not positive"):
        slice_headers(ds)


@pytest.mark.parametrize("tag", [0x2005140F, 0x00089215])
def test_only_the_standards_macros_are_functional_groups(ds: Dataset, tag: int) -> None:
    """Philips puts the attributes of a single-frame image into (2005,140F) of each frame."""
    expected = slice_headers(enhanced(ds, 2))
    other = Dataset()
    other.EchoTime = other.EffectiveEchoTime = 8
    other.RepetitionTime, other.InversionTimes, other.SliceThickness = 450, 99.0, 9
    other.PixelSpacing, other.ImageOrientationPatient = [9, 9], [1, 0, 0, 0, 1, 0]
    for group in (*ds.PerFrameFunctionalGroupsSequence, *ds.SharedFunctionalGroupsSequence):
        group.add_new(0x20050014, "LO", "Philips MR Imaging DD 005")
        group.add_new(tag, "SQ", [other])
    assert slice_headers(ds) == expected


def test_frames_without_their_groups_are_refused(ds: Dataset) -> None:
    enhanced(ds, 2).NumberOfFrames = 3
    with pytest.raises(NotDicom, match="NumberOfFrames"):
        slice_headers(ds)


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("ImagePositionPatient", None, "ImagePositionPatient is missing"),
        ("ImageOrientationPatient", None, "ImageOrientationPatient is missing"),
        ("PixelSpacing", None, "PixelSpacing is missing"),
        ("PixelSpacing", [0.5], "PixelSpacing does not hold 2 numbers"),
        ("PixelSpacing", [0.5, 0], "not positive"),
        ("PixelSpacing", [-0.5, 0.5], "not positive"),
        ("PixelSpacing", [0.75, 1e-5], "not within"),
        ("PixelSpacing", [0.75, 1e5], "not within"),
        ("ImagePositionPatient", [0, 1e6, 0], "from the origin"),
        ("ImageOrientationPatient", [1, 0, 0, 0, 0.99, 0], "right angle"),
        ("ImageOrientationPatient", [1, 0, 0, 0.01, 0.99995, 0], "right angle"),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0], "right angle"),
        ("Rows", 0, "Rows"),
        ("Columns", None, "Columns"),
        ("Modality", "CT", "not an MR image"),
        ("SOPClassUID", SecondaryCaptureImageStorage, "not an MR image"),
        ("SOPInstanceUID", "", "SOPInstanceUID is missing"),
        ("NumberOfFrames", 12, "multi-frame"),
        ("StudyInstanceUID", ["1.2", "1.3"], "StudyInstanceUID holds several values"),
        ("ImageOrientationPatient", [1, 0, 0, 0, 0.98, 0], "right angle"),
        ("ImageOrientationPatient", [0.9, 0, 0.43, 0, 1, 0.05], "right angle"),
    ],
)
def test_a_header_without_a_valid_geometry_is_refused_with_a_reason(
    ds: Dataset, keyword: str, value: object, reason: str
) -> None:
    setattr(ds, keyword, value)
    with pytest.raises(NotDicom, match=reason):
        slice_headers(ds)


@pytest.mark.parametrize(
    ("agent", "given"),
    [
        *((agent, True) for agent in ("11 ml Omniscan", "GADOVIST", "YES", "1", "NON-IONIC", "iv")),
        *(
            (agent, False)
            for agent in ("", "NONE", "None given", "no", "NO CONTRAST", "N/A", "n.a.")
        ),
        *(
            (agent, False)
            for agent in ("-", "--", "0", "0.0 ml", "without", "w/o contrast", "ohne KM")
        ),
        *((agent, False) for agent in ("NON CONTRAST", "noncontrast", "unenhanced", "nil", "?")),
    ],
)
def test_a_contrast_agent_that_was_not_given_is_none(ds: Dataset, agent: str, given: bool) -> None:
    ds.ContrastBolusAgent = agent
    (header,) = slice_headers(ds)
    assert header.contrast_agent is given


@pytest.mark.parametrize(
    ("codes", "given"),
    [
        ([("C-17800", "Gadolinium")], True),
        ([("R-40775", "")], False),
        ([("260413007", "None")], False),
        ([("X1", "no contrast")], False),
        ([("X1", "no contrast"), ("C-17800", "Gadolinium")], True),
        ([], False),
    ],
)
def test_the_code_for_no_contrast_agent_is_none(
    ds: Dataset, codes: list[tuple[str, str]], given: bool
) -> None:
    ds.ContrastBolusAgent = ""
    ds.ContrastBolusAgentSequence = [Dataset() for _ in codes]
    for item, (code, meaning) in zip(ds.ContrastBolusAgentSequence, codes, strict=True):
        item.CodeValue, item.CodeMeaning = code, meaning
    (header,) = slice_headers(ds)
    assert header.contrast_agent is given


@pytest.mark.parametrize("administered", ["YES", "NO"])
def test_a_frame_states_whether_the_agent_was_given(ds: Dataset, administered: str) -> None:
    enhanced(ds, 1).ContrastBolusAgent = "GADOVIST"
    usage = Dataset()
    usage.ContrastBolusAgentAdministered = administered
    ds.PerFrameFunctionalGroupsSequence[0].ContrastBolusUsageSequence = [usage]
    (header,) = slice_headers(ds)
    assert header.contrast_agent is (administered == "YES")


def test_a_slightly_imprecise_orientation_is_made_exact(ds: Dataset) -> None:
    ds.ImageOrientationPatient = [0.9995, 0, 0, 0.0005, 1.0005, 0]
    (header,) = slice_headers(ds)
    assert header.orientation == pytest.approx((1, 0, 0, 0, 1, 0), abs=1e-12)


@given(
    st.lists(st.floats(-math.pi, math.pi), min_size=3, max_size=3), st.sampled_from((2, 3, 4, 6))
)
def test_any_orientation_rounded_to_two_decimals_or_more_is_read(
    angles: list[float], decimals: int
) -> None:
    exact = np.eye(3)
    for angle in angles:
        exact = np.roll(exact, 1, axis=0) @ rotation(angle)
    ds = deepcopy(read_header(SMALL))
    ds.ImageOrientationPatient = [f"{v:.{decimals}f}" for v in exact[:2].ravel()]
    (header,) = slice_headers(ds)
    np.testing.assert_allclose(header.orientation, exact[:2].ravel(), atol=3 * 10**-decimals)
    assert abs(header.along_row @ header.down_column) < 1e-9


def rotation(angle: float) -> NDArray[np.float64]:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def with_bytes(path: Path, element: bytes, value: bytes) -> Path:
    """The small file with other bytes in an element, given by its encoded tag and VR."""
    content = SMALL.read_bytes()
    at = content.index(element) + 6
    length = int.from_bytes(content[at : at + 2], "little")
    path.write_bytes(
        content[:at] + len(value).to_bytes(2, "little") + value + content[at + 2 + length :]
    )
    return path


@pytest.mark.parametrize("value", [b"", b"fast", b"nan ", b"1e999 "])
def test_a_time_that_is_not_a_number_is_unknown(tmp_path: Path, value: bytes) -> None:
    (header,) = slice_headers(
        read_header(with_bytes(tmp_path / "d.dcm", b"\x18\x00\x80\x00DS", value))
    )
    assert header.repetition_time is None
    assert header.echo_time == 240


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"0.5\\mm", "hold 2 numbers"),
        (b"0.5\\nan ", "hold 2 numbers"),
        (b"0,5\\0,5 ", "hold 2"),
        (b"", "is missing"),
    ],
)
def test_a_spacing_that_is_not_a_number_is_refused_by_name(
    tmp_path: Path, value: bytes, reason: str
) -> None:
    damaged = with_bytes(tmp_path / "d.dcm", b"\x28\x00\x30\x00DS", value)
    with pytest.raises(NotDicom, match=f"PixelSpacing.*{reason}"):
        slice_headers(read_header(damaged))


def test_a_header_whose_types_are_all_unknown_is_read(tmp_path: Path) -> None:
    """Some archives write UN for everything; the dictionary knows better."""
    content = Path(str(get_testdata_file("MR_small_implicit.dcm", download=False))).read_bytes()
    syntax = content.index(b"1.2.840.10008.1.2\0")
    unknown = bytearray(content[:syntax] + b"1.2.840.10008.1.2.1\0" + content[syntax + 18 :])
    unknown[syntax - 2] += 2  # the element's length
    unknown[140] += 2  # the group's length
    at = start = 144 + int.from_bytes(unknown[140:144], "little")
    elements = b""
    while at < len(unknown):
        tag, length = unknown[at : at + 4], unknown[at + 4 : at + 8]
        end = at + 8 + int.from_bytes(length, "little")
        elements += tag + b"UN\0\0" + length + unknown[at + 8 : end]
        at = end
    (tmp_path / "unknown.dcm").write_bytes(bytes(unknown[:start]) + elements)
    assert slice_headers(read_header(tmp_path / "unknown.dcm")) == slice_headers(read_header(SMALL))


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 128 + b"DICM", b"\0" * 200])
def test_a_file_that_is_not_dicom_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(NotDicom):
        slice_headers(read_header(path))


def test_a_deflated_file_is_refused_before_it_is_inflated() -> None:
    with pytest.raises(NotDicom, match="deflated"):
        read_header(Path(str(get_testdata_file("image_dfl.dcm", download=False))))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotDicom, match="No such file"):
        read_header(tmp_path / "nowhere.dcm")


@given(st.data())
def test_damaged_headers_are_read_or_refused_without_any_other_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(SMALL.read_bytes()[:1700])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged-header.dcm"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        slice_headers(read_header(path))
    except LumbarError as error:
        reason = str(error)
    else:
        return
    assert "\n" not in reason


def test_real_enhanced_mr_is_read_frame_by_frame(real_files: Path) -> None:
    headers = slice_headers(read_header(real_files / "not-lumbar/enhanced-mr-brain-multiframe.dcm"))
    assert [h.frame for h in headers] == list(range(1, 16))
    assert {h.plane for h in headers} == {Plane.SAGITTAL}
    assert headers[0].position == (40, -105, 105)
    assert headers[0].repetition_time == 400
    assert headers[0].echo_time == pytest.approx(14, abs=0.001)
    assert len({h.position for h in headers}) == 15


def test_a_real_low_field_header_is_read(real_files: Path) -> None:
    (header,) = slice_headers(read_header(real_files / "lumbar/hitachi-0.3T-parasagittal-t2.dcm"))
    assert header.plane == Plane.SAGITTAL
    assert (header.repetition_time, header.echo_time, header.inversion_time) == (3500, 125, 0)
    assert not header.contrast_agent
