"""The slice positions of the simulated scanners."""

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from lumbar.phantoms.patient import Patient
from lumbar.phantoms.shapes import Lattice
from lumbar.phantoms.truth import Point
from lumbar.spine.anatomy import Level, Side

Vector = NDArray[np.float64]


class Region(StrEnum):
    """The region in a sagittal field of view."""

    LUMBAR = "lumbar"
    # Lumbar, but without the sacrum.
    CUT = "cut"
    THORAX = "thorax"
    NECK = "neck"
    PELVIS = "pelvis"


@dataclass(frozen=True)
class Stack:
    """Parallel slices; ``position`` (mm, LPS) is the centre of the first slice's first pixel."""

    position: Vector
    along_row: Vector
    down_column: Vector
    # From one slice to the next, mm.
    step: Vector
    spacing: float
    thickness: float
    count: int
    # Rows and columns.
    size: int

    def slice_position(self, index: int) -> Vector:
        """The centre of a slice's first pixel, mm (LPS)."""
        position: Vector = self.position + index * self.step
        return position

    def to_pixel(self, point: Point) -> tuple[float, float]:
        """Column and row of a point (mm, LPS) projected onto the slices."""
        offset = np.array(point) - self.position
        return float(offset @ self.along_row) / self.spacing, float(
            offset @ self.down_column
        ) / self.spacing

    def nearest(self, point: Point) -> tuple[int, float]:
        """The index of the slice nearest to a point (mm, LPS), and its distance in mm."""
        normal = self.step / np.linalg.norm(self.step)
        distances = [
            abs(float((np.array(point) - self.slice_position(i)) @ normal))
            for i in range(self.count)
        ]
        index = int(np.argmin(distances))
        return index, distances[index]

    def lattice(self, per_slice: int) -> Lattice:
        """The points of the pixels, in ``per_slice`` planes spread evenly over each slice."""
        first = self.position - self.step * (per_slice - 1) / (2 * per_slice)
        steps = np.array(
            [self.step / per_slice, self.down_column * self.spacing, self.along_row * self.spacing]
        )
        return Lattice(first, steps, (self.count * per_slice, self.size, self.size))

    def coarse_lattice(self) -> Lattice:
        """One plane per slice with half the rows and columns, aligned for resizing to the slice."""
        corner = self.position + (self.down_column + self.along_row) * self.spacing / 2
        steps = np.array(
            [self.step, 2 * self.down_column * self.spacing, 2 * self.along_row * self.spacing]
        )
        return Lattice(corner, steps, (self.count, self.size // 2, self.size // 2))


def sagittal(rng: np.random.Generator, patient: Patient, matrix: int) -> Stack:
    """A slightly rotated block from foramen to foramen.

    It shows the discs from T11/T12 to S1/S2 and, of all but the longest spines, T11 and S2.
    """
    gap, field = float(rng.uniform(4.0, 4.6)), float(rng.uniform(285, 320))
    low, high = patient.chain.sacrum[1].frame.origin, patient.vertebrae[6].frame.origin
    field = min(320.0, max(field, high[2] - low[2] + 45))
    sides = [patient.foramen(level, side)[0] for level in Level for side in Side]
    middle = np.array(
        [(min(sides) + max(sides)) / 2, (low[1] + high[1]) / 2 + 5, (low[2] + high[2]) / 2]
    )
    middle += np.clip(rng.normal(0, (1, 6, 4)), (-2, -15, -8), (2, 15, 8))
    enough = int(np.ceil((max(sides) - min(sides) + 12) / gap))
    count = max(enough, int(rng.integers(15, 18)))
    turn, lean = np.deg2rad(np.clip(rng.normal(0, 1.2, 2), -3, 3))
    along = np.array([np.sin(turn), np.cos(turn), 0.0])
    down = np.array([np.sin(lean), 0.0, -np.cos(lean)])
    down -= along * (down @ along)
    down /= np.linalg.norm(down)
    to_left = -np.cross(along, down)
    step = gap * (to_left if rng.random() < 0.64 else -to_left)
    return _stack(middle, along, down, step, field, float(gap - rng.uniform(0, 0.6)), count, matrix)


def region_centre(patient: Patient, region: Region) -> Vector:
    """The centre of a field of view, mm (LPS)."""
    names = {Region.LUMBAR: "L3", Region.CUT: "L1", Region.THORAX: "T7", Region.NECK: "C5"}
    if region is Region.PELVIS:
        return np.array([0.0, -30.0, -100.0])
    return np.array(patient.body(names[region]).frame.origin)


def elsewhere(stack: Stack, patient: Patient, region: Region) -> Stack:
    """A sagittal block moved to another region.

    The field of view of the neck is smaller; that of ``CUT`` ends above the lowest disc.
    """
    spacing = stack.spacing * (0.8 if region is Region.NECK else 1.0)
    half, across = spacing * (stack.size - 1) / 2, stack.step * (stack.count - 1) / 2
    middle = region_centre(patient, region)
    if region is Region.CUT:
        middle[2] = patient.sac(Level.L5_S1)[2] + 12 + half
    corner = middle - (stack.along_row + stack.down_column) * half - across
    return replace(stack, position=corner, spacing=spacing)


def axial(
    rng: np.random.Generator, patient: Patient, matrix: int, tilted: bool
) -> tuple[Stack, ...]:
    """One block through all discs or, if tilted, a short stack along each disc."""
    field, gap = float(rng.uniform(170, 200)), float(rng.uniform(4.0, 4.8))
    thickness = gap - float(rng.uniform(0, 0.5))
    upwards = 1 if rng.random() < 0.3 else -1
    discs = [patient.disc(level) for level in Level]
    along = np.array([1.0, 0.0, 0.0])
    if tilted:
        stacks = []
        count = int(rng.integers(5, 7))
        for disc, level in list(zip(discs, Level, strict=True))[::-upwards]:
            angle = disc.frame.angle + float(np.deg2rad(rng.normal(0, 2)))
            down = np.array([0.0, np.cos(angle), np.sin(angle)])
            middle = np.array(patient.sac(level)) - 8 * down
            stacks.append(
                _stack(
                    middle,
                    along,
                    down,
                    upwards * gap * np.cross(along, down),
                    field,
                    thickness,
                    count,
                    matrix,
                )
            )
        return tuple(stacks)
    angle = float(np.deg2rad(rng.uniform(0, 14)))
    down = np.array([0.0, np.cos(angle), np.sin(angle)])
    up = np.cross(along, down)
    ends = [np.array(patient.sac(level)) for level in (Level.L5_S1, Level.L1_L2)]
    reach = float((ends[1] - ends[0]) @ up) + 24
    middle = (ends[0] + ends[1]) / 2 - 8 * down
    return (
        _stack(
            middle,
            along,
            down,
            upwards * gap * up,
            field,
            thickness,
            int(np.ceil(reach / gap)),
            matrix,
        ),
    )


def _stack(
    middle: Vector,
    along: Vector,
    down: Vector,
    step: Vector,
    field: float,
    thickness: float,
    count: int,
    size: int,
) -> Stack:
    spacing = round(field / size, 4)
    corner = middle - (along + down) * spacing * (size - 1) / 2 - step * (count - 1) / 2
    return Stack(corner, along, down, step, spacing, round(thickness, 2), count, size)
