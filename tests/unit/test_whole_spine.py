"""Large fields of view, and axial blocks of three slices along each of sixteen discs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lumbar.dicom.discover import find_instances
from lumbar.phantoms.dicom_files import derive_uid
from lumbar.phantoms.planes import Stack, Vector
from lumbar.phantoms.study import Plan, draw_plan, write_plan
from lumbar.spine.anatomy import Role
from lumbar.spine.keypoint_input import KeypointDetector
from lumbar.spine.roles import assign_roles
from tests.stub_networks import StubNetworks
from worker.pipeline import analyse

DISCS, SLICES = 16, 3
SEED = 21


class Networks(StubNetworks):
    """The real level locator."""

    def __init__(self, keypoints: KeypointDetector) -> None:
        self.keypoints = keypoints


def block(plan: Plan, index: int) -> Stack:
    """Three slices along a disc, counted from L5/S1."""
    disc = plan.patient.discs[index]
    down = np.array([0.0, np.cos(disc.frame.angle), np.sin(disc.frame.angle)])
    along = np.array([1.0, 0.0, 0.0])
    step = 4.4 * np.cross(along, down)
    size, spacing = 160, 1.1
    corner = np.array(disc.frame.origin) - (along + down) * spacing * (size - 1) / 2
    return Stack(corner - step, along, down, step, spacing, 4.0, SLICES, size)


def widened(stack: Stack, field: float) -> Stack:
    """The same slices with a larger field of view, in mm."""
    spacing = field / stack.size

    def half(mm: float) -> Vector:
        return np.asarray((stack.along_row + stack.down_column) * mm * (stack.size - 1) / 2)

    return replace(
        stack, spacing=spacing, position=stack.position + half(stack.spacing) - half(spacing)
    )


@pytest.mark.slow
@pytest.mark.parametrize("in_one_series", [True, False])
def test_all_blocks_of_a_whole_spine_are_read(
    tmp_path: Path, keypoints: KeypointDetector, in_one_series: bool
) -> None:
    plan = draw_plan(SEED)
    t2, t1, axial = plan.series
    sagittal = tuple(
        replace(series, stacks=tuple(widened(stack, 480) for stack in series.stacks))
        for series in (t2, t1)
    )
    blocks = [block(plan, index) for index in range(DISCS)]
    groups = [tuple(blocks)] if in_one_series else [(one,) for one in blocks]
    axials = tuple(
        replace(
            axial,
            number=3 + n,
            series_instance_uid=derive_uid(axial.series_instance_uid, n),
            stacks=stacks,
        )
        for n, stacks in enumerate(groups)
    )
    write_plan(replace(plan, series=(*sagittal, *axials)), tmp_path, str)
    instances, _ = find_instances(tmp_path, tmp_path)
    roles = assign_roles([header for instance in instances for header in instance.slices])
    assert [len(s.slices) for s in roles.stacks[Role.AXIAL_T2]] == [SLICES] * DISCS
    assert not roles.missing
    analysis = analyse(instances, Networks(keypoints))
    assert all(finding.assessed for finding in analysis.findings)
