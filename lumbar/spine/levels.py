"""Where the five lumbar disc levels are: found on sagittal T2 by the look of the discs, and of the dural sac behind.

A plain method without learning. It names what it finds by counting up from the lowest disc that fits L5/S1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.errors import NotAnalysable, NotDicom
from lumbar.spine.anatomy import Level, Role
from lumbar.spine.crops import SIDE, crop_to_image, normalised
from lumbar.spine.discs import LEVELS_UP, MM, USUAL_SPACING, Chain, Image, bands, chain
from lumbar.spine.roles import ALONE, Roles, Stack
from lumbar.spine.slices import SliceHeader, Vector

Read = Callable[[SliceHeader], NDArray[np.float32]]

CENTRAL = 5  # slices on which the discs are looked for
ENOUGH, ENOUGH_WITHOUT_SAC = 1.0, 2.5  # of a chain's score, to be a lumbar spine at all
SURE = 0.4  # of a chain's score ahead of every other numbering
INVERTED = 0.8  # of a chain's score, by which the same discs upside down must not be ahead
LEAST_TILT, LEAST_TURN = 9.0, 12.0  # degrees: of L5/S1, and from there to L2/L3
NOT_FOUND = "no lumbar spine was found on the sagittal T2 images"
SAC_MM, SAC_REACH_MM = 30.0, 7.0  # from a disc's centre, as found, to the sac's in a usual spine; how far it varies
EDGE_MM = 18.5  # from a disc's centre, as found, to just behind its back edge
BRIGHTER = 1.15  # the sac over the vertebral bodies
ASIDE_MM = 16.0  # to either side of the middle slice: where the middle of the sac is looked for
STATIONS = np.linspace(-0.4, 4.4, 73)  # along the chain, in discs from L5/S1 upwards
AT_DISCS = np.abs(STATIONS - np.arange(len(LEVELS_UP))[:, None]).argmin(axis=1)
OFFSETS = np.arange(-8.0, 52.0, 1.0)  # mm behind the discs' centres


@dataclass(frozen=True)
class Levels:
    """``canal`` is the middle of the dural sac at the disc's mid-height, mm (LPS), cranial to caudal.

    ``source`` is the slice on which they are best seen; ``notes`` say in words how they were found and what is in
    doubt; ``confidence`` runs from 0 to 1 and is no probability. Without ``sac_seen``, in a loose slice beside the
    mid-line, the points lie just behind the discs and nothing may be graded there.
    """

    canal: Mapping[Level, Vector]
    source: SliceHeader | None = None
    notes: tuple[str, ...] = ()
    confidence: float = 0.0
    sac_seen: bool = True


@dataclass(frozen=True)
class _Hung:
    """A slice upright at ``MM`` mm a pixel, the same patient's point in the middle of every one."""

    header: SliceHeader
    image: Image
    to_image: NDArray[np.float64]

    def to_patient(self, point: Vector) -> Vector:
        """The point in mm (LPS) of an (x, y) in the hung image's mm."""
        column, row = self.to_image @ np.array([*(point / MM), 1.0])
        return self.header.to_patient(column, row)


def locate_levels(roles: Roles, read: Read) -> Levels:
    """The levels of the study whose slices ``read`` gives, (rows, columns) of any range.

    Raises NotAnalysable where there is no sagittal T2, or no lumbar spine on it, or no slice of it can be read.
    """
    stacks = roles.stacks.get(Role.SAGITTAL_T2)
    if not stacks:
        raise NotAnalysable("no sagittal T2/STIR series was received, on which the disc levels are found")
    slices = _hang(stacks[0], read)
    middle = slices[len(slices) // 2]
    away = -np.array([s.header.distance(middle.to_patient(np.full(2, SIDE * MM / 2))) for s in slices])
    central = np.argsort(abs(away), kind="stable")[:CENTRAL]
    discs = bands([slices[i].image for i in central])
    found, inverted = chain(discs), chain([d.upside_down for d in discs])
    if found is None or found.score < ENOUGH:
        raise NotAnalysable(NOT_FOUND)
    if inverted is not None and inverted.score > found.score + INVERTED:
        raise NotAnalysable(NOT_FOUND + ": it would fit better upside down")
    centres, backwards = _curve(found)
    if not _lordotic(backwards[AT_DISCS]):
        raise NotAnalysable(NOT_FOUND)
    near = [i for i in range(len(slices)) if abs(away[i]) <= ASIDE_MM]
    strips = np.stack([_strip(slices[i].image, centres, backwards) for i in near])
    size = _size(found)
    offsets, seen = _sac(strips[np.isin(near, central)].mean(axis=0), size)
    aside = np.zeros(len(LEVELS_UP))
    notes = ["disc levels found by their look on sagittal T2/STIR, counted upwards from L5/S1"]
    if seen and len(near) > ALONE:
        aside = _aside(strips, offsets, away[near])
    elif seen:
        notes.append("too few slices to know the mid-line; it is taken to be on the slice itself")
    elif len(slices) > ALONE or found.score < ENOUGH_WITHOUT_SAC:
        raise NotAnalysable(NOT_FOUND + ": no dural sac lies behind what looks like discs")
    else:
        offsets = np.full(len(STATIONS), EDGE_MM * size)
        notes.append("the dural sac was not seen; the points lie just behind the discs, the mid-line is not known")
    if found.margin < SURE:
        notes.append("the numbering is uncertain; another one fits almost as well")
    elif len(slices) <= ALONE:
        notes.append("the numbering is uncertain; it rests on too few slices")
    points = {
        level: middle.to_patient(centres[at] + offsets[at] * backwards[at]) + x * middle.header.normal
        for level, at, x in zip(LEVELS_UP, AT_DISCS, aside, strict=True)
    }
    source = slices[min(central, key=lambda i: abs(away[i] - aside.mean()))]
    confidence = min(1.0, found.score / len(LEVELS_UP)) * min(1.0, found.margin / (2 * SURE))
    return Levels({level: points[level] for level in Level}, source.header, tuple(notes), confidence, seen)


def _lordotic(backwards: Vector) -> bool:
    """Whether the discs turn as they do above a sacrum, and not as in a thorax or upside down."""
    tilts = np.rad2deg(np.arctan2(-backwards[:, 1], backwards[:, 0]))
    return bool(tilts[0] >= LEAST_TILT and tilts[0] - tilts[3] >= LEAST_TURN)


def _hang(stack: Stack, read: Read) -> list[_Hung]:
    """The slices that can be read, upright and about the middle of the stack's middle slice."""
    centre_of = stack.slices[len(stack.slices) // 2]
    centre = centre_of.to_patient((centre_of.columns - 1) / 2, (centre_of.rows - 1) / 2)
    hung, reason = [], ""
    for header in stack.slices:
        try:
            image = normalised(read(header))
        except NotDicom as error:
            reason = str(error)
            continue
        to_image = crop_to_image(header, *header.to_pixel(centre), SIDE * MM)
        upright = cv2.warpAffine(image, to_image, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        hung.append(_Hung(header, np.asarray(upright, dtype=np.float32), to_image))
    if not hung:
        raise NotAnalysable(f"no slice of the sagittal T2 series could be read: {reason}")
    return hung


def _size(found: Chain) -> float:
    """The spine's size over the usual."""
    centres = np.array([d.centre for d in found.discs])
    return float(np.linalg.norm(np.diff(centres, axis=0), axis=1).mean() / np.mean(USUAL_SPACING))


def _curve(found: Chain) -> tuple[Vector, Vector]:
    """A smooth curve through the discs' centres and the unit vectors backwards along it, at ``STATIONS``.

    The tilt is the mean of what the discs show and what the curve's direction says.
    """
    discs = np.arange(len(found.discs))
    x, y = (np.polyfit(discs, c, 3) for c in zip(*(d.centre for d in found.discs), strict=True))
    centres = np.column_stack([np.polyval(x, STATIONS), np.polyval(y, STATIONS)])
    leaning = np.arctan2(-np.polyval(np.polyder(x), STATIONS), -np.polyval(np.polyder(y), STATIONS))
    tilts = np.polyval(np.polyfit(discs, np.deg2rad([d.tilt for d in found.discs]), 2), STATIONS)
    angle = (leaning + tilts) / 2
    return centres, np.column_stack([np.cos(angle), -np.sin(angle)])


def _strip(image: Image, centres: Vector, backwards: Vector) -> Image:
    """The spine straightened: ``STATIONS`` × ``OFFSETS``."""
    points = ((centres[:, None] + OFFSETS[:, None] * backwards[:, None]) / MM).astype(np.float32)
    return np.asarray(cv2.remap(image, points[..., 0], points[..., 1], cv2.INTER_LINEAR), dtype=np.float32)


def _sac(strip: Image, size: float) -> tuple[Vector, bool]:
    """How far behind the discs' centres the middle of the sac is at each station, mm, and whether it is seen at all.

    The sac is brighter than what lies just in front of it and just behind, and keeps its course over centimetres.
    """
    inside, around = cv2.blur(strip, (11, 1)), cv2.blur(strip, (21, 1))
    tube = _smooth(inside - around)
    best = (tube / (tube.std() + 1e-6) - ((OFFSETS - SAC_MM * size) / SAC_REACH_MM) ** 2).argmax(axis=1)
    bone = strip[:, abs(OFFSETS - 2) <= 10].mean(axis=1)
    brighter = np.median(inside[np.arange(len(best)), best] / (bone + 1e-3))
    return OFFSETS[best], bool(brighter > BRIGHTER)


def _smooth(image: Image) -> Image:
    """Smoothed along the stations, which are the rows."""
    return np.asarray(cv2.GaussianBlur(image, (1, 31), sigmaX=0.1, sigmaY=5), dtype=np.float32)


def _aside(strips: Image, offsets: Vector, away: Vector) -> Vector:
    """How far the middle of the sac is from the middle slice at each disc, mm along the normal."""
    within = abs(OFFSETS - offsets[:, None]) <= 5
    bright = _smooth(((strips * within).sum(axis=2) / within.sum(axis=1)).T)
    halfway = (bright.max(axis=1) + np.median(bright, axis=1)) / 2
    weight = np.maximum(bright - halfway[:, None], 0) + 1e-9
    middle = (weight * away).sum(axis=1) / weight.sum(axis=1)
    return np.asarray(np.polyval(np.polyfit(STATIONS, middle, 2), STATIONS[AT_DISCS]))
