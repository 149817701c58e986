"""The chain of lumbar discs in one sagittal T2 image, found by what discs look like and how they follow each other.

Images here hang upright (head up, front to the left) at ``MM`` mm a pixel; points are (x, y) in mm from the centre of
the first pixel, x backwards and y downwards. A disc's tilt is the angle, in degrees, by which its back lies lower
than its front: about 0 at L3/L4, 35 at L5/S1.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.spine.anatomy import Level

Image = NDArray[np.float32]

MM = 1.5
TILTS = np.arange(-30, 66, 5)
LEVELS_UP = tuple(reversed(Level))
# By level from L5/S1 upwards: the usual tilt, and the distance in mm to the disc below.
USUAL_TILT = (33.0, 17.0, 5.0, -3.0, -7.0)
USUAL_SPACING = (0.0, 36.0, 37.5, 37.0, 35.5)
TILT_SD, SPACING_SD, BEND_SD = 10.0, 4.5, 12.0
SACRAL_SPACING = (18.0, 40.0)  # mm below L5/S1 in which a further disc would lie
PEAK, APART_MM = 0.05, 9.0
ENOUGH = 0.5  # of a chain's score: 


@dataclass(frozen=True)
class Disc:
    """A band darker than what lies above and below it: its centre, its tilt, its contrast (0–1)."""

    x: float
    y: float
    tilt: float
    contrast: float

    @property
    def backwards(self) -> NDArray[np.float64]:
        """Unit vector along the disc from front to back."""
        angle = np.deg2rad(self.tilt)
        return np.array([np.cos(angle), np.sin(angle)])

    @property
    def centre(self) -> NDArray[np.float64]:
        return np.array([self.x, self.y])


@dataclass(frozen=True)
class Chain:
    """Five discs from L5/S1 upwards; ``score`` is comparable between images, ``margin`` to other numberings."""

    discs: tuple[Disc, ...]
    score: float
    margin: float = 0.0


def bands(image: Image) -> list[Disc]:
    """Whatever looks like a disc, the clearest first."""
    side = image.shape[0]
    middle = ((side - 1) / 2,) * 2
    responses, backs = [], []
    for tilt in TILTS:
        turn = cv2.getRotationMatrix2D(middle, float(tilt), 1.0)
        turned = cv2.warpAffine(image, turn, (side, side))
        back = cv2.invertAffineTransform(turn)
        responses.append(cv2.warpAffine(_band(turned), back, (side, side)))
    stack = np.stack(responses)
    best = stack.max(axis=0)
    reach = 2 * round(APART_MM / MM / 2) + 1
    peaks = (best == cv2.dilate(best, np.ones((reach, reach), np.uint8))) & (best > PEAK)
    rows, columns = np.nonzero(peaks)
    found = [
        Disc(float(c * MM), float(r * MM), float(TILTS[stack[:, r, c].argmax()]), float(best[r, c]))
        for r, c in zip(rows, columns, strict=True)
    ]
    return sorted(found, key=lambda d: -d.contrast)[:60]


def _band(image: Image) -> Image:
    """How much darker a level band is than what lies above and below, at the least of its three thirds."""
    box = cv2.blur(image, (round(9 / MM), round(5 / MM)))
    flank = cv2.blur(image, (round(9 / MM), round(7 / MM)))
    least = np.full_like(image, np.inf)
    total = np.zeros_like(image)
    for aside in (-10, 0, 10):
        middle = _moved(box, aside, 0)
        for up in (-11, 11):
            outer = _moved(flank, aside, up)
            contrast = (outer - middle) / (outer + middle + 0.04)
            least = np.minimum(least, contrast)
            total += np.clip(contrast, -0.5, 0.5) / 6
    return np.where(least > 0, (total + least) / 2, 0).astype(np.float32)


def _moved(image: Image, right: float, down: float) -> Image:
    return np.roll(image, (-round(down / MM), -round(right / MM)), axis=(0, 1))
