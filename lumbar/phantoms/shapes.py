"""Shapes as signed distances in mm, and painting them onto a lattice of slice planes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

# float32 for large arrays.
Array = NDArray[np.floating]
Box = tuple[slice, slice, slice]
Triple = tuple[float, float, float]


class Tissue(Enum):
    """The tissue at a point of the patient."""

    AIR = auto()
    FAT = auto()
    MUSCLE = auto()
    MARROW = auto()
    CORTEX = auto()
    NUCLEUS = auto()
    ANNULUS = auto()
    LIGAMENT = auto()
    CSF = auto()
    CORD = auto()
    ROOT = auto()
    VEIN = auto()
    # A vessel with flowing blood, a flow void.
    FLOW = auto()
    BOWEL = auto()
    KIDNEY = auto()


Signals = Mapping[Tissue, float]


@dataclass(frozen=True)
class Frame:
    """A right-handed frame rotated by ``angle`` (radians) about the left–right axis.

    Its coordinates are (left, posterior, up) in mm from ``origin`` (LPS); a positive angle tilts
    ``up`` forwards.
    """

    origin: Triple
    angle: float

    @cached_property
    def axes(self) -> NDArray[np.float64]:
        """Rows: unit vectors left, posterior, up."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])

    def to_patient(self, left: float, posterior: float, up: float) -> Triple:
        """The point in mm (LPS) of coordinates in this frame."""
        x, y, z = np.array(self.origin) + np.array([left, posterior, up]) @ self.axes
        return float(x), float(y), float(z)


WORLD = Frame((0.0, 0.0, 0.0), 0.0)


@dataclass(frozen=True)
class Lattice:
    """Regular points in the patient, (planes, rows, columns).

    ``origin`` is the first point (mm, LPS); the rows of ``steps`` (3, 3) are the vectors to the
    next plane, row and column, mm.
    """

    origin: NDArray[np.float64]
    steps: NDArray[np.float64]
    shape: tuple[int, int, int]

    @property
    def pixel(self) -> float:
        """Distance between neighbouring columns, mm."""
        return float(np.linalg.norm(self.steps[2]))

    @cached_property
    def _to_index(self) -> Array:
        """From mm to numbers of planes, rows and columns."""
        return np.linalg.inv(self.steps)

    @property
    def everywhere(self) -> Box:
        """The box of all points."""
        n, rows, columns = self.shape
        return slice(0, n), slice(0, rows), slice(0, columns)

    def box(self, frame: Frame, low: Triple, high: Triple) -> Box | None:
        """The index ranges that contain a cuboid of a frame; None if it is outside the lattice."""
        corners = np.array(list(product(*zip(low, high, strict=True)))) @ frame.axes + np.array(
            frame.origin
        )
        index = (corners - self.origin) @ self._to_index
        first = np.maximum(np.floor(index.min(axis=0)).astype(int), 0)
        last = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, self.shape)
        if (first >= last).any():
            return None
        k, r, c = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        return k, r, c

    def coordinates(self, box: Box, frame: Frame) -> tuple[Array, Array, Array]:
        """Coordinates of the box's points in a frame, mm.

        The arrays broadcast to (planes, rows, columns).
        """
        start = (self.origin - np.array(frame.origin)) @ frame.axes.T
        steps = self.steps @ frame.axes.T
        k, r, c = (np.arange(s.start, s.stop, dtype=np.float32) for s in box)
        u, v, w = (
            (
                start[i]
                + k[:, None, None] * steps[0, i]
                + r[:, None] * steps[1, i]
                + c * steps[2, i]
            ).astype(np.float32)
            for i in range(3)
        )
        return u, v, w


@dataclass(frozen=True)
class Shape(ABC):
    """A solid of ``tissue``, with a shell of cortical bone ``rim`` mm thick."""

    frame: Frame
    tissue: Tissue
    rim: float = 0.0
    # Width of the soft edge, mm; at least a pixel.
    blur: float = 0.0

    @abstractmethod
    def bounds(self) -> tuple[Triple, Triple]:
        """Opposite corners of a cuboid in the frame that contains the shape, mm."""

    @abstractmethod
    def distance(self, u: Array, v: Array, w: Array) -> Array:
        """Signed distance in mm, accurate near the surface and negative inside."""


@dataclass(frozen=True, kw_only=True)
class Capsule(Shape):
    """All points near a segment; radii in mm along the frame's axes.

    An ellipsoid if start and end are equal.
    """

    start: Triple
    end: Triple
    radii: Triple

    def bounds(self) -> tuple[Triple, Triple]:
        a, b, r = (
            np.array(self.start),
            np.array(self.end),
            np.array(self.radii) * 1.1 + self.blur / 2 + 0.5,
        )
        low, high = np.minimum(a, b) - r, np.maximum(a, b) + r
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def distance(self, u: Array, v: Array, w: Array) -> Array:
        radii = np.array(self.radii)
        a, b = np.array(self.start) / radii, np.array(self.end) / radii
        p = [
            c * np.float32(1 / r) - np.float32(o)
            for c, r, o in zip((u, v, w), radii, a, strict=True)
        ]
        along = (b - a).astype(np.float32)
        length = float(along @ along)
        if length > 0:
            t = np.clip(
                (p[0] * along[0] + p[1] * along[1] + p[2] * along[2]) * np.float32(1 / length), 0, 1
            )
            p = [q - t * d for q, d in zip(p, along, strict=True)]
        far: Array = np.sqrt(p[0] * p[0] + p[1] * p[1] + p[2] * p[2])
        return (far - 1) * np.float32(radii.min())


@dataclass(frozen=True, kw_only=True)
class Block(Shape):
    """A vertebral body or a disc: a rounded prism with sloping, concave ends.

    All lengths are halves in mm; pairs are (lower end, upper end). ``slopes``: rise of the lower
    and fall of the upper end per mm backwards; ``hollow``: depth of the end-plates' concavity;
    ``waist``: share by which the middle is narrower.
    """

    height: float
    depths: tuple[float, float]
    widths: tuple[float, float]
    slopes: tuple[float, float] = (0.0, 0.0)
    hollow: float = 0.0
    waist: float = 0.0

    def bounds(self) -> tuple[Triple, Triple]:
        depth, width = max(self.depths) + 1, max(self.widths) + 1
        height = self.height + depth * max(map(abs, self.slopes)) + 1
        return (-width, -depth, -height), (width, depth, height)

    def distance(self, u: Array, v: Array, w: Array) -> Array:
        up = np.clip(w / self.height, -1, 1)
        narrow = 1 - self.waist * (1 - up * up)
        depth = (np.mean(self.depths) + up * (self.depths[1] - self.depths[0]) / 2) * narrow
        width = (np.mean(self.widths) + up * (self.widths[1] - self.widths[0]) / 2) * narrow
        uu, vv = np.square(u / width), np.square(v / depth)
        boxy = np.sqrt(np.sqrt(uu * uu + vv * vv))
        rho = np.where(v > 0, boxy, 0.4 * boxy + 0.6 * np.sqrt(uu + vv))
        dent = self.hollow * np.maximum(1 - rho * rho, 0)
        upper = w - self.height + v * self.slopes[1] + dent
        lower = -w - self.height + v * self.slopes[0] + dent
        far: Array = np.maximum(np.maximum(upper, lower), (rho - 1) * depth).astype(np.float32)
        return far


def cover(distance: Array, width: float) -> Array:
    """The share (0–1) of a point ``width`` mm wide that is covered, from its signed distance."""
    share: Array = np.clip(np.float32(0.5) - distance * np.float32(1 / width), 0, 1)
    return share


def ellipse(x: Array, y: Array, a: Array | float, b: Array | float) -> Array:
    """Signed distance in mm of points in a plane from an ellipse with half axes a and b."""
    far = np.sqrt(np.square(x / a) + np.square(y / b))
    distance: Array = ((far - 1) * np.minimum(a, b)).astype(np.float32)
    return distance


def blend(image: Array, share: Array, value: float | Array) -> None:
    """Blends a value into an image, in place, by the share (0–1) that covers each point."""
    image += share * (value - image)


def paint(image: Array, lattice: Lattice, shape: Shape, signals: Signals) -> None:
    """Paints one shape onto an image of the lattice's points, in place."""
    box = lattice.box(shape.frame, *shape.bounds())
    if box is None:
        return
    far = shape.distance(*lattice.coordinates(box, shape.frame))
    width = max(lattice.pixel, shape.blur)
    if shape.rim:
        blend(image[box], cover(far, width), signals[Tissue.CORTEX])
    blend(image[box], cover(far + np.float32(shape.rim), width), signals[shape.tissue])
