"""Orders parallel slices and finds those at the same position. UIDs only break ties."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lumbar.spine.anatomy import Plane
from lumbar.spine.slices import SliceHeader, Vector
from lumbar.spine.weighting import Weighting, fat_suppressed, weighting

MAX_ANGLE = 0.01  # rad, about half a degree, between the normals of a stack
SAME_POSITION_MM = 0.1  # maximum distance along the normal
# A share of the slice thickness, and its maximum in mm: closer slices show the same tissue.
OVERLAP, MAX_OVERLAP_MM = 0.75, 4.0
# A share of the usual spacing: if an acquisition is planned anew and repeated, none of its slices
# lies farther than this from a slice of the earlier one.
HALFWAY = 0.55
EVEN_MM = 0.02  # maximum difference of the slice distances of one acquisition, as in the headers
# Between image centres within the plane; farther apart they show different parts of the body.
STATION_MM = 50.0
# A multiple of the usual spacing: a larger gap separates axial blocks. A missing slice leaves 2.
MAX_GAP = 2.5


@dataclass(frozen=True)
class Stack:
    """Parallel slices of one contrast and frame of reference, no two at the same position.

    Sagittal slices run from the patient's right to the left (+x), axial ones from caudal to cranial
    (+z).
    """

    slices: tuple[SliceHeader, ...]
    weighting: Weighting

    @property
    def plane(self) -> Plane:
        return self.slices[0].plane

    @property
    def fat_suppressed(self) -> bool:
        return fat_suppressed(self.slices[0])

    @property
    def spacings(self) -> Vector:
        """The distance from each slice to the next, mm along the normal."""
        return np.asarray(
            np.abs(np.diff([s.centre @ self.slices[0].normal for s in self.slices])), dtype=float
        )

    @property
    def extent(self) -> tuple[float, float]:
        """The middle of the images along z, and their height, mm."""
        corners = _corners(self.slices[0])[:, 2]
        return float(np.mean([s.centre[2] for s in self.slices])), float(np.ptp(corners))

    @property
    def corners(self) -> Vector:
        """(4 n, 3): the corners of all images, mm (LPS)."""
        return np.concatenate([_corners(header) for header in self.slices])

    def nearest(self, point: Vector) -> tuple[SliceHeader, float]:
        """The slice whose mid-plane is closest to a point (mm, LPS), and its distance in mm."""
        closest = min(self.slices, key=lambda s: abs(s.distance(point)))
        return closest, abs(closest.distance(point))

    def overlaps(self, other: "Stack") -> bool:
        """Whether the bounding boxes of both stacks' images, along this one's axes, intersect."""
        first = self.slices[0]
        axes = np.stack([first.along_row, first.down_column, first.normal], axis=1)
        corners, others = self.corners @ axes, other.corners @ axes
        return bool(
            np.all(corners.min(axis=0) <= others.max(axis=0))
            and np.all(others.min(axis=0) <= corners.max(axis=0))
        )


class SlicePositions:
    """The positions of a set of slices, for comparison with another slice."""

    def __init__(self, slices: Sequence[SliceHeader]) -> None:
        self._centres = np.array([s.centre for s in slices]).reshape(-1, 3)
        self._normals = np.array([s.normal for s in slices]).reshape(-1, 3)

    def parallel(self, header: SliceHeader) -> NDArray[np.bool_]:
        """Per slice: whether it is parallel to ``header``, regardless of the normals' signs."""
        return _parallel(self._normals, header.normal)

    def same_position(self, header: SliceHeader, spacing: float) -> NDArray[np.bool_]:
        """Per slice: whether it shows what ``header`` shows, parallel and closer than a thickness.

        ``spacing``: mm, the usual distance of ``header`` from its own neighbours; a slice about
        half as far away already has another position.
        """
        offsets = self._centres - header.centre
        reach = max(
            SAME_POSITION_MM,
            min(OVERLAP * (header.thickness or 0.0), MAX_OVERLAP_MM, HALFWAY * spacing),
        )
        near = (np.abs(offsets @ header.normal) <= reach) & (
            np.linalg.norm(offsets, axis=1) <= STATION_MM
        )
        return np.asarray(near & self.parallel(header))

    def evenly_spaced(self, selected: NDArray[np.bool_]) -> bool:
        """Whether the selected slices are parallel and evenly spaced.

        Two halves of one acquisition are, together; an acquisition and its repeat are not.
        """
        normals = self._normals[selected]
        spacings = np.diff(np.sort(self._centres[selected] @ normals[0]))
        even = spacings.min() > SAME_POSITION_MM and np.ptp(spacings) <= EVEN_MM
        return bool(even and _parallel(normals, normals[0]).all())


def build_stacks(slices: Sequence[SliceHeader]) -> tuple[Stack, ...]:
    """The stacks formed by slices of one plane and contrast, the largest first.

    Only one of several slices at the same position is kept.
    """
    stacks = [
        Stack(tuple(run), weighting(run[0]))
        for block in parallel_blocks(slices)
        for run in _runs(block)
    ]
    return tuple(sorted(stacks, key=lambda s: (-len(s.slices), position_key(s.slices[0]))))


def parallel_blocks(slices: Sequence[SliceHeader]) -> list[list[SliceHeader]]:
    """Slices grouped by orientation and, within the plane, by the part of the body they show."""
    parallel: list[list[SliceHeader]] = []
    normals = np.empty((0, 3))
    for header in sorted(slices, key=position_key):
        matching = np.flatnonzero(_parallel(normals, header.normal))
        if matching.size:
            parallel[matching[0]].append(header)
        else:
            parallel.append([header])
            normals = np.vstack([normals, header.normal])
    return [
        station
        for block in parallel
        for row in _split_at_gaps(block, block[0].along_row, STATION_MM)
        for station in _split_at_gaps(row, block[0].down_column, STATION_MM)
    ]


def identity_key(header: SliceHeader) -> tuple[tuple[tuple[int, str], ...], str, int, str, int]:
    """A total order that does not depend on the order of arrival.

    The components of series UIDs compare as numbers of any length.
    """
    series = header.series_instance_uid
    components = (component.lstrip("0") for component in series.split("."))
    numeric = tuple((len(digits), digits) for digits in components)
    return numeric, series, header.instance_number, header.sop_instance_uid, header.frame or 0


def position_key(header: SliceHeader) -> tuple[object, ...]:
    """An order by position, caudal to cranial; UIDs decide only between slices at the same one."""
    return tuple(float(v) for v in np.round(header.centre[::-1], 2)), identity_key(header)


def _runs(block: list[SliceHeader]) -> list[list[SliceHeader]]:
    """The slices in order along the normal: axial ones split at large gaps, sagittal ones not."""
    axis = block[0].normal
    axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
    run: list[SliceHeader] = []
    positions: list[float] = []
    for header in sorted(block, key=lambda s: (round(float(s.centre @ axis), 3), identity_key(s))):
        position = float(header.centre @ axis)
        if not run or position - positions[-1] > SAME_POSITION_MM:
            run.append(header)
            positions.append(position)
    if block[0].plane is not Plane.AXIAL or len(run) < 3:
        return [run]
    return _split_at_gaps(run, axis, MAX_GAP * float(np.median(np.diff(positions))))


def _split_at_gaps(
    slices: list[SliceHeader], direction: Vector, gap: float
) -> list[list[SliceHeader]]:
    """The slices, split where neighbours along a direction are more than ``gap`` mm apart."""
    positions = np.array([s.centre @ direction for s in slices])
    order = np.argsort(positions, kind="stable")
    ordered = [slices[i] for i in order]
    ends = np.flatnonzero(np.diff(positions[order]) > gap) + 1
    bounds = [0, *ends.tolist(), len(ordered)]
    return [ordered[start:end] for start, end in pairwise(bounds)]


def _parallel(normals: Vector, normal: Vector) -> NDArray[np.bool_]:
    return np.asarray(np.abs(normals @ normal) >= 1 - MAX_ANGLE**2 / 2)


def _corners(header: SliceHeader) -> Vector:
    """(4, 3): the corners of an image, mm (LPS)."""
    right, bottom = header.columns - 0.5, header.rows - 0.5
    return np.stack(
        [header.to_patient(column, row) for column in (-0.5, right) for row in (-0.5, bottom)]
    )
