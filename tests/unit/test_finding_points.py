"""The detected foramina's positions in the patient, whatever the orientation of the slices."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey, Level, Role
from lumbar.spine.finding_points import FORAMEN_SD_MM, expected_position, find_points
from lumbar.spine.keypoint_input import SAGITTAL, picture
from lumbar.spine.levels import Levels
from lumbar.spine.roles import Roles, Stack, Weighting
from lumbar.spine.slices import SliceHeader, Vector
from tests.factories.headers import SLICE
from tests.stub_networks import seen_at

CANAL = {level: np.array([0.7, 30.0, 72.3 - 36.0 * n]) for n, level in enumerate(Level)}
USUAL = {
    key: expected_position(key, CANAL)
    for key in ALL_FINDINGS
    if key.condition.role is Role.SAGITTAL_T1
}
BLANK = np.ones((SLICE.rows, SLICE.columns), np.float32)


def stack(lean: float, towards_right: bool) -> Stack:
    """Sixteen sagittal slices through the canal's middle, tilted sideways by ``lean`` degrees."""
    sin, cos = np.sin(np.radians(lean)), np.cos(np.radians(lean))
    down, normal = np.array([sin, 0.0, -cos]), np.array([cos, 0.0, sin])
    slices = []
    for i in range(16):
        step = 4.4 * (i - 7.5) * (-1 if towards_right else 1)
        corner = (
            np.array([0.0, 30.0, 0.0]) + step * normal - 160.0 * down - np.array([0.0, 160.0, 0.0])
        )
        x, y, z = (float(v) for v in corner)
        axes = (0.0, 1.0, 0.0, *(float(v) for v in down))
        slices.append(
            replace(SLICE, sop_instance_uid=f"1.2.{i}", position=(x, y, z), orientation=axes)
        )
    return Stack(tuple(slices), Weighting.T1)


class Seeing:
    """Detects every foramen at its true position, fading with the distance of the slices from it.

    Expects the pictures of the slices read last.
    """

    def __init__(self, truth: Mapping[FindingKey, Vector]) -> None:
        self.truth = truth
        self.read: list[SliceHeader] = []

    def slice(self, header: SliceHeader) -> NDArray[np.float32]:
        self.read.append(header)
        return BLANK

    def sagittal(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        heats = np.zeros(
            (len(pictures), SAGITTAL.cells, SAGITTAL.cells, len(SAGITTAL.points)), np.float32
        )
        centre = np.mean(list(USUAL.values()), axis=0)
        for heat, header in zip(heats, self.read[-len(pictures) :], strict=True):
            view = picture(BLANK, header, centre, SAGITTAL)
            for key, point in self.truth.items():
                x, y = view.to_cell(point)
                blob = seen_at([(x, y)], SAGITTAL, 1)[0, ..., 0]
                faint = np.exp(-((header.distance(point) / FORAMEN_SD_MM) ** 2) / 2)
                channel = SAGITTAL.points.index(f"foramen_{key.level}")
                heat[..., channel] = np.maximum(heat[..., channel], blob * faint)
        return heats

    def axial(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        raise AssertionError("there are no axial slices")

    border = axial


@pytest.mark.parametrize("lean", [0.0, 3.0, -8.0])
@pytest.mark.parametrize("towards_right", [False, True])
@pytest.mark.parametrize("off", [(0.0, 0.0, 0.0), (2.5, 1.0, -2.0), (-2.5, -1.5, 2.0)])
def test_a_visible_foramen_is_located_at_its_true_position(
    lean: float, towards_right: bool, off: tuple[float, float, float]
) -> None:
    truth = {key: point + np.array(off) for key, point in USUAL.items()}
    network = Seeing(truth)
    roles = Roles({Role.SAGITTAL_T1: (stack(lean, towards_right),)}, ())
    points = find_points(Levels(CANAL, SLICE, (), (), 1.0), roles, network.slice, network)
    assert points.detected == frozenset(truth)
    for key, point in truth.items():
        assert np.linalg.norm(points.positions[key] - point) < 1.2


def test_slices_of_another_station_are_not_read() -> None:
    lumbar = stack(0.0, False)
    raised = []
    for i, header in enumerate(lumbar.slices):
        x, y, z = header.position
        raised.append(replace(header, sop_instance_uid=f"9.{i}", position=(x, y, z + 400.0)))
    neck = replace(lumbar, slices=tuple(raised))
    network = Seeing(USUAL)
    roles = Roles({Role.SAGITTAL_T1: (stack(0.0, False), neck)}, ())
    find_points(Levels(CANAL, SLICE, (), (), 1.0), roles, network.slice, network)
    assert network.read
    assert not any(header.sop_instance_uid.startswith("9.") for header in network.read)
