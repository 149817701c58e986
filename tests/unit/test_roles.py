"""Which series is read for what, whatever the order and the numbering of the slices."""

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.errors import NotAnalysable
from lumbar.spine.anatomy import Role
from lumbar.spine.roles import Roles, Weighting, assign_roles, weighting
from lumbar.spine.slices import SliceHeader
from tests.study_factory import CHANGES, Slices, kept_as, series, shuffled
from tests.unit.headers import SLICE as HEADER

SLICE = replace(HEADER, rows=384, columns=384, spacing=(0.75, 0.75))
T1 = {"repetition_time": 500.0, "echo_time": 12.0}
T2: dict[str, float] = {}
STIR = {"inversion_time": 160.0, "echo_time": 50.0}


def sagittal(series: int, count: int = 15, **values: object) -> list[SliceHeader]:
    """From the patient's right to the left."""
    return [
        replace(
            SLICE,
            series_instance_uid=f"1.2.{series}",
            sop_instance_uid=f"1.2.{series}.{n}",
            instance_number=n,
            position=(-30.0 + 4.4 * n, -140.0, 140.0),
            **values,  # type: ignore[arg-type]
        )
        for n in range(count)
    ]


def axial(
    series: int, count: int = 30, tilt: float = 0.0, z: float = -80.0, **values: object
) -> list[SliceHeader]:
    """From caudal to cranial, tilted about the left-right axis by degrees."""
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    return [
        replace(
            SLICE,
            **{
                "series_instance_uid": f"1.2.{series}",
                "sop_instance_uid": f"1.2.{series}.{tilt}.{n}",
                "instance_number": n,
                "orientation": (1.0, 0.0, 0.0, 0.0, cos, -sin),
                "position": (-100.0, -100.0, z + 4.4 * n),
                "spacing": (0.5, 0.5),
                **values,
            },  # type: ignore[arg-type]
        )
        for n in range(count)
    ]


LOCALIZER = [
    replace(
        s,
        scanning_sequence=("GR",),
        repetition_time=8.0,
        echo_time=4.0,
        sop_instance_uid=f"{s.sop_instance_uid}.9",
    )
    for s in (*sagittal(1, 3), *axial(1, 3))
]
STUDY = [*LOCALIZER, *sagittal(2, **T1), *sagittal(3, **T2), *axial(10, **T2)]


def series_of(slices: tuple[SliceHeader, ...]) -> set[str]:
    return {s.series_instance_uid for s in slices}


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


@given(st.randoms(use_true_random=False), st.integers(0, 20))
def test_order_and_duplicates_change_nothing(random: Random, twice: int) -> None:
    several = [*STUDY, *axial(11, 6, tilt=15), *axial(11, 6, tilt=25), *sagittal(12, **STIR)]
    shuffled = [*several, *random.sample(several, twice)]
    random.shuffle(shuffled)
    assert assign_roles(shuffled) == assign_roles(several) == assign_roles(several[::-1])


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
def test_the_better_sagittal_series_is_chosen_wherever_it_stands(
    better: dict[str, object], worse: dict[str, object]
) -> None:
    for first, second in ((better, worse), (worse, better)):
        roles = assign_roles([*sagittal(5, **first), *sagittal(6, **second)])  # type: ignore[arg-type]
        (stack,) = roles.stacks[Role.SAGITTAL_T2]
        assert series_of(stack.slices) == {"1.2.5" if first is better else "1.2.6"}


def test_stir_serves_where_there_is_no_t2() -> None:
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
        ({"scanning_sequence": ("GR",)}, "gradient echo"),
        ({"scanning_sequence": ("SE", "EP")}, "gradient echo"),
        ({"inversion_time": 2200.0}, "FLAIR"),
        ({"echo_time": 30.0}, "proton density"),
        ({"echo_time": None}, "unknown weighting"),
        ({"spacing": (0.3, 0.3)}, "field of view"),
        ({"spacing": (1.2, 1.2)}, "field of view"),
        ({"count": 7}, "fewer than 8"),
        ({"orientation": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)}, "in this plane"),
    ],
)
def test_what_is_not_an_original_spine_series_is_refused_with_a_reason(
    values: dict[str, object], reason: str
) -> None:
    roles = assign_roles([*sagittal(2, **T1), *sagittal(3, **values)])  # type: ignore[arg-type]
    assert Role.SAGITTAL_T2 in roles.missing
    assert len(roles.choices) == 2
    assert reason in roles.choices[1]


def test_choices_speak_of_every_series_in_words_without_uids() -> None:
    choices = assign_roles([*STUDY, *sagittal(12, **STIR)]).choices
    assert choices == (
        "series 1 (3 axial slices, TR 8 TE 4 and 3 sagittal slices, TR 8 TE 4): refused, a localizer",
        "series 2 (15 sagittal slices, TR 500 TE 12): Sagittal T1",
        "series 3 (15 sagittal slices, TR 3500 TE 100): Sagittal T2/STIR",
        "series 4 (30 axial slices, TR 3500 TE 100): Axial T2",
        "series 5 (15 sagittal slices, TR 3500 TE 50 TI 160): not read, another is better for Sagittal T2/STIR",
    )


def test_a_dual_echo_series_is_read_for_its_t2_half() -> None:
    late = [replace(s, sop_instance_uid=s.sop_instance_uid + ".2") for s in sagittal(4, **T2)]
    roles = assign_roles([*sagittal(4, echo_time=20.0), *late])
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


def test_no_slices_fill_no_role() -> None:
    assert assign_roles([]).missing == tuple(Role)


def test_two_studies_are_never_read_as_one() -> None:
    with pytest.raises(NotAnalysable, match="several studies"):
        assign_roles([SLICE, replace(SLICE, study_instance_uid="1.3")])


def test_the_nearest_slice_comes_with_its_distance() -> None:
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
    ],
)
def test_weighting_follows_the_times(
    repetition: float | None, echo: float, inversion: float | None, expected: Weighting
) -> None:
    times = replace(SLICE, repetition_time=repetition, echo_time=echo, inversion_time=inversion)
    assert weighting(times) == expected
    assert weighting(replace(times, scanning_sequence=("RM",))) == Weighting.GRADIENT_ECHO


MANY = [
    *STUDY,
    *axial(11, 6, tilt=15, z=0),
    *axial(11, 6, tilt=25, z=-60),
    *sagittal(12, **STIR),
    *sagittal(13, image_type=("ORIGINAL", "PRIMARY", "M", "FAT")),
]


def anew(slices: list[SliceHeader], uid: int, **values: object) -> list[SliceHeader]:
    """As another series."""
    return [
        replace(s, series_instance_uid=f"1.2.{uid}", sop_instance_uid=f"1.2.{uid}.{n}", **values)  # type: ignore[arg-type]
        for n, s in enumerate(slices)
    ]


def moved(
    slices: list[SliceHeader], x: float = 0.0, y: float = 0.0, z: float = 0.0
) -> list[SliceHeader]:
    return [
        replace(s, position=(s.position[0] + x, s.position[1] + y, s.position[2] + z))
        for s in slices
    ]


def places(roles: Roles) -> dict[Role, list[list[tuple[float, ...]]]]:
    """The centres of the slices of each role's stacks, in order."""
    return {
        role: [
            [tuple(float(v) + 0.0 for v in np.round(s.centre, 1)) for s in stack.slices]
            for stack in stacks
        ]
        for role, stacks in roles.stacks.items()
    }


@given(st.permutations(CHANGES), st.integers(1, len(CHANGES)), st.randoms(use_true_random=True))
def test_shuffled_renamed_split_duplicated_or_turned_a_study_gives_the_same_stacks(
    changes: list[Callable[[Slices, Random], Slices]], count: int, random: Random
) -> None:
    changed = MANY
    for change in changes[:count]:
        changed = change(changed, random)
    roles = assign_roles(changed)
    assert places(roles) == places(assign_roles(MANY))
    assert_each_series_is_named_once(roles, changed)


def assert_each_series_is_named_once(roles: Roles, slices: list[SliceHeader]) -> None:
    assert len(roles.choices) == len(series(slices))
    for number, choice in enumerate(roles.choices, 1):
        assert choice.startswith(f"series {number} (")
        assert choice.count("): ") >= 1


EVEN, ODD = slice(0, None, 2), slice(1, None, 2)
LOWER, UPPER = slice(0, 7), slice(7, None)


@pytest.mark.parametrize(("one", "other"), [(EVEN, ODD), (LOWER, UPPER), (UPPER, LOWER)])
def test_a_series_split_in_two_is_put_together(one: slice, other: slice) -> None:
    whole = sagittal(3)
    roles = assign_roles([*sagittal(2, **T1), *anew(whole[one], 5), *anew(whole[other], 4)])
    assert places(roles) == places(assign_roles([*sagittal(2, **T1), *whole]))
    counts = len(whole[other]), len(whole[one])
    assert roles.choices[1:] == tuple(
        f"series {n} ({count} sagittal slices, TR 3500 TE 100): Sagittal T2/STIR; series 2 and 3 belong together"
        for n, count in zip((2, 3), counts, strict=True)
    )


@pytest.mark.parametrize(
    "values",
    [
        {"frame_of_reference_uid": "1.2.8"},
        {"echo_time": 90.0},
        {"repetition_time": 4500.0},
        {"rows": 320},
        {"spacing": (0.8, 0.8)},
        {"contrast_agent": True},
        {"orientation": (0.1, 0.995, 0.0, 0.0, 0.0, -1.0)},
    ],
)
def test_slices_acquired_differently_are_not_put_together(values: dict[str, object]) -> None:
    roles = assign_roles([*sagittal(3)[LOWER], *anew(sagittal(3)[UPPER], 4, **values)])
    (stack,) = roles.stacks[Role.SAGITTAL_T2]
    assert series_of(stack.slices) == {"1.2.4"}
    assert "fewer than 8" in roles.choices[0]


def test_axial_blocks_of_a_few_slices_each_in_its_own_series_are_put_together() -> None:
    blocks = [axial(20 + n, 4, tilt=10.0 * n, z=-60.0 + 30 * n) for n in range(5)]
    roles = assign_roles([s for block in blocks for s in block])
    assert [len(s.slices) for s in roles.stacks[Role.AXIAL_T2]] == [4] * 5
    assert all("series 1, 2, 3, 4 and 5 belong together" in choice for choice in roles.choices)


def test_series_whose_times_differ_by_little_are_put_together() -> None:
    """A scanner fits TR to the number of slices, and TE and TI to the gradients."""
    blocks = [
        axial(
            20 + n,
            4,
            10.0 * n,
            -60.0 + 30 * n,
            repetition_time=3500.0 + 17 * n,
            echo_time=100.0 + 0.7 * n,
        )
        for n in range(5)
    ]
    roles = assign_roles([s for block in blocks for s in block])
    assert [len(s.slices) for s in roles.stacks[Role.AXIAL_T2]] == [4] * 5
    other = {**STIR, "inversion_time": 165.0}
    (stack,) = assign_roles(
        [*sagittal(3, **STIR)[EVEN], *anew(sagittal(3, **other)[ODD], 4)]
    ).stacks[Role.SAGITTAL_T2]
    assert len(stack.slices) == 15


def test_times_that_drift_apart_step_by_step_are_of_no_one_acquisition() -> None:
    blocks = [
        axial(20 + n, 7 - n, 10.0 * n, -60.0 + 50 * n, echo_time=80.0 * 1.06**n) for n in range(5)
    ]
    roles = assign_roles([s for block in blocks for s in block])
    assert [len(s.slices) for s in roles.stacks[Role.AXIAL_T2]] == [7, 6, 5, 4]
    assert [choice.split(": ")[1] for choice in roles.choices] == [
        *["Axial T2; series 1 and 2 belong together"] * 2,
        *["Axial T2; series 3 and 4 belong together"] * 2,
        "refused, fewer than 8 slices",
    ]


def test_many_parts_are_counted_not_listed() -> None:
    choices = assign_roles(
        [s for n in range(30) for s in anew(axial(3)[n : n + 1], 20 + n)]
    ).choices
    assert choices[0].endswith("Axial T2; series 1, 2, 3, 4, 5, 6 and 24 more belong together")


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5, 2.2])
@pytest.mark.parametrize("make", [sagittal, axial])
def test_of_a_repeated_series_the_most_complete_is_read_and_never_both(
    make: Callable[..., list[SliceHeader]], shift: float
) -> None:
    """A repeat may have been planned anew, a little beside the first."""
    first = make(3, 20)
    again = anew(moved(first, x=shift, z=shift), 1)
    for kept, worse in (
        (first, again[:17]),
        (again, first[:17]),
        (first, again[ODD]),
        (first[ODD], again),
    ):
        most = max(kept, worse, key=len)
        roles = assign_roles([*sagittal(7, **T1), *kept, *worse])
        role = Role.SAGITTAL_T2 if make is sagittal else Role.AXIAL_T2
        assert [list(s.slices) for s in roles.stacks[role]] == [most]
        assert sum("not read, it repeats series" in choice for choice in roles.choices) == 1


def test_a_repeat_is_told_as_what_it_repeats() -> None:
    roles = assign_roles([*sagittal(3), *anew(sagittal(3)[:14], 4), *anew(sagittal(3)[EVEN], 5)])
    assert [choice.split(": ")[1] for choice in roles.choices] == [
        "Sagittal T2/STIR",
        "not read, it repeats series 1",
        "not read, it repeats series 1",
    ]


def test_a_split_series_that_was_repeated_whole_is_read_in_one_piece() -> None:
    whole = sagittal(3)
    roles = assign_roles([*anew(whole[EVEN], 1), *anew(whole[ODD], 2), *whole[:14]])
    (stack,) = roles.stacks[Role.SAGITTAL_T2]
    assert series_of(stack.slices) == {"1.2.1", "1.2.2"}
    assert len(stack.slices) == 15
    assert "not read, it repeats series 1 and 2" in roles.choices[2]


def test_axial_slices_seen_with_and_without_fat_suppression_are_read_once() -> None:
    roles = assign_roles([*axial(3, scan_options=("FS",)), *axial(4)])
    assert [series_of(s.slices) for s in roles.stacks[Role.AXIAL_T2]] == [{"1.2.4"}]
    assert "not read, another is better for Axial T2" in roles.choices[0]


def test_blocks_that_overlap_by_a_few_slices_are_read_without_the_overlap() -> None:
    upper = anew(moved(axial(3, 12), z=44.5), 4)
    (stack,) = assign_roles([*axial(3, 12), *upper]).stacks[Role.AXIAL_T2]
    assert len(stack.slices) == 22
    heights = [s.position[2] for s in stack.slices]
    assert np.diff(heights).min() > 4


@pytest.mark.parametrize(
    ("values", "rest"),
    [
        ({}, "it repeats series 1"),
        ({"scan_options": ("FS",)}, "another is better for Axial T2"),
        ({"echo_time": 80.0}, "another is better for Axial T2"),
    ],
)
def test_axial_slices_at_places_that_nothing_better_shows_are_read(
    values: dict[str, object], rest: str
) -> None:
    upper = anew(moved(axial(3, 12, **values), z=14 * 4.4), 4)
    roles = assign_roles([*axial(3, 20), *upper])
    assert [list(s.slices) for s in roles.stacks[Role.AXIAL_T2]] == [axial(3, 20), upper[6:]]
    held = f"(6 axial slices, TR 3500 TE {upper[0].echo_time:.0f})"
    assert roles.choices[1] == f"series 2 {held}: Axial T2; {held}: not read, {rest}"


@pytest.mark.parametrize(
    ("one", "other"),
    [(EVEN, ODD), (slice(0, 20), slice(20, None)), (slice(0, 31), slice(31, None))],
)
@pytest.mark.parametrize("count", [40, 41])
def test_thin_slices_that_overlap_are_all_read_though_split(
    one: slice, other: slice, count: int
) -> None:
    thin = [
        replace(s, position=(-10 + 0.5 * n, *s.position[1:]), thickness=1.0)
        for n, s in enumerate(sagittal(3, count))
    ]
    (stack,) = assign_roles([*anew(thin[one], 5), *anew(thin[other], 4)]).stacks[Role.SAGITTAL_T2]
    assert [s.position for s in stack.slices] == [s.position for s in thin]


def test_a_missing_slice_splits_no_stack_and_a_large_gap_parts_axial_blocks() -> None:
    gappy = [s for s in axial(3, 20) if s.instance_number not in (5, 10, 11, 12)]
    stacks = assign_roles(
        [*gappy, *(s for s in sagittal(4) if s.instance_number not in (3, 4, 5, 9))]
    ).stacks
    assert [[s.instance_number for s in stack.slices] for stack in stacks[Role.AXIAL_T2]] == [
        [0, 1, 2, 3, 4, 6, 7, 8, 9],
        [13, 14, 15, 16, 17, 18, 19],
    ]
    assert [len(stack.slices) for stack in stacks[Role.SAGITTAL_T2]] == [11]


def test_slices_of_another_matrix_fill_a_stack_but_never_double_it() -> None:
    fine = sagittal(3)
    coarse = [
        replace(
            s,
            rows=256,
            columns=256,
            spacing=(1.125, 1.125),
            sop_instance_uid=f"{s.sop_instance_uid}.7",
        )
        for s in fine
    ]
    (stack,) = assign_roles([*fine[:10], *coarse[10:]]).stacks[Role.SAGITTAL_T2]
    assert [s.rows for s in stack.slices] == [384] * 10 + [256] * 5
    (stack,) = assign_roles([*fine, *coarse]).stacks[Role.SAGITTAL_T2]
    assert [s.rows for s in stack.slices] == [384] * 15


def test_two_stations_in_one_series_are_not_mixed() -> None:
    """Parallel, at the same distance from the mid-line, but one shows the thorax."""
    thorax = [
        replace(s, sop_instance_uid=f"{s.sop_instance_uid}.7") for s in moved(sagittal(3), z=220.0)
    ]
    stacks = assign_roles([*thorax, *sagittal(3)]).stacks[Role.SAGITTAL_T2]
    assert [{s.position[2] for s in stack.slices} for stack in stacks] == [{140.0}, {360.0}]


@settings(max_examples=20)
@given(st.permutations(range(5)), st.randoms(use_true_random=False))
def test_of_a_whole_spine_the_best_of_each_station_is_read_the_lowest_first(
    order: list[int], random: Random
) -> None:
    """However much finer and fuller the upper ones are."""
    offered = [
        sagittal(10 + order[0]),
        moved(sagittal(10 + order[1], 17, spacing=(0.6, 0.6)), y=28.8, z=180.0),
        moved(sagittal(10 + order[2], 16, spacing=(0.6, 0.6)), y=28.8, z=371.2),
        moved(sagittal(10 + order[3], **STIR), z=30.0),
        moved(sagittal(10 + order[4], **STIR), z=371.2),
    ]
    roles = assign_roles(shuffled([s for own in offered for s in own], random))
    stacks = roles.stacks[Role.SAGITTAL_T2]
    assert [series_of(stack.slices) for stack in stacks] == [
        series_of(tuple(own)) for own in offered[:3]
    ]
    assert [roles.choices[n].split(": ")[1] for n in order] == [
        *(f"Sagittal T2/STIR, station {n} of 3 from below" for n in (1, 2, 3)),
        *["not read, another is better for Sagittal T2/STIR"] * 2,
    ]


@pytest.mark.parametrize(("away", "stations"), [(0.0, 1), (143.0, 1), (145.0, 2), (-145.0, 2)])
def test_sagittal_images_half_their_height_apart_show_another_station(
    away: float, stations: int
) -> None:
    roles = assign_roles([*sagittal(3), *anew(moved(sagittal(3, **STIR), z=away), 4)])
    assert len(roles.stacks[Role.SAGITTAL_T2]) == stations


def test_stations_in_frames_of_their_own_are_no_reason_for_a_note() -> None:
    upper = {"frame_of_reference_uid": "1.2.8"}
    lumbar = [*sagittal(2, **T1), *sagittal(3)]
    above = [
        s for n, times in ((5, T1), (6, T2)) for s in moved(sagittal(n, **times, **upper), z=250.0)
    ]  # type: ignore[arg-type]
    assert assign_roles([*lumbar, *above]).notes == ()
    assert assign_roles([*lumbar, *above[15:]]).notes == ()
    assert len(assign_roles([*lumbar[15:], *above[:15]]).notes) == 1


@pytest.mark.parametrize("stray", [axial(3, 1), axial(3, 7), [*axial(3, 1), *axial(3, 1, tilt=50)]])
def test_a_few_stray_slices_make_no_localizer_of_a_whole_series(stray: list[SliceHeader]) -> None:
    roles = assign_roles([*sagittal(3), *stray])
    (stack,) = roles.stacks[Role.SAGITTAL_T2]
    assert len(stack.slices) == 15
    assert roles.missing == (Role.SAGITTAL_T1, Role.AXIAL_T2)
    assert "refused, a localizer" in roles.choices[0]


def test_a_study_merged_into_one_series_is_read() -> None:
    assert places(assign_roles(anew(STUDY, 5))) == places(assign_roles(STUDY))


def test_copies_make_no_series_of_a_localizer() -> None:
    localizer = [*sagittal(3, 3), *axial(3, 3)]
    copies = [
        replace(s, sop_instance_uid=f"{s.sop_instance_uid}.{n}")
        for s in localizer
        for n in range(4)
    ]
    assert assign_roles(copies).stacks == {}
    assert "refused, a localizer" in assign_roles(copies).choices[0]


def test_an_axial_block_steeper_than_45_degrees_makes_no_localizer_of_its_series() -> None:
    roles = assign_roles([*axial(3, 20), *axial(3, 4, tilt=50, z=-100)])
    assert [len(s.slices) for s in roles.stacks[Role.AXIAL_T2]] == [20]
    assert "T2 in this plane is not read" in roles.choices[0]


def test_one_multi_frame_instance_may_hold_several_stacks_and_echoes() -> None:
    frames = [*axial(3, 12), *axial(3, 12, echo_time=20.0), *axial(3, 5, tilt=30, z=-100)]
    frames = [
        replace(s, sop_instance_uid="1.2.3.1", instance_number=1, frame=n)
        for n, s in enumerate(frames, 1)
    ]
    roles = assign_roles(frames[::-1])
    assert [[s.frame for s in stack.slices] for stack in roles.stacks[Role.AXIAL_T2]] == [
        list(range(1, 13)),
        list(range(25, 30)),
    ]
    assert len(roles.choices) == 1
    assert (
        "(12 axial slices, TR 3500 TE 20): refused, proton density in this plane is not read"
        in roles.choices[0]
    )
    assert "(17 axial slices, TR 3500 TE 100): Axial T2" in roles.choices[0]


def test_two_t2_echoes_at_the_same_places_are_not_mixed() -> None:
    for first, second in ((80.0, 120.0), (120.0, 80.0)):
        both = [*sagittal(3, echo_time=first), *anew(sagittal(3, echo_time=second), 3)]
        (stack,) = assign_roles(both).stacks[Role.SAGITTAL_T2]
        assert {s.echo_time for s in stack.slices} == {80.0}


def test_another_frame_of_reference_is_noted_and_read_where_the_images_overlap() -> None:
    study = [*sagittal(2, **T1), *sagittal(3), *axial(4, frame_of_reference_uid="1.2.8")]
    roles = assign_roles(study)
    assert roles.missing == ()
    assert roles.notes == (
        "Axial T2 and Sagittal T2/STIR name different frames of reference; they overlap and are read together",
    )
    assert assign_roles([*sagittal(3), *axial(4)]).notes == ()


def test_axial_slices_that_pass_the_sagittal_images_by_are_told() -> None:
    far = anew(moved(axial(4, 10), z=700.0), 5, frame_of_reference_uid="1.2.8")
    roles = assign_roles([*sagittal(3), *axial(4), *far])
    assert len(roles.stacks[Role.AXIAL_T2]) == 2
    assert roles.notes == ("10 Axial T2 slices lie wholly outside the Sagittal T2/STIR images",)


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


@given(st.lists(anything(), max_size=25))
def test_whatever_a_study_holds_every_series_is_named_once(slices: list[SliceHeader]) -> None:
    with np.errstate(all="ignore"):
        roles = assign_roles(slices)
    assert_each_series_is_named_once(roles, slices)
