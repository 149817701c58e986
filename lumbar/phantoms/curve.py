"""The spinal canal's curve and the place of any point relative to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.phantoms.shapes import Array
from lumbar.spine.anatomy import Level

Points = NDArray[np.float64]

STEP = 0.5  # mm between the curve's points
_GRID = 1.0  # mm between the points of the chart
_MARGIN = 20.0  # mm that the chart reaches beyond the curve


@dataclass(frozen=True)
class Curve:
    """The middle of the dural sac, from below upwards.

    ``points`` has x, y, z in rows of mm, ``STEP`` apart; ``posterior`` the unit vectors backwards, in the y–z plane;
    ``levels`` the index of each disc's mid-height.
    """

    points: Points
    posterior: Points
    levels: Mapping[Level, int]

    def nearest(self, point: tuple[float, float, float]) -> tuple[float, float, float]:
        """The curve's point nearest to one in mm."""
        x, y, z = self.points[int(np.argmin(np.linalg.norm(self.points - np.array(point), axis=1)))]
        return float(x), float(y), float(z)

    def place(self, y: Array, z: Array) -> tuple[Array, Array]:
        """Distance along the curve and distance behind it, in mm, of points in 2-D arrays of y and z.

        Meaningful within ``_MARGIN`` of the curve.
        """
        corner, charts = self._chart
        columns = (z - np.float32(corner[1])) / np.float32(_GRID)
        rows = (y - np.float32(corner[0])) / np.float32(_GRID)
        along, behind = (
            cv2.remap(chart, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for chart in charts
        )
        return np.asarray(along, np.float32), np.asarray(behind, np.float32)

    @cached_property
    def _chart(self) -> tuple[Points, tuple[Array, Array]]:
        """The lowest y and z of a grid, and both distances at its points."""
        path = self.points[:, 1:]
        corner = path.min(axis=0) - _MARGIN
        y, z = (
            np.arange(low, high, _GRID)
            for low, high in zip(corner, path.max(axis=0) + _MARGIN, strict=True)
        )
        coarse = path[::4]
        squared = (y[:, None, None] - coarse[:, 0]) ** 2 + (z[:, None] - coarse[:, 1]) ** 2
        nearest = 4 * np.argmin(squared, axis=2)
        offset = np.stack(np.broadcast_arrays(y[:, None], z), axis=-1) - path[nearest]
        back = self.posterior[nearest, 1:]
        along = nearest * STEP + offset[..., 1] * back[..., 0] - offset[..., 0] * back[..., 1]
        behind = (offset * back).sum(axis=-1)
        return corner, (along.astype(np.float32), behind.astype(np.float32))


def through(knots: Points, marks: Mapping[Level, Points]) -> Curve:
    """A smooth curve near the knots (mm, from below upwards); each level's index is the point nearest its mark."""
    points = _resample(_smooth(_resample(knots), 12))
    ahead = np.gradient(points[:, 1:], axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    posterior = np.column_stack([np.zeros(len(points)), ahead[:, 1], -ahead[:, 0]])
    levels = {
        level: int(np.argmin(np.linalg.norm(points - mark, axis=1)))
        for level, mark in marks.items()
    }
    return Curve(points, posterior, levels)


def _resample(points: Points) -> Points:
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = np.arange(0, lengths[-1], STEP)
    return np.column_stack([np.interp(at, lengths, column) for column in points.T])


def _smooth(points: Points, sigma: float) -> Points:
    reach = int(4 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    # Continue straight beyond both ends, so that smoothing does not pull them in.
    steps = np.arange(1, reach + 1)[:, None]
    before = points[0] - steps[::-1] * (points[1] - points[0])
    after = points[-1] + steps * (points[-1] - points[-2])
    padded = np.concatenate([before, points, after])
    return np.column_stack([np.convolve(column, kernel, mode="valid") for column in padded.T])
