"""Parallel slices put in order, and which slices lie at the same place. UIDs only break ties."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar.spine.anatomy import Plane
from lumbar.spine.slices import SliceHeader, Vector
from lumbar.spine.weighting import Weighting, fat_suppressed, weighting

PARALLEL = 0.01  # greatest angle between the normals of a stack in radians, about half a degree
SAME_POSITION = 0.1  # mm along the normal
OVERLAP, MAX_OVERLAP_MM = 0.75, 4.0  # of the thickness: slices closer than that show the same
HALFWAY = 0.55  # of the usual distance of neighbours: of slices planned anew none lies farther from an earlier one
EVEN_MM = 0.02  # by which the steps of one acquisition differ, as written
STATION_MM = (
    50.0  # between image centres within the plane; farther apart they show another part of the body
)
GAP = 2.5  # of the usual distance of neighbours: a larger one parts axial blocks; a missing slice makes it 2


@dataclass(frozen=True)
class Stack:
    """Parallel slices of one contrast and frame of reference, no two at the same position.

    Sagittal slices run from the patient's right to the left (+x), axial ones from caudal to cranial (+z).
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
    def steps(self) -> Vector:
        """From each slice to the next, mm along the normal."""
        return np.asarray(
            np.abs(np.diff([s.centre @ self.slices[0].normal for s in self.slices])), dtype=float
        )

    @property
    def extent(self) -> tuple[float, float]:
        """How high the middle of the images lies and how high they are, mm along z."""
        corners = _corners(self.slices[0])[:, 2]
        return float(np.mean([s.centre[2] for s in self.slices])), float(np.ptp(corners))

    def nearest(self, point: Vector) -> tuple[SliceHeader, float]:
        """The slice whose mid-plane is closest to a point (mm, LPS), and its unsigned distance in mm."""
        closest = min(self.slices, key=lambda s: abs(s.distance(point)))
        return closest, abs(closest.distance(point))

    def meets(self, other: "Stack") -> bool:
        """Whether the other's images reach into the box around these, as seen along this stack's axes."""
        first = self.slices[0]
        axes = np.stack([first.along_row, first.down_column, first.normal], axis=1)
        ours, theirs = (
            (np.concatenate([_corners(s) for s in stack.slices]) @ axes) for stack in (self, other)
        )
        return bool(
            np.all(ours.min(axis=0) <= theirs.max(axis=0))
            and np.all(theirs.min(axis=0) <= ours.max(axis=0))
        )


class Places:
    """Where slices lie: asked which of them lie beside another slice, or show the same."""

    def __init__(self, slices: Sequence[SliceHeader]) -> None:
        self._centres = np.array([s.centre for s in slices]).reshape(-1, 3)
        self._normals = np.array([s.normal for s in slices]).reshape(-1, 3)

    def parallel(self, header: SliceHeader) -> NDArray[np.bool_]:
        """Of each slice: whether it is parallel, whichever way its normal points."""
        return _parallel(self._normals, header.normal)

    def shared(self, header: SliceHeader, step: float) -> NDArray[np.bool_]:
        """Of each slice: whether it shows what this one shows, parallel and less than a thickness away.

        ``step``: mm, as far as this one usually lies from its own neighbours; about half of it is another place.
        """
        offsets = self._centres - header.centre
        reach = max(
            SAME_POSITION, min(OVERLAP * (header.thickness or 0.0), MAX_OVERLAP_MM, HALFWAY * step)
        )
        near = (np.abs(offsets @ header.normal) <= reach) & (
            np.linalg.norm(offsets, axis=1) <= STATION_MM
        )
        return np.asarray(near & self.parallel(header))

    def even(self, which: NDArray[np.bool_]) -> bool:
        """Whether these lie at even steps: two halves of one acquisition do together, it and its repeat do not."""
        normals = self._normals[which]
        steps = np.diff(np.sort(self._centres[which] @ normals[0]))
        evenly = steps.min() > SAME_POSITION and np.ptp(steps) <= EVEN_MM
        return bool(evenly and _parallel(normals, normals[0]).all())


def stacks(slices: Sequence[SliceHeader]) -> tuple[Stack, ...]:
    """The stacks that alike slices of one plane form, the largest first; of slices at the same position one is kept."""
    found = [
        Stack(tuple(run), weighting(run[0])) for block in blocks(slices) for run in _runs(block)
    ]
    return tuple(sorted(found, key=lambda s: (-len(s.slices), lying(s.slices[0]))))


def blocks(slices: Sequence[SliceHeader]) -> list[list[SliceHeader]]:
    """Parted by orientation, and within the plane by the part of the body that the images show."""
    parallel: list[list[SliceHeader]] = []
    normals = np.empty((0, 3))
    for header in sorted(slices, key=lying):
        known = np.flatnonzero(_parallel(normals, header.normal))
        if known.size:
            parallel[known[0]].append(header)
        else:
            parallel.append([header])
            normals = np.vstack([normals, header.normal])
    return [
        station
        for block in parallel
        for row in _parted(block, block[0].along_row, STATION_MM)
        for station in _parted(row, block[0].down_column, STATION_MM)
    ]


def identity(header: SliceHeader) -> tuple[tuple[tuple[int, str], ...], str, int, str, int]:
    """A total order that the order of arrival cannot change; series UIDs compare as numbers, however long."""
    series = header.series_instance_uid
    numbers = (part.lstrip("0") for part in series.split("."))
    parts = tuple((len(number), number) for number in numbers)
    return parts, series, header.instance_number, header.sop_instance_uid, header.frame or 0


def lying(header: SliceHeader) -> tuple[object, ...]:
    """An order by where the slices lie, the feet first; only of slices at the same place do UIDs decide."""
    return tuple(float(v) for v in np.round(header.centre[::-1], 2)), identity(header)


def _runs(block: list[SliceHeader]) -> list[list[SliceHeader]]:
    """In order along the normal; sagittal slices in one run, axial ones parted at large gaps."""
    axis = block[0].normal
    axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
    run: list[SliceHeader] = []
    places: list[float] = []
    for header in sorted(block, key=lambda s: (round(float(s.centre @ axis), 3), identity(s))):
        place = float(header.centre @ axis)
        if not run or place - places[-1] > SAME_POSITION:
            run.append(header)
            places.append(place)
    if block[0].plane is not Plane.AXIAL or len(run) < 3:
        return [run]
    return _parted(run, axis, GAP * float(np.median(np.diff(places))))


def _parted(slices: list[SliceHeader], direction: Vector, gap: float) -> list[list[SliceHeader]]:
    """Parted wherever neighbours along a direction are more than ``gap`` mm from each other."""
    places = np.array([s.centre @ direction for s in slices])
    order = np.argsort(places, kind="stable")
    return [
        [slices[i] for i in part]
        for part in np.split(order, np.flatnonzero(np.diff(places[order]) > gap) + 1)
    ]


def _parallel(normals: Vector, normal: Vector) -> NDArray[np.bool_]:
    return np.asarray(np.abs(normals @ normal) >= 1 - PARALLEL**2 / 2)


def _corners(header: SliceHeader) -> Vector:
    right, bottom = header.columns - 0.5, header.rows - 0.5
    return np.stack(
        [header.to_patient(column, row) for column in (-0.5, right) for row in (-0.5, bottom)]
    )
