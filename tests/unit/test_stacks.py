"""Stacks of slices: stations, localizers, gaps, frames of reference, multi-frame instances."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.spine.anatomy import Role
from lumbar.spine.roles import assign_roles
from lumbar.spine.slices import SliceHeader
from tests.factories.series import (
    STIR,
    STUDY,
    T1,
    T2,
    anew,
    axial,
    moved,
    places,
    sagittal,
    series_of,
)
from tests.study_factory import shuffled


def test_a_missing_slice_splits_no_stack_and_a_large_gap_separates_axial_blocks() -> None:
    gappy = [s for s in axial(3, 20) if s.instance_number not in (5, 10, 11, 12)]
    stacks = assign_roles(
        [*gappy, *(s for s in sagittal(4) if s.instance_number not in (3, 4, 5, 9))]
    ).stacks
    assert [[s.instance_number for s in stack.slices] for stack in stacks[Role.AXIAL_T2]] == [
        [0, 1, 2, 3, 4, 6, 7, 8, 9],
        [13, 14, 15, 16, 17, 18, 19],
    ]
    assert [len(stack.slices) for stack in stacks[Role.SAGITTAL_T2]] == [11]


def test_slices_of_another_matrix_fill_a_stack_but_never_duplicate_it() -> None:
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
    roles = assign_roles(shuffled([s for slices in offered for s in slices], random))
    stacks = roles.stacks[Role.SAGITTAL_T2]
    assert [series_of(stack.slices) for stack in stacks] == [
        series_of(tuple(slices)) for slices in offered[:3]
    ]
    assert [roles.choices[n].split(": ")[1] for n in order] == [
        *(f"Sagittal T2/STIR, station {n} of 3 from below" for n in (1, 2, 3)),
        *["not read, another is better for Sagittal T2/STIR"] * 2,
    ]


@pytest.mark.parametrize(("offset_mm", "stations"), [(0.0, 1), (143.0, 1), (145.0, 2), (-145.0, 2)])
def test_sagittal_images_half_their_height_apart_show_another_station(
    offset_mm: float, stations: int
) -> None:
    roles = assign_roles([*sagittal(3), *anew(moved(sagittal(3, **STIR), z=offset_mm), 4)])
    assert len(roles.stacks[Role.SAGITTAL_T2]) == stations


def test_stations_in_separate_frames_of_reference_cause_no_note() -> None:
    upper = {"frame_of_reference_uid": "1.2.8"}
    lumbar = [*sagittal(2, **T1), *sagittal(3)]
    above = [
        s for n, times in ((5, T1), (6, T2)) for s in moved(sagittal(n, **times, **upper), z=250.0)
    ]  # type: ignore[arg-type]
    assert assign_roles([*lumbar, *above]).notes == ()
    assert assign_roles([*lumbar, *above[15:]]).notes == ()
    assert len(assign_roles([*lumbar[15:], *above[:15]]).notes) == 1


@pytest.mark.parametrize("stray", [axial(3, 1), axial(3, 7), [*axial(3, 1), *axial(3, 1, tilt=50)]])
def test_a_few_stray_slices_do_not_make_a_whole_series_a_localizer(
    stray: list[SliceHeader],
) -> None:
    roles = assign_roles([*sagittal(3), *stray])
    (stack,) = roles.stacks[Role.SAGITTAL_T2]
    assert len(stack.slices) == 15
    assert roles.missing == (Role.SAGITTAL_T1, Role.AXIAL_T2)
    assert "refused, a localizer" in roles.choices[0]


def test_a_study_merged_into_one_series_is_read() -> None:
    assert places(assign_roles(anew(STUDY, 5))) == places(assign_roles(STUDY))


def test_copies_do_not_turn_a_localizer_into_a_series() -> None:
    localizer = [*sagittal(3, 3), *axial(3, 3)]
    copies = [
        replace(s, sop_instance_uid=f"{s.sop_instance_uid}.{n}")
        for s in localizer
        for n in range(4)
    ]
    assert assign_roles(copies).stacks == {}
    assert "refused, a localizer" in assign_roles(copies).choices[0]


def test_an_axial_block_steeper_than_45_degrees_does_not_make_its_series_a_localizer() -> None:
    roles = assign_roles([*axial(3, 20), *axial(3, 4, tilt=50, z=-100)])
    assert [len(s.slices) for s in roles.stacks[Role.AXIAL_T2]] == [20]
    assert "T2 in this plane is not read" in roles.choices[0]


def test_one_multi_frame_instance_may_contain_several_stacks_and_echoes() -> None:
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


def test_two_t2_echoes_at_the_same_positions_are_not_mixed() -> None:
    for first, second in ((80.0, 120.0), (120.0, 80.0)):
        both = [*sagittal(3, echo_time=first), *anew(sagittal(3, echo_time=second), 3)]
        (stack,) = assign_roles(both).stacks[Role.SAGITTAL_T2]
        assert {s.echo_time for s in stack.slices} == {80.0}


def test_another_frame_of_reference_is_noted_and_read_where_the_images_overlap() -> None:
    study = [*sagittal(2, **T1), *sagittal(3), *axial(4, frame_of_reference_uid="1.2.8")]
    roles = assign_roles(study)
    assert roles.missing == ()
    assert roles.notes == (
        "Axial T2 and Sagittal T2/STIR state different frames of reference; "
        "they overlap and are read together",
    )
    assert assign_roles([*sagittal(3), *axial(4)]).notes == ()


def test_axial_slices_wholly_outside_the_sagittal_images_are_noted() -> None:
    outside = anew(moved(axial(4, 10), z=700.0), 5, frame_of_reference_uid="1.2.8")
    roles = assign_roles([*sagittal(3), *axial(4), *outside])
    assert len(roles.stacks[Role.AXIAL_T2]) == 2
    assert roles.notes == ("10 Axial T2 slices lie entirely outside the Sagittal T2/STIR images",)
