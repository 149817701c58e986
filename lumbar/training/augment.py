"""What training does to a crop at random: what a locator, a patient and a scanner may do to it, and no more.

A sagittal crop is never mirrored: that exchanges front and back, and no patient looks so. A mirrored axial crop is one
of the other side, and its label is exchanged too.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.spine.anatomy import Condition, Role
from lumbar.spine.crops import CROP_MM, SIDE
from lumbar.training.crop_files import MARGIN

# Standard deviation in mm along each axis of the level locator's own error (docs/model-card.md).
LOCATOR_MM = {Role.SAGITTAL_T2: 1.3, Role.SAGITTAL_T1: 1.3, Role.AXIAL_T2: 1.6}
MAX_MM = 5.0
MIRRORED = {
    Condition.LEFT_SUBARTICULAR_STENOSIS: Condition.RIGHT_SUBARTICULAR_STENOSIS,
    Condition.RIGHT_SUBARTICULAR_STENOSIS: Condition.LEFT_SUBARTICULAR_STENOSIS,
}

Rng = np.random.Generator
Crop = NDArray[np.float32]


@dataclass(frozen=True)
class Amounts:
    """How much of everything."""

    turn_deg: float = 5.0  # standard deviation of the rotation
    zoom: float = 0.1  # at most, as a share, either way
    brightness: float = 0.4  # likewise of the gain, and of the gamma
    slope: float = 0.4  # at most, of the gain from edge to edge: a coil's
    noise: float = 0.1  # at most, of the full range
    blur: float = 4.0  # pixels, at most; a scanner's own pixel is three to four of a crop's
    flip: bool = True  # mirror axial crops, every second one


def augmented(
    rng: Rng, image: NDArray[np.uint8], condition: Condition, amounts: Amounts
) -> tuple[Crop, Condition]:
    """A kept crop with its margin to one of (224, 224), 0–1, and the condition that it shows then."""
    role = condition.role
    angle = np.deg2rad(np.clip(rng.normal(0, amounts.turn_deg), -15, 15))
    zoom = np.exp(rng.uniform(-amounts.zoom, amounts.zoom))
    shift = np.clip(rng.normal(0, LOCATOR_MM[role], 2), -MAX_MM, MAX_MM) * SIDE / CROP_MM[role]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    if amounts.flip and role is Role.AXIAL_T2 and rng.random() < 0.5:
        turn = turn @ np.diag([-1.0, 1.0])
        condition = MIRRORED[condition]
    seen = _cut(image, turn, shift)
    if rng.random() < 0.3:
        seen = np.asarray(
            cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.3, max(0.31, amounts.blur))),
            dtype=np.float32,
        )
    gain, gamma = np.exp(rng.uniform(-amounts.brightness, amounts.brightness, 2))
    seen = np.float32(gain) * np.power(seen, np.float32(gamma)) * _sloping(rng, amounts.slope)
    if rng.random() < 0.7:
        coarse = int(rng.integers(2, 5))  # a scanner's pixel in pixels of the crop
        grain = rng.standard_normal((SIDE // coarse, SIDE // coarse), dtype=np.float32)
        spread = cv2.resize(grain, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
        seen = np.asarray(
            seen + spread * np.float32(rng.uniform(0, amounts.noise)), dtype=np.float32
        )
    return np.asarray(seen, dtype=np.float32).clip(0, 1), condition


def _sloping(rng: Rng, most: float) -> Crop:
    """A gain that rises along a random direction, one in the middle."""
    along = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
    down, right = np.exp(rng.uniform(-most, most)), np.exp(rng.uniform(-most, most))
    sloping: Crop = np.power(np.float32(down), along)[:, None] * np.power(np.float32(right), along)
    return sloping


def _cut(image: NDArray[np.uint8], turn: NDArray[np.float64], shift: NDArray[np.float64]) -> Crop:
    """``turn`` leads from the crop's pixels to the kept image's, both about their middles."""
    middle = np.full(2, (SIDE - 1) / 2)
    to_image = np.column_stack([turn, middle + MARGIN + shift - turn @ middle])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(
        image, to_image, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(seen / np.float32(255), dtype=np.float32)
