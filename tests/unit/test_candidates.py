"""On which slices and where each finding is read, given the canal's centre at every disc."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.phantoms.study import draw_plan
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Role, Side
from lumbar.spine.candidates import FORAMEN_ASIDE_MM, PER_FINDING, candidates
from lumbar.spine.roles import Roles, Stack, Weighting
from lumbar.spine.slices import SliceHeader, Vector
from tests.unit.headers import SLICE

HEADER = replace(SLICE, rows=300, columns=300, position=(0.0, 0.0, 0.0))
STRAIGHT = {level: np.array([0.7, 30.0, 150.3 - 36.0 * ordinal]) for ordinal, level in enumerate(Level)}


def sagittal(series: str) -> Stack:
    slices = (
        replace(HEADER, series_instance_uid=series, sop_instance_uid=f"{series}.{i}", position=(x, -120.0, 200.0))
        for i, x in enumerate(np.arange(-33.0, 34.0, 4.4))
    )
    return Stack(tuple(slices), Weighting.T2)


def axial() -> Stack:
    axes = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    slices = (
        replace(HEADER, sop_instance_uid=f"1.2.3.{i}", position=(-150.0, -120.0, z), orientation=axes)
        for i, z in enumerate(np.arange(-60.0, 180.0, 4.4))
    )
    return Stack(tuple(slices), Weighting.T2)


ROLES = Roles(
    {Role.SAGITTAL_T1: (sagittal("1.2.1"),), Role.SAGITTAL_T2: (sagittal("1.2.2"),), Role.AXIAL_T2: (axial(),)}, ()
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


def places(canal: Mapping[Level, Vector]) -> dict[FindingKey, Vector]:
    """The point of each finding's closest candidate, mm."""
    offered, _ = candidates(ROLES, canal)
    return {c.key: c.header.to_patient(c.column, c.row) for c in reversed(offered)}


@pytest.mark.parametrize("condition", list(Condition))
def test_points_lie_near_the_true_findings_of_phantoms(condition: Condition) -> None:
    """Within the slice: which slice it is depends on where the slices happen to lie."""
    in_plane = {Role.AXIAL_T2: [0, 1]}.get(condition.role, [1, 2])
    away = []
    for seed in range(20):
        truth = draw_plan(seed).truth
        canal = {v: np.array(truth.points[FindingKey(Condition.SPINAL_CANAL_STENOSIS, v)]) for v in Level}
        away += [
            np.linalg.norm((point - truth.points[key])[in_plane])
            for key, point in places(canal).items()
            if key.condition is condition
        ]
    assert len(away) == 100
    assert np.median(away) < 1.5
    assert np.percentile(away, 95) < 3.5


def test_each_finding_is_offered_the_slices_closest_to_it() -> None:
    offered, reasons = candidates(ROLES, STRAIGHT)
    assert not reasons
    for key in ALL_FINDINGS:
        own = [c for c in offered if c.key == key]
        assert 1 <= len(own) <= PER_FINDING
        target = STRAIGHT[key.level].copy()
        if key.condition.role is Role.SAGITTAL_T1:
            target[0] += FORAMEN_ASIDE_MM[key.level] * (1 if key.condition.side is Side.LEFT else -1)
        slices = ROLES.stacks[key.condition.role][0].slices
        closest = np.argsort([abs(s.distance(target)) for s in slices])
        assert [c.header for c in own] == [slices[i] for i in closest[: len(own)]]


@pytest.mark.parametrize("condition", [c for c in Condition if c.side])
def test_the_patients_left_is_where_x_is_larger_than_the_canals(condition: Condition) -> None:
    sign = 1 if condition.side is Side.LEFT else -1
    for key, point in places(STRAIGHT).items():
        if key.condition is condition:
            assert sign * (point[0] - STRAIGHT[key.level][0]) > 5


def test_a_foramen_lies_farther_aside_at_l5_than_at_l1() -> None:
    aside = {
        v: places(STRAIGHT)[FindingKey(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, v)][0]
        for v in (Level.L1_L2, Level.L5_S1)
    }
    assert aside[Level.L5_S1] > aside[Level.L1_L2] + 2


@given(st.tuples(*[st.floats(-300, 300)] * 3))
def test_moving_patient_and_slices_together_changes_no_pixel(shift: tuple[float, float, float]) -> None:
    here, _ = candidates(ROLES, STRAIGHT)
    there, _ = candidates(moved(ROLES, np.array(shift)), {v: p + shift for v, p in STRAIGHT.items()})
    assert [(c.key, c.header.sop_instance_uid) for c in here] == [(c.key, c.header.sop_instance_uid) for c in there]
    np.testing.assert_allclose([(c.column, c.row) for c in here], [(c.column, c.row) for c in there], atol=1e-6)


def test_every_finding_without_a_candidate_has_its_reason() -> None:
    bare = Roles({role: stacks for role, stacks in ROLES.stacks.items() if role is not Role.AXIAL_T2}, ())
    canal = dict(STRAIGHT)
    del canal[Level.L1_L2]
    offered, reasons = candidates(bare, canal)
    assert {c.key for c in offered} | set(reasons) == set(ALL_FINDINGS)
    for key in ALL_FINDINGS:
        if key.condition.role is Role.AXIAL_T2:
            assert reasons[key] == "no Axial T2 series was received"
        elif key.level is Level.L1_L2:
            assert reasons[key] == "the disc level was not found"


def test_a_level_between_no_slices_or_off_the_image_is_not_read() -> None:
    far_aside = {v: p + np.array([80.0, 0.0, 0.0]) for v, p in STRAIGHT.items()}
    _, reasons = candidates(ROLES, far_aside)
    canal = FindingKey(Condition.SPINAL_CANAL_STENOSIS, Level.L3_L4)
    assert reasons[canal] == "no Sagittal T2/STIR slice passes through it"
    in_front = {v: p - np.array([0.0, 200.0, 0.0]) for v, p in STRAIGHT.items()}
    _, reasons = candidates(ROLES, in_front)
    assert reasons[canal] == "it lies outside the Sagittal T2/STIR images"
