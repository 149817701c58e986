"""Random augmentation of training crops, within the variation of locator, patient and scanner.

A sagittal crop is never mirrored: that would exchange front and back, which no patient shows. A
mirrored axial crop shows the other side, so its condition changes sides too.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.spine.anatomy import Condition, Role
from lumbar.spine.crops import CROP_MM, SIDE
from lumbar.training.crop_files import MARGIN

# Standard deviation of the level locator's error along each axis, mm (docs/model-card.md).
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
    """The strength of each augmentation."""

    # Standard deviation of the rotation, degrees; the rotation is clipped to ±15.
    turn_deg: float = 5.0
    # Maximum log zoom, either way.
    zoom: float = 0.1
    # Maximum log gain and log gamma, either way.
    brightness: float = 0.4
    # Maximum log gain from edge to edge, like that of a surface coil.
    slope: float = 0.4
    # Maximum noise, share of the full range.
    noise: float = 0.1
    # Maximum blur, pixels; one scanner pixel is three to four pixels of a crop.
    blur: float = 4.0
    # Mirror every second axial crop.
    flip: bool = True


def augmented(
    rng: Rng, image: NDArray[np.uint8], condition: Condition, amounts: Amounts
) -> tuple[Crop, Condition]:
    """A random variant of a stored crop, and the condition that the variant shows.

    ``image`` is square, 224 + 2 · ``MARGIN`` pixels wide, 0–255; the variant is (224, 224), 0–1.
    """
    role = condition.role
    angle = np.deg2rad(np.clip(rng.normal(0, amounts.turn_deg), -15, 15))
    zoom = np.exp(rng.uniform(-amounts.zoom, amounts.zoom))
    shift = np.clip(rng.normal(0, LOCATOR_MM[role], 2), -MAX_MM, MAX_MM) * SIDE / CROP_MM[role]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    if amounts.flip and role is Role.AXIAL_T2 and rng.random() < 0.5:
        turn = turn @ np.diag([-1.0, 1.0])
        condition = MIRRORED[condition]
    crop = _warp(image, turn, shift)
    if rng.random() < 0.3:
        sigma = rng.uniform(0.3, max(0.31, amounts.blur))
        crop = np.asarray(cv2.GaussianBlur(crop, (0, 0), sigma), dtype=np.float32)
    gain, gamma = np.exp(rng.uniform(-amounts.brightness, amounts.brightness, 2))
    crop = np.float32(gain) * np.power(crop, np.float32(gamma)) * _coil_gain(rng, amounts.slope)
    if rng.random() < 0.7:
        # Size of a scanner pixel in pixels of the crop.
        coarse = int(rng.integers(2, 5))
        grain = rng.standard_normal((SIDE // coarse, SIDE // coarse), dtype=np.float32)
        noise = cv2.resize(grain, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
        level = np.float32(rng.uniform(0, amounts.noise))
        crop = np.asarray(crop + noise * level, dtype=np.float32)
    return np.asarray(crop, dtype=np.float32).clip(0, 1), condition


def _coil_gain(rng: Rng, limit: float) -> Crop:
    """A gain that rises in a random direction and is 1 at the centre."""
    along = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
    down, right = np.exp(rng.uniform(-limit, limit)), np.exp(rng.uniform(-limit, limit))
    gain: Crop = np.power(np.float32(down), along)[:, None] * np.power(np.float32(right), along)
    return gain


def _warp(image: NDArray[np.uint8], turn: NDArray[np.float64], shift: NDArray[np.float64]) -> Crop:
    """Warps a crop; ``turn`` (2, 2) maps its pixels to the image's, both about their centres."""
    centre = np.full(2, (SIDE - 1) / 2)
    to_image = np.column_stack([turn, centre + MARGIN + shift - turn @ centre])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(
        image, to_image, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(crop / np.float32(255), dtype=np.float32)
