"""The chain of lumbar discs in one sagittal T2 image, found by what discs look like and how they follow each other.

Images here hang upright (head up, front to the left) at ``MM`` mm a pixel; points are (x, y) in mm from the centre of
the first pixel, x backwards and y downwards. A disc's tilt is the angle, in degrees, by which its front lies lower
than its back: about 5 at L3/L4, 33 at L5/S1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.spine.anatomy import Level
from lumbar.spine.slices import Vector

Image = NDArray[np.float32]

MM = 1.5
TILTS = range(-30, 66, 5)
LEVELS_UP = tuple(reversed(Level))
# By level from L5/S1 upwards: the usual tilt, and the distance in mm to the next disc above.
USUAL_TILT = (33.0, 17.0, 5.0, -3.0, -7.0)
USUAL_SPACING = (36.0, 37.5, 37.0, 35.5)
TILT_SD, TURN_SD, SPACING_SD, BEND_SD = 10.0, 10.0, 4.5, 9.0
SACRAL_MM = (24.0, 42.0)  # below L5/S1: where another disc would contradict it
CLEAR = 0.25  # a contrast that counts in full
DIM, UNEVEN = 0.03, 0.1  # what counts as dark (0–1); the bone's usual variation, as a share
PLATE, BEYOND, ACROSS = 4.5, 13.5, 5  # mm from the disc's centre to its end-plates and the bone; pixels
PEAK, APART_MM, MOST = 0.02, 9.0, 100  # of the bands: the least contrast, the distance between two, how many


@dataclass(frozen=True)
class Disc:
    """A band darker than what lies above and below it: its centre, its tilt, its contrast (0–1)."""

    x: float
    y: float
    tilt: float
    contrast: float

    @property
    def backwards(self) -> Vector:
        """Unit vector along the disc from front to back."""
        angle = np.deg2rad(self.tilt)
        return np.array([np.cos(angle), -np.sin(angle)])

    @property
    def upside_down(self) -> "Disc":
        """As it would be with head and feet exchanged; for comparing chains, not for drawing."""
        return Disc(self.x, -self.y, -self.tilt, self.contrast)

    @property
    def centre(self) -> Vector:
        return np.array([self.x, self.y])


@dataclass(frozen=True)
class Chain:
    """Five discs from L5/S1 upwards; ``score`` is at most 5, ``margin`` how far other numberings stay behind."""

    discs: tuple[Disc, ...]
    score: float
    margin: float = 0.0


def bands(images: Sequence[Image]) -> list[Disc]:
    """Whatever looks like a disc on the whole of neighbouring slices, hung alike and square; the clearest first."""
    responses = np.mean([[_tilted(image, tilt) for tilt in TILTS] for image in images], axis=0)
    best = responses.max(axis=0)
    reach = 2 * round(APART_MM / MM / 2) + 1
    rows, columns = np.nonzero((best == cv2.dilate(best, np.ones((reach, reach)))) & (best > PEAK))
    found = [
        Disc(float(c * MM), float(r * MM), float(TILTS[responses[:, r, c].argmax()]), float(best[r, c]))
        for r, c in zip(rows, columns, strict=True)
    ]
    return sorted(found, key=lambda d: -d.contrast)[:MOST]


def _tilted(image: Image, tilt: float) -> Image:
    """The response to bands of a tilt."""
    side = image.shape[0]
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), -float(tilt), 1.0)
    turned: Image = np.asarray(cv2.warpAffine(image, turn, (side, side), borderMode=cv2.BORDER_REPLICATE))
    return np.asarray(cv2.warpAffine(_band(turned), cv2.invertAffineTransform(turn), (side, side)))


def _band(image: Image) -> Image:
    """How much darker two level lines 30 mm long are than the even bone beyond them; 0 where a third of one is not.

    The lines are a disc's end-plates, which are dark whatever the disc between them; a dry disc is dark throughout.
    """
    third = round(9 / MM)
    darkest: Image = np.asarray(cv2.erode(cv2.blur(image, (third, 1)), np.ones((ACROSS, 1))), dtype=np.float32)
    bone: Image = np.asarray(cv2.blur(image, (third, round(8 / MM))), dtype=np.float32)
    contrast, beside = [], []
    for aside in (-10, 0, 10):
        for sign in (-1, 1):
            plate, beyond = _moved(darkest, aside, sign * PLATE), _moved(darkest, aside, sign * BEYOND)
            contrast.append((beyond - plate) / (beyond + plate + DIM))
            beside.append(_moved(bone, aside, sign * BEYOND))
    least = np.min(contrast, axis=0)
    uneven = np.std(beside, axis=0) / (np.mean(beside, axis=0) + DIM)
    even = np.clip(2 - uneven / UNEVEN, 0, 1) * (np.min(beside, axis=0) > DIM)
    return np.where(least > 0, (np.mean(contrast, axis=0) + least) / 2 * even, 0).astype(np.float32)


def _moved(image: Image, right: float, down: float) -> Image:
    """At every pixel what lies so many mm to the right and below."""
    return np.roll(image, (-round(down / MM), -round(right / MM)), axis=(0, 1))


def chain(found: list[Disc]) -> Chain | None:
    """The five bands that most look like L5/S1 to L1/L2, or None where no five follow each other."""
    if len(found) < len(LEVELS_UP):
        return None
    x, y, tilt, contrast = np.array([(d.x, d.y, d.tilt, d.contrast) for d in found]).T
    reward = np.minimum(contrast / CLEAR, 1)
    links = _links(x, y, tilt)
    # Up to here, by the level's disc: the best score, and which disc is the one below.
    score = reward + _unlikely(tilt - USUAL_TILT[0], TILT_SD) - _sacral(reward, links)
    below = []
    spacing, bend = links
    for usual_tilt, tilt_below, usual_spacing in zip(USUAL_TILT[1:], USUAL_TILT, USUAL_SPACING, strict=False):
        turn = tilt[:, None] - tilt - (tilt_below - usual_tilt)
        step = score[:, None] + _unlikely(spacing - usual_spacing, SPACING_SD)
        step += _unlikely(bend, BEND_SD) + _unlikely(turn, TURN_SD)
        step = np.where(abs(spacing - usual_spacing) < 3 * SPACING_SD, step, -np.inf)
        below.append(step.argmax(axis=0))
        score = step.max(axis=0) + reward + _unlikely(tilt - usual_tilt, TILT_SD)
    paths: dict[int, tuple[float, list[int]]] = {}
    for top in np.argsort(score)[::-1]:
        path = [int(top)]
        for back in reversed(below):
            path.append(int(back[path[-1]]))
        paths.setdefault(path[-1], (float(score[top]), path[::-1]))
    (best, path), *others = paths.values()
    if not np.isfinite(best):
        return None
    start = found[path[0]].centre
    rival = max((s for s, p in others if np.linalg.norm(found[p[0]].centre - start) > 15), default=-np.inf)
    return Chain(tuple(found[i] for i in path), best, best - rival)


def _links(x: Vector, y: Vector, tilt: Vector) -> tuple[Vector, Vector]:
    """From every disc (rows) to every other as the next above: distance in mm, and the chain's bend in degrees."""
    right, up = x[None] - x[:, None], y[:, None] - y[None]
    leaning = np.rad2deg(np.arctan2(-right, up))
    bend = leaning - (tilt[None] + tilt[:, None]) / 2
    return np.hypot(right, up), (bend + 180) % 360 - 180


def _sacral(reward: Vector, links: tuple[Vector, Vector]) -> Vector:
    """What speaks against each disc as the lowest: the clearest that follows below like one more lumbar disc."""
    spacing, bend = links
    low, high = SACRAL_MM
    follows = (spacing > low) & (spacing < high) & (abs(bend) < 2 * BEND_SD)
    return np.asarray(np.where(follows, reward[:, None] * np.clip((spacing - low) / 12, 0, 1), 0).max(axis=0))


def _unlikely(off: Vector, sd: float) -> Vector:
    return np.asarray(-0.15 * np.square(off / sd))
