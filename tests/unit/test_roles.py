"""Which series is read for what, whatever the order and the numbering of the slices."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.errors import NotAnalysable
from lumbar.spine.anatomy import Role
from lumbar.spine.roles import Roles, Weighting, assign_roles, weighting
from lumbar.spine.slices import Content, SliceHeader
from lumbar.spine.weighting import fat_suppressed, only_contrast_tells
from tests.factories.series import (
    MANY,
    SLICE,
    STIR,
    STUDY,
    T1,
    T2,
    assert_each_series_is_named_once,
    axial,
    places,
    sagittal,
    series_of,
)
from tests.study_factory import CHANGES, Slices, kept_as


def test_a_whole_study_gets_its_three_roles() -> None:
    roles = assign_roles(STUDY)
    assert {
        role: [series_of(s.slices) for s in stacks] for role, stacks in roles.stacks.items()
    } == {
        Role.SAGITTAL_T1: [{"1.2.2"}],
        Role.SAGITTAL_T2: [{"1.2.3"}],
        Role.AXIAL_T2: [{"1.2.10"}],
    }
    assert roles.missing == ()


SEVERAL = [*STUDY, *axial(11, 6, tilt=15), *axial(11, 6, tilt=25), *sagittal(12, **STIR)]


@pytest.fixture(scope="module")
def roles_of_several() -> Roles:
    return assign_roles(SEVERAL)


@pytest.mark.slow
@pytest.mark.no_cover
@given(random=st.randoms(use_true_random=False), twice=st.integers(0, 20))
def test_order_and_duplicates_change_nothing(
    roles_of_several: Roles, random: Random, twice: int
) -> None:
    shuffled = [*SEVERAL, *random.sample(SEVERAL, twice)]
    random.shuffle(shuffled)
    assert assign_roles(shuffled) == roles_of_several


def test_the_reverse_order_changes_nothing(roles_of_several: Roles) -> None:
    assert assign_roles(SEVERAL[::-1]) == roles_of_several


@given(st.booleans(), st.booleans())
def test_the_order_is_right_to_left_and_caudal_to_cranial(renumbered: bool, flipped: bool) -> None:
    """Neither the numbering nor the direction of the stored normal decides."""
    study = STUDY
    if renumbered:
        study = [replace(s, instance_number=1000 - 7 * s.instance_number) for s in study]
    if flipped:
        study = [
            replace(s, orientation=(*s.orientation[:3], *(-c for c in s.orientation[3:])))
            for s in study
        ]  # type: ignore[arg-type]
    roles = assign_roles(study)
    for role, axis in ((Role.SAGITTAL_T1, 0), (Role.SAGITTAL_T2, 0), (Role.AXIAL_T2, 2)):
        places = [s.position[axis] for s in roles.stacks[role][0].slices]
        assert places == sorted(places)
        assert len(places) == (30 if role == Role.AXIAL_T2 else 15)


def test_a_second_slice_at_the_same_position_is_dropped() -> None:
    again = [
        replace(s, sop_instance_uid=s.sop_instance_uid + ".7", instance_number=99)
        for s in sagittal(3, **T2)
    ]
    (stack,) = assign_roles([*again, *STUDY]).stacks[Role.SAGITTAL_T2]
    assert len(stack.slices) == 15
    assert all(s.instance_number < 99 for s in stack.slices)


def test_every_axial_series_and_stack_is_kept() -> None:
    tilted = [*axial(11, 5, tilt=10, z=0), *axial(11, 5, tilt=25, z=-60)]
    stacks = assign_roles([*STUDY, *tilted]).stacks[Role.AXIAL_T2]
    assert [len(s.slices) for s in stacks] == [30, 5, 5]
    assert [s.slices[0].series_instance_uid for s in stacks] == ["1.2.10", "1.2.11", "1.2.11"]


def test_a_steep_l5_s1_block_is_still_axial() -> None:
    assert (
        len(assign_roles([*sagittal(3), *axial(4, 10, tilt=40)]).stacks[Role.AXIAL_T2][0].slices)
        == 10
    )


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({**T2}, {**STIR}),
        ({**T2}, {"scan_options": ("FS",)}),
        ({**T2}, {"image_type": ("ORIGINAL", "PRIMARY", "M", "WATER")}),
        ({**T2}, {"contrast_agent": True}),
        ({"count": 17}, {"count": 15}),
        ({"spacing": (0.6, 0.6)}, {**T2}),
    ],
)
def test_the_better_sagittal_series_is_chosen_in_any_order(
    better: dict[str, object], worse: dict[str, object]
) -> None:
    for first, second in ((better, worse), (worse, better)):
        roles = assign_roles([*sagittal(5, **first), *sagittal(6, **second)])  # type: ignore[arg-type]
        (stack,) = roles.stacks[Role.SAGITTAL_T2]
        assert series_of(stack.slices) == {"1.2.5" if first is better else "1.2.6"}


def test_stir_is_used_where_there_is_no_t2() -> None:
    (stack,) = assign_roles(sagittal(5, **STIR)).stacks[Role.SAGITTAL_T2]
    assert stack.weighting == Weighting.STIR
    assert stack.fat_suppressed


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "a localizer"),
        ({"image_type": ("DERIVED", "SECONDARY", "MPR")}, "not an original acquisition"),
        ({"image_type": ("DERIVED", "PRIMARY", "PROJECTION IMAGE")}, "not an original acquisition"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "M", "FAT")}, "Dixon"),
        ({"image_type": ("DERIVED", "SECONDARY", "OTHER")}, "not an original acquisition"),
        ({"image_type": ("ORIGINAL", "SECONDARY", "GSP")}, "not an original acquisition"),
        ({"scanning_sequence": ("GR",)}, "gradient echo"),
        ({"scanning_sequence": ("SE", "EP")}, "gradient echo"),
        ({"inversion_time": 2200.0}, "FLAIR"),
        ({"echo_time": 30.0}, "proton density"),
        ({"echo_time": None}, "unknown weighting"),
        ({"spacing": (0.3, 0.3)}, "field of view"),
        ({"spacing": (1.3, 1.3)}, "field of view"),
        ({"count": 7}, "fewer than 8"),
        ({"orientation": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)}, "in this plane"),
    ],
)
def test_a_series_that_is_not_an_original_of_the_spine_is_refused_with_a_reason(
    values: dict[str, object], reason: str
) -> None:
    roles = assign_roles([*sagittal(2, **T1), *sagittal(3, **values)])  # type: ignore[arg-type]
    assert Role.SAGITTAL_T2 in roles.missing
    assert len(roles.choices) == 2
    assert reason in roles.choices[1]


@pytest.mark.parametrize(
    "image_type",
    [("DERIVED", "PRIMARY"), ("DERIVED", "PRIMARY", "OTHER"), ("DERIVED", "PRIMARY", "M", "DIS2D")],
)
def test_a_series_derived_from_an_acquisition_is_read(image_type: tuple[str, ...]) -> None:
    """By lossy compression, a filter, distortion correction or a Dixon calculation."""
    roles = assign_roles(sagittal(3, image_type=image_type))
    assert list(roles.stacks) == [Role.SAGITTAL_T2]


def test_choices_describe_every_series_without_uids() -> None:
    choices = assign_roles([*STUDY, *sagittal(12, **STIR)]).choices
    assert choices == (
        "series 1 (3 axial slices, TR 8 TE 4 and 3 sagittal slices, TR 8 TE 4): "
        "refused, a localizer",
        "series 2 (15 sagittal slices, TR 500 TE 12): Sagittal T1",
        "series 3 (15 sagittal slices, TR 3500 TE 100): Sagittal T2/STIR",
        "series 4 (30 axial slices, TR 3500 TE 100): Axial T2",
        "series 5 (15 sagittal slices, TR 3500 TE 50 TI 160): "
        "not read, another is better for Sagittal T2/STIR",
    )


def test_a_dual_echo_series_is_read_for_its_t2_half() -> None:
    second_echo = [
        replace(s, sop_instance_uid=s.sop_instance_uid + ".2") for s in sagittal(4, **T2)
    ]
    roles = assign_roles([*sagittal(4, echo_time=20.0), *second_echo])
    (stack,) = roles.stacks[Role.SAGITTAL_T2]
    assert {s.echo_time for s in stack.slices} == {100.0}


@pytest.mark.parametrize(
    ("slices", "role"),
    [
        (sagittal(3, 1, **T1), Role.SAGITTAL_T1),
        (sagittal(3, 1, spacing=(0.1, 0.1)), Role.SAGITTAL_T2),
        (axial(3, 1), Role.AXIAL_T2),
        (axial(3, 1, image_type=("DERIVED", "SECONDARY")), Role.AXIAL_T2),
        (sagittal(3, 2, **STIR), Role.SAGITTAL_T2),
        (axial(3, 1, **T1), None),
    ],
)
def test_a_file_alone_is_read_by_plane_and_weighting(
    slices: list[SliceHeader], role: Role | None
) -> None:
    roles = assign_roles(slices)
    assert list(roles.stacks) == ([role] if role else [])
    assert len(roles.choices) == 1


def test_three_slices_are_a_study_and_too_few() -> None:
    assert assign_roles(sagittal(3, 3)).stacks == {}


def test_without_slices_no_role_is_filled() -> None:
    assert assign_roles([]).missing == tuple(Role)


def test_two_studies_are_never_read_as_one() -> None:
    with pytest.raises(NotAnalysable, match="several studies"):
        assign_roles([SLICE, replace(SLICE, study_instance_uid="1.3")])


def test_the_nearest_slice_is_returned_with_its_distance() -> None:
    (stack,) = assign_roles(axial(3)).stacks[Role.AXIAL_T2]
    closest, distance = stack.nearest(np.array([0.0, 0.0, -80.0 + 4.4 * 7 + 1.5]))
    assert closest.instance_number == 7
    assert distance == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("repetition", "echo", "inversion", "expected"),
    [
        (500, 12, None, Weighting.T1),
        (500, 12, 0, Weighting.T1),
        (2000, 10, 860, Weighting.T1),
        (4000, 60, 150, Weighting.STIR),
        (9000, 120, 2500, Weighting.FLAIR),
        (3500, 125, 0, Weighting.T2),
        (1400, 60, None, Weighting.T2),
        (2500, 20, None, Weighting.PROTON_DENSITY),
        (1300, 50, None, Weighting.UNKNOWN),
        (None, 50, None, Weighting.UNKNOWN),
        (400, 9, None, Weighting.T1),
        (1200, 35, None, Weighting.T1),
        (1200, 130, None, Weighting.T2),  # SPACE, CUBE, VISTA
        (1000, 250, None, Weighting.T2),
        (1200, 60, None, Weighting.UNKNOWN),
        (900, 130, None, Weighting.UNKNOWN),
        (4.7, 1.2, None, Weighting.UNKNOWN),  # a localizer of GE, whatever ScanningSequence says
        (1200, 15, 120, Weighting.STIR),
        (5000, 110, 220, Weighting.STIR),
        (2500, 90, 1100, Weighting.UNKNOWN),  # at such a TR, fluid is nulled
    ],
)
def test_weighting_follows_the_times(
    repetition: float | None, echo: float, inversion: float | None, expected: Weighting
) -> None:
    times = replace(SLICE, repetition_time=repetition, echo_time=echo, inversion_time=inversion)
    assert weighting(times) == expected
    assert weighting(replace(times, scanning_sequence=("RM",))) == expected
    assert weighting(replace(times, scanning_sequence=("SE", "RM"))) == expected
    for planar in (("GR",), ("GR", "RM"), ("SE", "EP"), ("EP", "RM")):
        assert weighting(replace(times, scanning_sequence=planar)) == Weighting.GRADIENT_ECHO


def test_a_short_tr_and_a_long_te_are_t2_only_of_a_spin_echo() -> None:
    unnamed = replace(SLICE, repetition_time=1200.0, echo_time=130.0, scanning_sequence=())
    assert weighting(unnamed) == Weighting.UNKNOWN


@pytest.mark.parametrize(
    ("repetition", "echo", "values", "expected"),
    [
        (2000, 12, {}, Weighting.T1),  # T1 FLAIR
        (3000, 29, {}, Weighting.T1),
        (3500, 12, {}, Weighting.UNKNOWN),
        (2500, 30, {}, Weighting.UNKNOWN),
        (4000, 60, {}, Weighting.UNKNOWN),  # STIR or FLAIR
        (9000, 120, {}, Weighting.UNKNOWN),
        (4000, 60, {"inversion_time": 0.0}, Weighting.UNKNOWN),
        (4000, 60, {"content": Content(contrast="STIR")}, Weighting.STIR),
        (9000, 120, {"content": Content(contrast="FLUID_ATTENUATED")}, Weighting.FLAIR),
        (4000, 60, {"image_type": ("ORIGINAL", "PRIMARY", "STIR", "NONE")}, Weighting.STIR),
        (4000, 25, {"scan_options": ("FAST_GEMS", "T1FLAIR_GEMS")}, Weighting.T1),
        (9000, 120, {"scan_options": ("FAST_GEMS", "T2FLAIR_GEMS")}, Weighting.FLAIR),
        # Philips writes T1 of any multi-frame file
        (4000, 60, {"image_type": ("ORIGINAL", "PRIMARY", "T1", "MIXED")}, Weighting.UNKNOWN),
        (4000, 60, {"inversion_time": 150.0}, Weighting.STIR),
    ],
)
@pytest.mark.parametrize("sequence", [("IR",), ("SE", "IR"), ("IR", "RM")])
def test_an_inversion_recovery_without_ti_is_what_its_times_or_an_element_prove(
    repetition: float,
    echo: float,
    values: dict[str, object],
    expected: Weighting,
    sequence: tuple[str, ...],
) -> None:
    header = replace(
        SLICE,
        repetition_time=repetition,
        echo_time=echo,
        scanning_sequence=sequence,
        **values,  # type: ignore[arg-type]
    )
    assert weighting(header) == expected
    assert only_contrast_tells(header) is (expected is Weighting.UNKNOWN)


def test_only_the_contrast_tells_where_the_times_are_missing() -> None:
    assert only_contrast_tells(replace(SLICE, echo_time=None))
    assert not only_contrast_tells(replace(SLICE, echo_time=None, scanning_sequence=("GR",)))
    assert not only_contrast_tells(replace(SLICE, repetition_time=1300.0, echo_time=50.0))


@pytest.mark.parametrize(
    ("options", "suppressed"),
    [
        (("FS",), True),
        (("SAT2", "FS"), True),
        (("SFS",), True),
        (("FATSAT",), True),
        (("FAT_SAT",), True),
        (("FAST_GEMS", "SAT_GEMS", "FSA_GEMS"), False),
        (("SAT1",), False),
        (("SP", "CG", "RG", "PER"), False),
    ],
)
def test_fat_suppression_is_not_taken_for_saturation_bands(
    options: tuple[str, ...], suppressed: bool
) -> None:
    assert fat_suppressed(replace(SLICE, scan_options=options)) is suppressed


@pytest.fixture(scope="module")
def places_of_many() -> object:
    return places(assign_roles(MANY))


@pytest.mark.slow
@pytest.mark.no_cover
@given(
    changes=st.permutations(CHANGES),
    count=st.integers(1, len(CHANGES)),
    random=st.randoms(use_true_random=True),
)
def test_shuffled_renamed_split_duplicated_or_turned_a_study_gives_the_same_stacks(
    places_of_many: object,
    changes: list[Callable[[Slices, Random], Slices]],
    count: int,
    random: Random,
) -> None:
    changed = MANY
    for change in changes[:count]:
        changed = change(changed, random)
    roles = assign_roles(changed)
    assert places(roles) == places_of_many
    assert_each_series_is_named_once(roles, changed)


@st.composite
def anything(draw: st.DrawFn) -> SliceHeader:
    """A slice that a header allows, however absurd; mostly like others."""
    number = st.sampled_from([0.0, -40.0, 4.4, 1e6, -1e300, 1e308])
    time = st.sampled_from([None, 0.0, 12.0, 100.0, 3500.0, -1.0, 1e300])
    uid = st.sampled_from(["1.2.1", "1.2.01", "1..2", "x", "9" * 5000])
    kinds = st.sampled_from(["ORIGINAL", "PRIMARY", "DERIVED", "M", "W", "FAT", "LOCALIZER", ""])
    header = replace(
        draw(st.sampled_from([sagittal(3, 1)[0], axial(3, 1)[0], axial(3, 1, tilt=45)[0]])),
        series_instance_uid=draw(uid),
        sop_instance_uid=draw(uid),
        frame_of_reference_uid=draw(st.sampled_from(["", "1.2"])),
        instance_number=draw(st.integers(-1, 2)),
        rows=draw(st.sampled_from([1, 384, 4096])),
        position=(draw(number), draw(number), draw(number)),
        spacing=(draw(st.sampled_from([0.75, 1e-300, 1e300])), 0.75),
        thickness=draw(st.sampled_from([None, 4.0, -1.0, 1e300])),
        repetition_time=draw(time),
        echo_time=draw(time),
        inversion_time=draw(time),
        image_type=tuple(draw(st.lists(kinds, max_size=4))),
    )
    return kept_as(header, draw(st.tuples(*[st.booleans()] * 3)))


@pytest.mark.slow
@given(st.lists(anything(), max_size=25))
def test_every_series_of_any_study_is_named_once(slices: list[SliceHeader]) -> None:
    with np.errstate(all="ignore"):
        roles = assign_roles(slices)
    assert_each_series_is_named_once(roles, slices)


def test_frames_of_reference_that_differ_from_file_to_file_say_nothing() -> None:
    series = [
        replace(header, frame_of_reference_uid=f"1.2.{n}") for n, header in enumerate(sagittal(1))
    ]
    roles = assign_roles(series)
    assert len(roles.stacks[Role.SAGITTAL_T2][0].slices) == len(series)
