"""The spinal canal's curve, and coordinates relative to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.phantoms.shapes import Array
from lumbar.spine.anatomy import Level

Points = NDArray[np.float64]

# Distance between the curve's points, mm.
STEP = 0.5
# Distance between the points of the lookup table, and its margin around the curve, mm.
_GRID = 1.0
_MARGIN = 20.0


@dataclass(frozen=True)
class Curve:
    """The centre line of the dural sac, from below upwards.

    ``points`` (n, 3) are in mm (LPS), ``STEP`` apart; ``posterior`` (n, 3) are unit vectors in the
    y–z plane; ``levels`` has the index of each disc's mid-height.
    """

    points: Points
    posterior: Points
    levels: Mapping[Level, int]

    def nearest(self, point: tuple[float, float, float]) -> tuple[float, float, float]:
        """The curve's point nearest to a point, mm (LPS)."""
        x, y, z = self.points[int(np.argmin(np.linalg.norm(self.points - np.array(point), axis=1)))]
        return float(x), float(y), float(z)

    def coordinates(self, y: Array, z: Array) -> tuple[Array, Array]:
        """Distances along the curve and behind it, mm, of points given as 2-D arrays of y and z.

        Valid within ``_MARGIN`` of the curve.
        """
        corner, tables = self._table
        columns = (z - np.float32(corner[1])) / np.float32(_GRID)
        rows = (y - np.float32(corner[0])) / np.float32(_GRID)
        along, behind = (
            cv2.remap(table, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for table in tables
        )
        return np.asarray(along, np.float32), np.asarray(behind, np.float32)

    @cached_property
    def _table(self) -> tuple[Points, tuple[Array, Array]]:
        """The lowest y and z of a grid, mm, and both distances at its points, mm."""
        path = self.points[:, 1:]
        corner = path.min(axis=0) - _MARGIN
        y, z = (
            np.arange(low, high, _GRID)
            for low, high in zip(corner, path.max(axis=0) + _MARGIN, strict=True)
        )
        coarse = path[::4]
        in_y, in_z = (y[:, None] - coarse[:, 0]) ** 2, (z[:, None] - coarse[:, 1]) ** 2
        # Row by row, as squared distances of the whole grid do not fit a processor's cache.
        nearest = 4 * np.stack([np.argmin(row + in_z, axis=1) for row in in_y])
        offset = np.stack(np.broadcast_arrays(y[:, None], z), axis=-1) - path[nearest]
        back = self.posterior[nearest, 1:]
        along = nearest * STEP + offset[..., 1] * back[..., 0] - offset[..., 0] * back[..., 1]
        behind = (offset * back).sum(axis=-1)
        return corner, (along.astype(np.float32), behind.astype(np.float32))


def through(knots: Points, marks: Mapping[Level, Points]) -> Curve:
    """A smooth curve near the knots (mm, from below upwards); levels are at the nearest points."""
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
    # Extend both ends linearly, so that smoothing does not shorten the curve.
    steps = np.arange(1, reach + 1)[:, None]
    before = points[0] - steps[::-1] * (points[1] - points[0])
    after = points[-1] + steps * (points[-1] - points[-2])
    padded = np.concatenate([before, points, after])
    return np.column_stack([np.convolve(column, kernel, mode="valid") for column in padded.T])
