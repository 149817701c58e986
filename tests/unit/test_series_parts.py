"""Split series are joined; of repeated series one is read."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lumbar.spine.anatomy import Role
from lumbar.spine.roles import assign_roles
from lumbar.spine.slices import SliceHeader
from tests.factories.series import (
    EVEN,
    LOWER,
    ODD,
    STIR,
    T1,
    UPPER,
    anew,
    axial,
    moved,
    places,
    sagittal,
    series_of,
)


@pytest.mark.parametrize(
    ("first_part", "second_part"), [(EVEN, ODD), (LOWER, UPPER), (UPPER, LOWER)]
)
def test_a_series_split_in_two_is_joined(first_part: slice, second_part: slice) -> None:
    series = sagittal(3)
    roles = assign_roles(
        [*sagittal(2, **T1), *anew(series[first_part], 5), *anew(series[second_part], 4)]
    )
    assert places(roles) == places(assign_roles([*sagittal(2, **T1), *series]))
    counts = len(series[second_part]), len(series[first_part])
    assert roles.choices[1:] == tuple(
        f"series {n} ({count} sagittal slices, TR 3500 TE 100): Sagittal T2/STIR; "
        "series 2 and 3 belong together"
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
def test_slices_acquired_differently_are_not_joined(values: dict[str, object]) -> None:
    roles = assign_roles([*sagittal(3)[LOWER], *anew(sagittal(3)[UPPER], 4, **values)])
    (stack,) = roles.stacks[Role.SAGITTAL_T2]
    assert series_of(stack.slices) == {"1.2.4"}
    assert "fewer than 8" in roles.choices[0]


def test_axial_blocks_of_a_few_slices_each_in_its_own_series_are_joined() -> None:
    blocks = [axial(20 + n, 4, tilt=10.0 * n, z=-60.0 + 30 * n) for n in range(5)]
    roles = assign_roles([s for block in blocks for s in block])
    assert [len(s.slices) for s in roles.stacks[Role.AXIAL_T2]] == [4] * 5
    assert all("series 1, 2, 3, 4 and 5 belong together" in choice for choice in roles.choices)


def test_series_whose_times_differ_by_little_are_joined() -> None:
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
    second_part = {**STIR, "inversion_time": 165.0}
    (stack,) = assign_roles(
        [*sagittal(3, **STIR)[EVEN], *anew(sagittal(3, **second_part)[ODD], 4)]
    ).stacks[Role.SAGITTAL_T2]
    assert len(stack.slices) == 15


def test_series_whose_times_drift_apart_stepwise_are_not_one_acquisition() -> None:
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
    for preferred, worse in (
        (first, again[:17]),
        (again, first[:17]),
        (first, again[ODD]),
        (first[ODD], again),
    ):
        most = max(preferred, worse, key=len)
        roles = assign_roles([*sagittal(7, **T1), *preferred, *worse])
        role = Role.SAGITTAL_T2 if make is sagittal else Role.AXIAL_T2
        assert [list(s.slices) for s in roles.stacks[role]] == [most]
        assert sum("not read, it repeats series" in choice for choice in roles.choices) == 1


def test_a_repeat_is_noted_with_the_series_it_repeats() -> None:
    roles = assign_roles([*sagittal(3), *anew(sagittal(3)[:14], 4), *anew(sagittal(3)[EVEN], 5)])
    assert [choice.split(": ")[1] for choice in roles.choices] == [
        "Sagittal T2/STIR",
        "not read, it repeats series 1",
        "not read, it repeats series 1",
    ]


def test_a_split_series_that_was_repeated_whole_is_read_in_one_piece() -> None:
    series = sagittal(3)
    roles = assign_roles([*anew(series[EVEN], 1), *anew(series[ODD], 2), *series[:14]])
    (stack,) = roles.stacks[Role.SAGITTAL_T2]
    assert series_of(stack.slices) == {"1.2.1", "1.2.2"}
    assert len(stack.slices) == 15
    assert "not read, it repeats series 1 and 2" in roles.choices[2]


def test_axial_slices_acquired_with_and_without_fat_suppression_are_read_once() -> None:
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
def test_axial_slices_at_positions_that_no_better_series_shows_are_read(
    values: dict[str, object], rest: str
) -> None:
    upper = anew(moved(axial(3, 12, **values), z=14 * 4.4), 4)
    roles = assign_roles([*axial(3, 20), *upper])
    assert [list(s.slices) for s in roles.stacks[Role.AXIAL_T2]] == [axial(3, 20), upper[6:]]
    described = f"(6 axial slices, TR 3500 TE {upper[0].echo_time:.0f})"
    assert roles.choices[1] == f"series 2 {described}: Axial T2; {described}: not read, {rest}"


@pytest.mark.parametrize(
    ("first_part", "second_part"),
    [(EVEN, ODD), (slice(0, 20), slice(20, None)), (slice(0, 31), slice(31, None))],
)
@pytest.mark.parametrize("count", [40, 41])
def test_thin_slices_that_overlap_are_all_read_though_split(
    first_part: slice, second_part: slice, count: int
) -> None:
    thin = [
        replace(s, position=(-10 + 0.5 * n, *s.position[1:]), thickness=1.0)
        for n, s in enumerate(sagittal(3, count))
    ]
    (stack,) = assign_roles([*anew(thin[first_part], 5), *anew(thin[second_part], 4)]).stacks[
        Role.SAGITTAL_T2
    ]
    assert [s.position for s in stack.slices] == [s.position for s in thin]
