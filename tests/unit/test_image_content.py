"""What the pixels of an image mean: whether they are the signal of tissue, and if not, what."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage

from lumbar.dicom.discover import find_instances
from lumbar.dicom.headers import slice_headers
from lumbar.networks import Networks, load
from lumbar.phantoms import PhantomTruth
from lumbar.spine.anatomy import Role
from lumbar.spine.image_content import REASONS, objection
from lumbar.spine.roles import Roles, assign_roles
from lumbar.spine.slices import Content, SliceHeader
from tests.factories.headers import SLICE
from tests.factories.instances import make_slice
from tests.factories.series import anew, axial, places, sagittal, series_of
from worker.pipeline import Analysis, analyse


def typed(image_type: str) -> SliceHeader:
    return replace(SLICE, image_type=tuple(image_type.split("\\")))


def read_for_t2(*series: list[SliceHeader]) -> tuple[Roles, set[str]]:
    roles = assign_roles([header for one in series for header in one])
    stacks = roles.stacks.get(Role.SAGITTAL_T2, ())
    return roles, {uid for stack in stacks for uid in series_of(stack.slices)}


@pytest.mark.parametrize(
    "image_type",
    [
        r"ORIGINAL\PRIMARY",
        r"ORIGINAL\PRIMARY\OTHER",
        r"DERIVED\PRIMARY\OTHER",
        r"ORIGINAL\PRIMARY\M\ND\NORM",
        r"ORIGINAL\PRIMARY\M\NORM\DIS2D\FM4_1\FIL",
        r"ORIGINAL\PRIMARY\M\NORM\DIS2D\COMP_SP\COMPOSED",
        r"DERIVED\PRIMARY\M\DRG\NORM\DRS\IN_PHASE\DIS2D\MFSPLIT",
        r"DERIVED\PRIMARY\M\NORM\WATER\DIS2D\FM3_4\FIL\MFSPLIT",
        r"DERIVED\PRIMARY\M\DIS2D\NORM\MEAN\MFSPLIT",
        r"ORIGINAL\PRIMARY\MSUM\ND",
        r"ORIGINAL\PRIMARY\M_SE\M\SE",
        r"ORIGINAL\PRIMARY\M_FFE\M\FFE",
        r"ORIGINAL\PRIMARY\M_IR\M\IR",
        r"DERIVED\PRIMARY\W\W\DERIVED",
        r"DERIVED\PRIMARY\IP\IP\DERIVED",
        r"DERIVED\PRIMARY\DIXON\WATER",
        r"ORIGINAL\PRIMARY\T2\NONE",
        r"ORIGINAL\PRIMARY\T1\MIXED",
        r"ORIGINAL\PRIMARY\PROPELLER\NONE",
        r"DERIVED\PRIMARY\MAVRIC\MAVRIC_COMPOSITE",
        r"ORIGINAL\PRIMARY\OTHER\NONE\S\P",  # a letter is a kind only in value 3 or 4
    ],
)
def test_the_signal_of_tissue_is_read_however_a_vendor_writes_it(image_type: str) -> None:
    assert objection(typed(image_type)) is None


@pytest.mark.parametrize(
    ("image_type", "reason"),
    [
        (r"DERIVED\PRIMARY\DIXON\FAT_FRACTION", "a fat-fraction map"),
        (r"DERIVED\PRIMARY\M\FAT_FRAC\NORM", "a fat-fraction map"),
        (r"DERIVED\PRIMARY\FF\FF\DERIVED", "a fat-fraction map"),
        (r"DERIVED\PRIMARY\DIXON\WATER_FRACTION", "a water-fraction map"),
        (r"ORIGINAL\PRIMARY\P\ND", "a phase image"),
        (r"ORIGINAL\PRIMARY\PHASE MAP\P\SE", "a phase image"),
        (r"ORIGINAL\PRIMARY\R\NORM\DIS2D", "a real image"),
        (r"ORIGINAL\PRIMARY\R_IR\R\IR", "a real image"),
        (r"ORIGINAL\PRIMARY\CR_IR\CR\IR", "a real image"),
        (r"ORIGINAL\PRIMARY\PSIR\NORM", "a real image"),
        (r"ORIGINAL\PRIMARY\I_FFE\I\FFE", "an imaginary image"),
        (r"DERIVED\PRIMARY\F\F\DERIVED", "a Dixon fat image"),
        (r"DERIVED\PRIMARY\M\NORM\OPP_PHASE\DIS2D", "a Dixon opposed-phase image"),
        (r"DERIVED\PRIMARY\DIXON\NONE", "a Dixon image of which it is not stated what it shows"),
        (r"ORIGINAL\PRIMARY\B0 MAP\B0\UNSPECIFIED", "a field map"),
        (r"ORIGINAL\PRIMARY\M_B1\M\B1", "a field map"),
        (r"DERIVED\PRIMARY\T1 MAP\ND", "a T1 map"),
        (r"ORIGINAL\PRIMARY\T2 MAP\T2\UNSPECIFIED", "a T2 or T2* map"),
        (r"ORIGINAL\PRIMARY\T2_STAR_UNSPECIF\T2_STAR\UNSPECIFIED", "a T2 or T2* map"),
        (r"DERIVED\PRIMARY\T2* MAP", "a T2 or T2* map"),
        (r"DERIVED\PRIMARY\R2_STAR_MAP", "a T2 or T2* map"),
        (r"DERIVED\PRIMARY\QMAP\T2", "a parametric map"),
        (r"DERIVED\PRIMARY\M\MUSCLEMAP", "a parametric map"),
        (r"DERIVED\PRIMARY\DIFFUSION\ADC\NORM", "a diffusion-weighted image or a map of diffusion"),
        (r"ORIGINAL\PRIMARY\ADC_SE\ADC\SE", "a diffusion-weighted image or a map of diffusion"),
        (r"DERIVED\SECONDARY\EADC", "a diffusion-weighted image or a map of diffusion"),
        (r"DERIVED\PRIMARY\PERFUSION\RELCBF", "a perfusion image or map"),
        (r"ORIGINAL\PRIMARY\VELOCITY MAP\P\PCA", "a phase image"),
        (r"ORIGINAL\PRIMARY\V\ND", "an image of flow"),
        (r"ORIGINAL\PRIMARY\M\SWI\NORM", "a susceptibility image"),
        (r"DERIVED\PRIMARY\OTHER\SUBTRACT", "a subtraction of images"),
        (r"DERIVED\PRIMARY\M\NORM\SUB", "a subtraction of images"),
        (r"DERIVED\PRIMARY\T2\DIVISION", "calculated from several images"),
        (r"DERIVED\PRIMARY\T2\SYNTHETIC", "a synthetic contrast"),
        (r"DERIVED\PRIMARY\T2W_FLAIR_SYNTHETIC", "a synthetic contrast"),
        (r"ORIGINAL\PRIMARY\PROJECTION IMAG\M\SE", "a projection, not an original acquisition"),
        (r"ORIGINAL\PRIMARY\MIP_SAG\NORM", "a projection, not an original acquisition"),
        (r"DERIVED\PRIMARY\MNIP\ND", "a projection, not an original acquisition"),
        (r"DERIVED\PRIMARY\MPR\NORM\DIS2D", "not an original acquisition"),
        (r"DERIVED\PRIMARY\CPR_STAR\NORM", "not an original acquisition"),
    ],
)
def test_anything_else_is_refused_for_what_it_is(image_type: str, reason: str) -> None:
    assert objection(typed(image_type)) == reason
    series = [replace(s, image_type=typed(image_type).image_type) for s in sagittal(3)]
    roles, read = read_for_t2(series)
    assert read == set()
    assert roles.choices == (f"series 1 (15 sagittal slices, TR 3500 TE 100): refused, {reason}",)
    loose = assign_roles(series[:1])
    assert loose.stacks == {}
    assert loose.choices[0].endswith(f"refused, {reason}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (Content(component="PHASE"), "a phase image"),
        (Content(component="REAL"), "a real image"),
        (Content(component="IMAGINARY"), "an imaginary image"),
        (Content(contrast="DIFFUSION"), "a diffusion-weighted image or a map of diffusion"),
        (Content(contrast="PERFUSION"), "a perfusion image or map"),
        (Content(contrast="FLOW_ENCODED"), "an image of flow"),
        (Content(contrast="TAGGING"), "a tagged image"),
        (Content(b_value=800.0), "a diffusion-weighted image or a map of diffusion"),
        (Content(calculation="MAX_IP"), "a projection, not an original acquisition"),
        (Content(calculation="CURVED_MPR"), "not an original acquisition"),
        (Content(derivations=("113062",)), "a subtraction of images"),
        (Content(derivations=("113040", "113072")), "not an original acquisition"),
        (Content(units="%"), "a parametric map"),
        (Content(units="Cel"), "a temperature map"),
        (Content(component="MAGNITUDE"), None),
        (Content(contrast="T2", calculation="NONE", units="1", b_value=0.0), None),
        (Content(derivations=("113040",)), None),  # lossy compression
    ],
)
def test_other_elements_than_image_type_tell_it_too(content: Content, reason: str | None) -> None:
    assert objection(replace(typed(r"ORIGINAL\PRIMARY\OTHER"), content=content)) == reason


def test_a_mixture_is_read_only_where_the_frame_says_what_it_is() -> None:
    mixed = Content(component="MIXED")
    assert objection(replace(typed(r"ORIGINAL\PRIMARY\M\ND"), content=mixed)) is None
    assert objection(replace(typed(r"ORIGINAL\PRIMARY\T2\NONE"), content=mixed)) == (
        "an image of which it is not stated whether it shows magnitude or phase"
    )


@given(st.lists(st.text("MPRIFWT12*_ \\-MAPDIXON", max_size=16), max_size=6))
def test_any_image_type_is_read_or_refused_for_a_known_reason(values: list[str]) -> None:
    assert objection(replace(SLICE, image_type=tuple(values))) in (None, *REASONS)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("one_series", [True, False])
@pytest.mark.parametrize(
    ("wanted", "other"),
    [
        ("M", "P"),
        ("M", "R"),
        ("WATER", "FAT"),
        ("WATER", "FAT_FRACTION"),
        ("IN_PHASE", "OPP_PHASE"),
        ("IN_PHASE", "WATER"),
    ],
)
def test_the_right_image_is_read_whatever_the_numbers_and_the_series(
    wanted: str, other: str, one_series: bool, first: int
) -> None:
    """Siemens puts magnitude and phase, or the Dixon images, into one series or into several."""
    right = sagittal(3, image_type=("DERIVED", "PRIMARY", wanted, "ND"))
    wrong = [
        replace(
            s,
            sop_instance_uid=f"{s.sop_instance_uid}.1",
            image_type=("DERIVED", "PRIMARY", other, "ND"),
        )
        for s in right
    ]
    numbered = [
        replace(s, instance_number=15 * (first if header_list is right else 1 - first) + n)
        for header_list in (right, wrong)
        for n, s in enumerate(header_list)
    ]
    if not one_series:
        numbered = [*anew(numbered[:15], 3 + first), *anew(numbered[15:], 4 - first)]
    roles = assign_roles(numbered)
    (stack,) = roles.stacks[Role.SAGITTAL_T2]
    assert {header.image_type[2] for header in stack.slices} == {wanted}
    assert len(stack.slices) == 15
    assert roles.caveats == ()


def again(slices: list[SliceHeader], **values: object) -> list[SliceHeader]:
    """Other images at the same places of the same series, numbered on."""
    return [
        replace(
            s,
            sop_instance_uid=f"{s.sop_instance_uid}.1",
            instance_number=100 + s.instance_number,
            **values,  # type: ignore[arg-type]
        )
        for s in slices
    ]


@pytest.mark.parametrize("make", [sagittal, axial])
def test_images_at_one_place_that_nothing_tells_apart_are_a_caveat(
    make: Callable[..., list[SliceHeader]],
) -> None:
    series = make(3)
    roles = assign_roles([*sagittal(2, repetition_time=500.0, echo_time=12.0), *series])
    assert roles.caveats == ()
    roles = assign_roles(
        [*sagittal(2, repetition_time=500.0, echo_time=12.0), *series, *again(series)]
    )
    assert roles.caveats == (
        "series 2 has several images at the same place, and nothing in their headers tells them "
        "apart: the wrong ones may have been read",
    )


def test_a_few_such_images_are_a_caveat_too() -> None:
    assert assign_roles([*sagittal(3), *again(sagittal(3)[7:8])]).caveats != ()


def test_without_instance_numbers_a_copy_cannot_be_told_from_another_image() -> None:
    series = [replace(s, instance_number=0) for s in sagittal(3)]
    copies = [replace(s, sop_instance_uid=f"{s.sop_instance_uid}.1") for s in series]
    assert assign_roles([*series, *copies]).caveats != ()


def test_images_that_arrived_again_are_no_caveat() -> None:
    copies = [replace(s, sop_instance_uid=f"{s.sop_instance_uid}.1") for s in sagittal(3)]
    assert assign_roles([*sagittal(3), *sagittal(3), *copies]).caveats == ()


def test_a_copy_that_was_split_off_into_another_series_is_no_caveat() -> None:
    copy = replace(sagittal(3)[6], sop_instance_uid="1.2.3.6.1")
    slices = [*sagittal(3)[:7], copy, *sagittal(3)[7:]]
    assert assign_roles([*slices[0::2], *anew(slices[1::2], 4)]).caveats == ()


def test_a_repeat_in_a_series_of_its_own_is_no_caveat() -> None:
    assert assign_roles([*sagittal(3), *anew(sagittal(3), 4)]).caveats == ()


@pytest.mark.parametrize("element", ["echo_number", "temporal_position"])
@pytest.mark.parametrize("make", [sagittal, axial])
@pytest.mark.parametrize("number_first", [True, False])
def test_echoes_and_times_under_one_te_are_not_mixed(
    make: Callable[..., list[SliceHeader]], element: str, number_first: bool
) -> None:
    series = make(3)
    later = again(series, **{element: 2})
    if not number_first:
        series, later = (
            [replace(s, **{element: 1}) for s in again(series)],  # type: ignore[arg-type]
            [replace(s, **{element: 2}) for s in series],  # type: ignore[arg-type]
        )
    roles = assign_roles([*later, *series])
    (stack,) = roles.stacks[Role.SAGITTAL_T2 if make is sagittal else Role.AXIAL_T2]
    assert {getattr(header, element) for header in stack.slices} == {1}
    assert len(stack.slices) == len(series)
    assert roles.caveats == ()
    assert "not read, an earlier echo or time of series 1 is read" in roles.choices[0]


def test_echo_numbers_that_count_slices_do_not_divide_a_series() -> None:
    counted = [replace(s, echo_number=n) for n, s in enumerate(sagittal(3), 1)]
    expected = places(assign_roles(sagittal(3)))
    assert places(assign_roles(counted)) == expected
    assert places(assign_roles([*counted, *again(counted[:1])])) == expected


# From files


def header_of(ds: Dataset) -> SliceHeader:
    (header,) = slice_headers(ds)
    return header


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0, None),
        (1, "a phase image"),
        (2, "a real image"),
        (3, "an imaginary image"),
        (7, None),
        (b"\x01\x00", "a phase image"),
    ],
)
def test_ge_names_the_component_in_a_private_element(code: object, reason: str | None) -> None:
    ds = make_slice(ImageType=["ORIGINAL", "PRIMARY", "OTHER"])
    block = ds.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x2F, "UN" if isinstance(code, bytes) else "SS", code)
    assert objection(header_of(ds)) == reason


def test_the_private_element_of_another_vendor_means_nothing() -> None:
    ds = make_slice()
    ds.private_block(0x0043, "SOMEONE ELSE", create=True).add_new(0x2F, "SS", 1)
    assert objection(header_of(ds)) is None


def item(**values: object) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"ComplexImageComponent": "PHASE"}, "a phase image"),
        ({"DiffusionBValue": 500.0}, "a diffusion-weighted image or a map of diffusion"),
        ({"AcquisitionContrast": "PERFUSION"}, "a perfusion image or map"),
        ({"DerivationCodeSequence": [item(CodeValue="113062")]}, "a subtraction of images"),
        (
            {
                "RealWorldValueMappingSequence": [
                    item(MeasurementUnitsCodeSequence=[item(CodeValue="%")])
                ]
            },
            "a parametric map",
        ),
        ({"EchoNumbers": 2, "TemporalPositionIdentifier": 3}, None),
    ],
)
def test_public_elements_of_a_file_tell_what_it_is(
    values: dict[str, object], reason: str | None
) -> None:
    assert objection(header_of(make_slice(**values))) == reason


def test_echo_and_time_are_counted_from_one() -> None:
    header = header_of(make_slice(EchoNumbers=2, TemporalPositionIdentifier=3))
    assert (header.echo_number, header.temporal_position) == (2, 3)
    header = header_of(make_slice(EchoNumbers=0))  # Siemens
    assert (header.echo_number, header.temporal_position) == (1, 1)


def enhanced(frames: list[dict[str, object]], **root: object) -> Dataset:
    """Enhanced MR with one frame per dictionary of FrameType and others."""
    ds = make_slice(**root)
    ds.SOPClassUID, ds.NumberOfFrames = EnhancedMRImageStorage, len(frames)
    position, orientation = ds.ImagePositionPatient, ds.ImageOrientationPatient
    ds.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=position)],
            PlaneOrientationSequence=[item(ImageOrientationPatient=orientation)],
            MRImageFrameTypeSequence=[item(**frame)],
        )
        for frame in frames
    ]
    return ds


def test_each_frame_of_enhanced_mr_is_judged_by_itself() -> None:
    ds = enhanced(
        [
            {"FrameType": ["ORIGINAL", "PRIMARY", "T2", "NONE"], "ComplexImageComponent": name}
            for name in ("MAGNITUDE", "PHASE", "REAL")
        ]
        + [{"FrameType": ["DERIVED", "PRIMARY", "DIXON", "FAT_FRACTION"]}],
        ImageType=["ORIGINAL", "PRIMARY", "T2", "MIXED"],
        ComplexImageComponent="MIXED",
    )
    reasons = [objection(header) for header in slice_headers(ds)]
    assert reasons == [None, "a phase image", "a real image", "a fat-fraction map"]


def test_the_dixon_kind_that_philips_states_in_a_private_item_counts() -> None:
    ds = enhanced([{"FrameType": ["DERIVED", "PRIMARY", "DIXON", "NONE"]}] * 5)
    for group, kind in zip(
        ds.PerFrameFunctionalGroupsSequence, ("W", "F", "IP", "OP", "FF"), strict=True
    ):
        block = group.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        block.add_new(0x0F, "SQ", [item(ImageType=["DERIVED", "PRIMARY", kind, kind, "DERIVED"])])
    assert [objection(header) for header in slice_headers(ds)] == [
        None,
        "a Dixon fat image",
        None,
        "a Dixon opposed-phase image",
        "a fat-fraction map",
    ]


@pytest.mark.parametrize(
    ("modifier", "suppressed", "reason"),
    [
        ({"SpectrallySelectedSuppression": "FAT"}, True, None),
        ({"SpectrallySelectedSuppression": "FAT_AND_WATER"}, True, "fat, its water signal"),
        ({"SpectrallySelectedSuppression": "WATER"}, False, "fat, its water signal"),
        ({"SpectrallySelectedSuppression": "SILICON_GEL"}, False, None),
        ({"SpectrallySelectedSuppression": "NONE"}, False, None),
        ({"SpectrallySelectedExcitation": "WATER"}, True, None),
        ({"SpectrallySelectedExcitation": "FAT"}, False, "fat, its water signal"),
    ],
)
def test_what_was_suppressed_decides_what_is_shown(
    modifier: dict[str, object], suppressed: bool, reason: str | None
) -> None:
    header = header_of(enhanced([modifier], ImageType=["ORIGINAL", "PRIMARY", "T2", "NONE"]))
    assert ("FS" in header.scan_options) is suppressed
    assert reason in (objection(header) or "") if reason else objection(header) is None


# A whole study


@pytest.fixture(scope="module")
def networks() -> Networks:
    return load(None)


@pytest.fixture(scope="module")
def plain(phantom: Callable[[int], tuple[Path, PhantomTruth]], networks: Networks) -> Analysis:
    """The analysis of the study as it is."""
    folder, _ = phantom(21)
    return analyse(find_instances(folder, folder)[0], networks)


def copied(folder: Path, out: Path, change: Callable[[Dataset], list[Dataset]]) -> Path:
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        for n, ds in enumerate(change(dcmread(path))):
            ds.save_as(out / f"{number}-{n}.dcm")
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "other"), [("IN_PHASE", "FAT_FRACTION"), ("WATER", "FAT_FRACTION"), ("M", "P")]
)
def test_a_study_is_read_alike_beside_images_of_another_meaning(
    phantom: Callable[[int], tuple[Path, PhantomTruth]],
    networks: Networks,
    plain: Analysis,
    tmp_path: Path,
    wanted: str,
    other: str,
) -> None:
    """The other images come first, in the same series, and their pixels are inverted."""
    folder, _ = phantom(21)

    def with_others(ds: Dataset) -> list[Dataset]:
        ds.ImageType = ["DERIVED", "PRIMARY", wanted, "NORM"]
        wrong = deepcopy(ds)
        wrong.ImageType = ["DERIVED", "PRIMARY", other, "NORM"]
        wrong.SOPInstanceUID = wrong.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID}1"
        pixels = ds.pixel_array
        wrong.PixelData = (pixels.max() - pixels).tobytes()
        ds.InstanceNumber = ds.InstanceNumber + 100
        return [wrong, ds]

    both = analyse(find_instances(copied(folder, tmp_path, with_others), tmp_path)[0], networks)
    assert np.allclose(
        [f.probabilities for f in both.findings], [f.probabilities for f in plain.findings]
    )
    assert both.caveats == plain.caveats


@pytest.mark.slow
def test_images_that_nothing_tells_apart_are_a_caveat_of_the_analysis(
    phantom: Callable[[int], tuple[Path, PhantomTruth]], networks: Networks, tmp_path: Path
) -> None:
    folder, _ = phantom(21)

    def twice(ds: Dataset) -> list[Dataset]:
        other = deepcopy(ds)
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID}1"
        other.InstanceNumber = ds.InstanceNumber + 100
        return [ds, other]

    analysis = analyse(find_instances(copied(folder, tmp_path, twice), tmp_path)[0], networks)
    assert any("nothing in their headers tells them apart" in line for line in analysis.caveats)
