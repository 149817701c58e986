"""On which slices and where each finding is read, given the canal's centre at every disc."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.phantoms.study import draw_plan
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Role, Side
from lumbar.spine.candidates import PER_FINDING, Candidate, candidates
from lumbar.spine.finding_points import (
    FORAMEN_LATERAL_MM,
    RECESS_ANTERIOR_MM,
    RECESS_LATERAL_MM,
    expected_position,
)
from lumbar.spine.roles import Roles, Stack, Weighting, assign_roles
from lumbar.spine.slices import SliceHeader, Vector
from tests.factories.headers import SLICE
from tests.study_factory import CHANGES, Slices

HEADER = replace(SLICE, rows=300, columns=300, position=(0.0, 0.0, 0.0))
STRAIGHT = {
    level: np.array([0.7, 30.0, 150.3 - 36.0 * ordinal]) for ordinal, level in enumerate(Level)
}


def sagittal(series: str) -> Stack:
    slices = (
        replace(
            HEADER,
            series_instance_uid=series,
            sop_instance_uid=f"{series}.{i}",
            position=(x, -120.0, 200.0),
        )
        for i, x in enumerate(np.arange(-33.0, 34.0, 4.4))
    )
    return Stack(tuple(slices), Weighting.T2)


def axial() -> Stack:
    axes = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    slices = (
        replace(
            HEADER, sop_instance_uid=f"1.2.3.{i}", position=(-150.0, -120.0, z), orientation=axes
        )
        for i, z in enumerate(np.arange(-60.0, 180.0, 4.4))
    )
    return Stack(tuple(slices), Weighting.T2)


ROLES = Roles(
    {
        Role.SAGITTAL_T1: (sagittal("1.2.1"),),
        Role.SAGITTAL_T2: (sagittal("1.2.2"),),
        Role.AXIAL_T2: (axial(),),
    },
    (),
)


def moved(roles: Roles, shift: Vector) -> Roles:
    def move(header: SliceHeader) -> SliceHeader:
        x, y, z = (float(v) for v in np.array(header.position) + shift)
        return replace(header, position=(x, y, z))

    return replace(
        roles,
        stacks={
            role: tuple(replace(s, slices=tuple(map(move, s.slices))) for s in stacks)
            for role, stacks in roles.stacks.items()
        },
    )


def offered_at(
    roles: Roles, canal: Mapping[Level, Vector]
) -> tuple[list[Candidate], dict[FindingKey, str]]:
    """The candidates of a spine of usual measures."""
    return candidates(
        roles, {key: expected_position(key, canal) for key in ALL_FINDINGS if key.level in canal}
    )


def places(canal: Mapping[Level, Vector]) -> dict[FindingKey, Vector]:
    """The point of each finding's closest candidate, mm."""
    offered, _ = offered_at(ROLES, canal)
    return {c.key: c.header.to_patient(c.column, c.row) for c in reversed(offered)}


@pytest.mark.parametrize("condition", list(Condition))
def test_points_lie_near_the_true_findings_of_phantoms(condition: Condition) -> None:
    """Within the slice: which slice it is depends on where the slices happen to lie."""
    in_plane = {Role.AXIAL_T2: [0, 1]}.get(condition.role, [1, 2])
    distances = []
    for seed in range(20):
        truth = draw_plan(seed).truth
        canal = {
            v: np.array(truth.points[FindingKey(Condition.SPINAL_CANAL_STENOSIS, v)]) for v in Level
        }
        distances += [
            np.linalg.norm((point - truth.points[key])[in_plane])
            for key, point in places(canal).items()
            if key.condition is condition
        ]
    assert len(distances) == 100
    assert np.median(distances) < 1.5
    assert np.percentile(distances, 95) < 3.5


def test_each_finding_is_offered_the_slices_closest_to_it() -> None:
    offered, reasons = offered_at(ROLES, STRAIGHT)
    assert not reasons
    for key in ALL_FINDINGS:
        of_finding = [c for c in offered if c.key == key]
        assert 1 <= len(of_finding) <= PER_FINDING
        target = STRAIGHT[key.level].copy()
        if key.condition.role is Role.SAGITTAL_T1:
            target[0] += FORAMEN_LATERAL_MM[key.level] * (
                1 if key.condition.side is Side.LEFT else -1
            )
        slices = ROLES.stacks[key.condition.role][0].slices
        closest = np.argsort([abs(s.distance(target)) for s in slices])
        assert [c.header for c in of_finding] == [slices[i] for i in closest[: len(of_finding)]]


@pytest.mark.parametrize("condition", [c for c in Condition if c.side])
def test_the_patients_left_is_where_x_is_larger_than_the_canals(condition: Condition) -> None:
    sign = 1 if condition.side is Side.LEFT else -1
    for key, point in places(STRAIGHT).items():
        if key.condition is condition:
            assert sign * (point[0] - STRAIGHT[key.level][0]) > 5


def test_a_foramen_lies_farther_lateral_at_l5_than_at_l1() -> None:
    lateral = {
        v: places(STRAIGHT)[FindingKey(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, v)][0]
        for v in (Level.L1_L2, Level.L5_S1)
    }
    assert lateral[Level.L5_S1] > lateral[Level.L1_L2] + 2


@given(st.tuples(*[st.floats(-300, 300)] * 3))
def test_moving_patient_and_slices_together_changes_no_pixel(
    shift: tuple[float, float, float],
) -> None:
    points, _ = offered_at(ROLES, STRAIGHT)
    moved_points, _ = offered_at(
        moved(ROLES, np.array(shift)), {v: p + shift for v, p in STRAIGHT.items()}
    )
    assert [(c.key, c.header.sop_instance_uid) for c in points] == [
        (c.key, c.header.sop_instance_uid) for c in moved_points
    ]
    np.testing.assert_allclose(
        [(c.column, c.row) for c in points], [(c.column, c.row) for c in moved_points], atol=1e-6
    )


@pytest.fixture(scope="module")
def places_in_study() -> object:
    return offered_places(STUDY)


@pytest.mark.slow
@pytest.mark.no_cover
@given(
    changes=st.permutations(CHANGES),
    count=st.integers(1, len(CHANGES)),
    random=st.randoms(use_true_random=True),
)
def test_a_study_shuffled_split_duplicated_or_turned_gives_the_same_candidates(
    places_in_study: object,
    changes: list[Callable[[Slices, Random], Slices]],
    count: int,
    random: Random,
) -> None:
    changed = STUDY
    for change in changes[:count]:
        changed = change(changed, random)
    assert offered_places(changed) == places_in_study


def offered_places(slices: Slices) -> list[tuple[FindingKey, tuple[float, ...], tuple[float, ...]]]:
    """Of each candidate the slice, by its centre, and the point on it."""
    offered, _ = offered_at(assign_roles(slices), STRAIGHT)
    return [
        (
            c.key,
            tuple(np.round(c.header.centre, 2).tolist()),
            tuple(np.round(c.header.to_patient(c.column, c.row), 2).tolist()),
        )
        for c in offered
    ]


STUDY = [
    replace(
        header,
        series_instance_uid=f"1.2.{n}",
        sop_instance_uid=f"1.2.{n}.{i}",
        echo_time=echo,
        repetition_time=tr,
    )
    for n, (stack, echo, tr) in enumerate(
        ((sagittal("1"), 12.0, 500.0), (sagittal("2"), 100.0, 3500.0), (axial(), 100.0, 3500.0)),
        start=1,
    )
    for i, header in enumerate(stack.slices)
]

TILTS = st.lists(st.floats(-35, 35), min_size=5, max_size=5)


@given(TILTS, st.lists(st.floats(-20, 20), min_size=5, max_size=5))
def test_each_level_is_read_on_the_closest_slice_with_its_sides_beside_its_own_canal(
    tilts: list[float], offsets: list[float]
) -> None:
    """One tilted block per disc, the spine crooked: every level has another x."""
    canal = {
        v: p + np.array([x, 0.0, 0.0]) for (v, p), x in zip(STRAIGHT.items(), offsets, strict=True)
    }
    stacks = tuple(
        tilted(canal[v], tilt, n) for n, (v, tilt) in enumerate(zip(Level, tilts, strict=True))
    )
    offered, _ = offered_at(replace(ROLES, stacks={Role.AXIAL_T2: stacks}), canal)
    closest = {c.key: c for c in reversed(offered)}
    assert len(closest) == 10
    for key, candidate in closest.items():
        point = candidate.header.to_patient(candidate.column, candidate.row)
        assert np.sign(point[0] - canal[key.level][0]) == (
            1 if key.condition.side is Side.LEFT else -1
        )
        sign = 1 if key.condition.side is Side.LEFT else -1
        target = canal[key.level] + np.array([sign * RECESS_LATERAL_MM, -RECESS_ANTERIOR_MM, 0.0])
        all_slices = [
            s for stack in stacks for s in stack.slices if s.contains(*s.to_pixel(target))
        ]
        closest_distance = min(abs(s.distance(target)) for s in all_slices)
        assert abs(candidate.header.distance(target)) == pytest.approx(closest_distance, abs=0.01)
        assert np.linalg.norm(point - target) == pytest.approx(closest_distance, abs=0.01)


def tilted(centre: Vector, tilt: float, block: int) -> Stack:
    """Five axial slices around a point, turned by degrees about the left-right axis."""
    cos, sin = float(np.cos(np.radians(tilt))), float(np.sin(np.radians(tilt)))
    row, column, normal = (
        np.array([1.0, 0.0, 0.0]),
        np.array([0.0, cos, -sin]),
        np.array([0.0, sin, cos]),
    )
    slices = []
    for i in range(5):
        x, y, z = (float(v) for v in centre + 4.4 * (i - 2) * normal - 75.0 * (row + column))
        uid = f"1.2.4.{block}.{i}"
        axes = (1.0, 0.0, 0.0, 0.0, cos, -sin)
        slices.append(
            replace(
                HEADER,
                sop_instance_uid=uid,
                position=(x, y, z),
                orientation=axes,
                spacing=(0.5, 0.5),
            )
        )
    return Stack(tuple(slices), Weighting.T2)


def test_a_slice_whose_image_ends_before_the_finding_does_not_displace_one_that_shows_it() -> None:
    level = STRAIGHT[Level.L3_L4]
    beside = [
        tilted(level + np.array([200.0, 0.0, 0.0]), 0.0, 1),
        tilted(level + np.array([200.0, 0.0, 1.0]), 0.0, 2),
    ]
    crossing = tilted(level + np.array([0.0, 0.0, 2.0]), 0.0, 3)
    offered, _ = offered_at(replace(ROLES, stacks={Role.AXIAL_T2: (*beside, crossing)}), STRAIGHT)
    assert {c.header.sop_instance_uid for c in offered if c.key.level is Level.L3_L4} <= {
        s.sop_instance_uid for s in crossing.slices
    }
    assert {c.key.level for c in offered} == {Level.L3_L4}


def test_every_finding_without_a_candidate_has_its_reason() -> None:
    roles = Roles(
        {role: stacks for role, stacks in ROLES.stacks.items() if role is not Role.AXIAL_T2}, ()
    )
    canal = dict(STRAIGHT)
    del canal[Level.L1_L2]
    offered, reasons = offered_at(roles, canal)
    assert {c.key for c in offered} | set(reasons) == set(ALL_FINDINGS)
    for key in ALL_FINDINGS:
        if key.condition.role is Role.AXIAL_T2:
            assert reasons[key] == "no Axial T2 series was received"
        elif key.level is Level.L1_L2:
            assert reasons[key] == "the disc level was not found"


def test_a_level_between_no_slices_or_off_the_image_is_not_read() -> None:
    far_aside = {v: p + np.array([80.0, 0.0, 0.0]) for v, p in STRAIGHT.items()}
    _, reasons = offered_at(ROLES, far_aside)
    canal = FindingKey(Condition.SPINAL_CANAL_STENOSIS, Level.L3_L4)
    assert reasons[canal] == "no Sagittal T2/STIR slice passes through it"
    in_front = {v: p - np.array([0.0, 200.0, 0.0]) for v, p in STRAIGHT.items()}
    _, reasons = offered_at(ROLES, in_front)
    assert reasons[canal] == "it lies outside the Sagittal T2/STIR images"
