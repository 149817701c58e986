"""The keypoint network's maps of a sagittal stack: of the middle slices, and of more if needed."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from lumbar.errors import NotAnalysable, NotDicom
from lumbar.spine.anatomy import Level
from lumbar.spine.keypoint_input import (
    DISCS,
    SAGITTAL,
    Heat,
    KeypointDetector,
    Picture,
    ReadSlice,
    picture,
)
from lumbar.spine.label_discs import PEAK_CELLS
from lumbar.spine.slices import SliceHeader, Vector
from lumbar.spine.stacks import Stack

LUMBAR = slice(DISCS.index(Level.L1_L2), DISCS.index(Level.L5_S1) + 1)  # indices into ``DISCS``
CENTRAL_SLICES = 5  # examined first
MORE_SLICES = 2  # examined next at one end or both
# A foramen's position relative to the middle of the canal at the disc.
FORAMEN_ANTERIOR_CELLS, FORAMEN_CRANIAL_CELLS = 1.4, 1.9


@dataclass(frozen=True)
class SliceMaps:
    """The network's maps of one slice.

    ``offset`` is the distance in mm to the patient's left of the stack's middle slice. ``canal``
    are the maps of the canal at each disc (cells, cells, discs); ``discs`` are the same with the
    foramina added, which indicate the same levels.
    """

    picture: Picture
    offset: float
    discs: Heat
    canal: Heat

    @property
    def header(self) -> SliceHeader:
        return self.picture.header

    @property
    def canal_presence(self) -> Vector:
        """By disc: the probability that this slice shows the canal there."""
        return np.asarray(self.canal.sum(axis=(0, 1)), dtype=float)


@dataclass(frozen=True)
class SagittalMaps:
    """The maps of the slices examined, from one side to the other, and how many were unreadable."""

    slices: tuple[SliceMaps, ...]
    unreadable: int

    @property
    def offsets(self) -> Vector:
        """By slice: mm to the patient's left of the stack's middle slice."""
        return np.array([s.offset for s in self.slices])

    @property
    def middle(self) -> SliceMaps:
        return self.slices[int(np.argmin(np.abs(self.offsets)))]

    def nearest(self, offset: float) -> list[SliceMaps]:
        """The slices in order of their distance from an ``offset`` in mm."""
        return sorted(self.slices, key=lambda s: abs(s.offset - offset))

    def combined(self) -> Heat:
        """One map per disc: the mean of the slices, weighted by how clearly they show the disc.

        Its sum is the disc's presence on the slice that shows it best.
        """
        heats = np.stack([s.discs for s in self.slices])
        presence = heats.sum(axis=(1, 2))
        return np.asarray(
            heats.sum(axis=0) * (presence.max(axis=0) / (presence.sum(axis=0) + 1e-6)),
            dtype=np.float32,
        )

    def canal_visibility(self) -> float:
        """The canal's presence on the slice that shows it best, averaged over the lumbar levels."""
        return float(np.max([s.canal_presence[LUMBAR] for s in self.slices], axis=0).mean())

    def presence(self, positions: Mapping[int, Vector]) -> dict[int, Vector]:
        """By disc, per slice: how much of the disc's map lies at its position (x, y in cells)."""
        maps = [s.discs for s in self.slices]
        return {k: _presence(maps, k, position) for k, position in positions.items()}

    def canal_presence(self, positions: Mapping[int, Vector]) -> dict[int, Vector]:
        """As ``presence``, but of the canal alone."""
        maps = [s.canal for s in self.slices]
        return {k: _presence(maps, k, position) for k, position in positions.items()}


def examine(stack: Stack, read: ReadSlice, keypoints: KeypointDetector) -> SagittalMaps:
    """The maps of the middle slices, and of more on the side towards which the canal lies.

    Other slices are not read.

    Raises:
        NotAnalysable: none of the slices can be read.
    """
    slices = stack.slices
    middle = len(slices) // 2
    centre = slices[middle].centre
    left = leftwards(slices[middle])
    examined: dict[int, SliceMaps] = {}
    errors: dict[int, str] = {}
    due = sorted(range(len(slices)), key=lambda i: (abs(i - middle), i))[:CENTRAL_SLICES]
    while due:
        pictures = {}
        for i in due:
            try:
                pictures[i] = picture(read(slices[i]), slices[i], centre, SAGITTAL)
            except NotDicom as error:
                errors[i] = str(error)
        for i, heat in _maps_of(pictures, keypoints).items():
            offset = float((slices[i].centre - centre) @ left)
            canal = heat[..., : len(DISCS)]
            examined[i] = SliceMaps(pictures[i], offset, _with_foramina(heat), canal)
        due = _next_slices(examined, errors, len(slices))
    if not examined:
        reason = next(iter(errors.values()))
        raise NotAnalysable(f"no slice of the sagittal series could be read: {reason}")
    return SagittalMaps(tuple(examined[i] for i in sorted(examined)), len(errors))


def leftwards(header: SliceHeader) -> Vector:
    """The unit vector across a sagittal slice, to the patient's left."""
    return header.normal * (1 if header.normal[0] >= 0 else -1)


def _maps_of(pictures: Mapping[int, Picture], keypoints: KeypointDetector) -> dict[int, Heat]:
    if not pictures:
        return {}
    heats = keypoints.sagittal(np.stack([p.pixels for p in pictures.values()]))
    return dict(zip(pictures, heats, strict=True))


def _next_slices(
    examined: Mapping[int, SliceMaps], errors: Mapping[int, str], count: int
) -> list[int]:
    """More slices beyond an end that shows the canal best at some level, or could not be read."""
    tried = sorted({*examined, *errors})
    first, last = tried[0], tried[-1]
    best = _best_by_level(examined) if examined else {first, last}
    due: list[int] = []
    if first in best or first in errors:
        due += range(max(first - MORE_SLICES, 0), first)
    if last in best or last in errors:
        due += range(last + 1, min(last + 1 + MORE_SLICES, count))
    return due


def _best_by_level(examined: Mapping[int, SliceMaps]) -> set[int]:
    """The slices that show the canal best at some lumbar level."""
    presence = {i: s.canal_presence[LUMBAR] for i, s in examined.items()}
    return {max(presence, key=lambda i: presence[i][level]) for level in range(len(Level))}


def _with_foramina(heat: Heat) -> Heat:
    """The maps of the discs; where the canal is not visible, the foramina replace it."""
    discs = heat[..., : len(DISCS)].copy()
    shift = np.array([[1, 0, FORAMEN_ANTERIOR_CELLS], [0, 1, FORAMEN_CRANIAL_CELLS]], np.float32)
    for n, level in enumerate(Level):
        foramen = cv2.warpAffine(
            np.ascontiguousarray(heat[..., len(DISCS) + n]), shift, discs.shape[1::-1]
        )
        disc = discs[..., DISCS.index(level)]
        disc += foramen * max(0.0, 1 - float(disc.sum()))
    return discs


def _presence(maps: list[Heat], disc: int, position: Vector) -> Vector:
    x, y = np.round(position).astype(int)
    reach = PEAK_CELLS // 2 + 1
    rows = slice(max(y - reach, 0), y + reach + 1)
    columns = slice(max(x - reach, 0), x + reach + 1)
    return np.array([float(heat[rows, columns, disc].sum()) for heat in maps])


def fit_centre(offsets: Vector, presence: Vector, sd: float) -> float:
    """The centre in mm of a Gaussian of ``sd`` mm fitted to a presence per slice."""
    trial = np.arange(offsets.min() - 4, offsets.max() + 4.01, 0.25)
    shape = np.exp(-np.square((offsets[None] - trial[:, None]) / sd) / 2)
    height = np.clip((shape @ presence) / (np.square(shape).sum(axis=1) + 1e-9), 0.2, 1.0)
    return float(trial[np.square(height[:, None] * shape - presence).sum(axis=1).argmin()])
