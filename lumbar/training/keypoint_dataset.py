"""Random training examples for the locator's networks, from the views of phantoms and patients.

Augmentation covers what scanner, coil, field of view and patient positioning can do to a slice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.phantoms import locator_views
from lumbar.spine.anatomy import Level
from lumbar.spine.keypoint_input import (
    AXIAL,
    BORDER,
    BORDER_ANTERIOR_MM,
    BORDER_CAUDAL_MM,
    CELL_PIXELS,
    CLIP,
    DISCS,
    SAGITTAL,
    Framing,
    Image,
    normalise_brightness,
)

# Standard deviation in mm across the slices over which a point's presence falls off.
CANAL_SD, FORAMEN_SD, RECESS_SD = 6.0, 4.5, 4.0
L3_L4, L5_S1 = DISCS.index(Level.L3_L4), DISCS.index(Level.L5_S1)
LOWEST_FORAMEN = len(DISCS) + len(Level) - 1
# Minimum distance of a visible point from the image's edge, pixels.
MARGIN = 2.0
# Share of examples without a recognisable lumbar spine.
NEGATIVES = 0.08

Rng = np.random.Generator


@dataclass(frozen=True)
class TrainingExample:
    """An input image and its target.

    ``image`` is (side, side), 0–1. ``target`` is (keypoints, 4): column and row in cells, presence
    0–1, weight; for the lumbosacral border it is (1,): 1 if it is transitional, else 0.
    """

    image: Image
    target: NDArray[np.float32]


class ViewDataset:
    """All views of a set of files, in memory; points that are not annotated are NaN."""

    def __init__(self, files: Sequence[Path]) -> None:
        parts = [np.load(file) for file in files]
        self.images, self.positions, self.points, self.transitional, self.lumbar = (
            _concatenated(parts, name)
            for name in ("images", "positions", "points", "transitional", "lumbar")
        )

    def __len__(self) -> int:
        return len(self.images)


def _concatenated(parts: Sequence[Mapping[str, Any]], name: str) -> NDArray[Any]:
    return np.concatenate([part[name] for part in parts])


ExampleSampler = Callable[[Rng, ViewDataset], TrainingExample]


def sagittal_example(rng: Rng, views: ViewDataset) -> TrainingExample:
    """A sagittal slice at any lateral position, with the canal and foramen points visible on it."""
    view = int(rng.integers(len(views)))
    index = int(rng.integers(views.images.shape[1]))
    view_image, points = views.images[view, index], views.points[view]
    across = points[:, 2] - views.positions[view, index]
    canal, foramina = (
        slice(0, len(DISCS)),
        np.arange(len(DISCS), len(points)).reshape(2, len(Level)),
    )
    distance = np.where(np.isfinite(across[foramina]), np.abs(across[foramina]), np.inf)
    nearer = foramina[distance.argmin(axis=0), np.arange(len(Level))]
    order = np.r_[np.arange(len(DISCS)), nearer]
    presence = np.r_[_fade(across[canal], CANAL_SD), _fade(across[nearer], FORAMEN_SD)]
    if views.lumbar[view]:
        shift = np.array([rng.uniform(-30, 45), rng.uniform(-62, 70)])
        centre = _middle(points, L3_L4) + shift / locator_views.SAGITTAL_MM
    else:
        centre = np.full(2, (locator_views.SAGITTAL_SIDE - 1) / 2) + rng.uniform(-40, 40, 2)
    image, warp = _warped(rng, view_image, centre, locator_views.SAGITTAL_MM, SAGITTAL)
    points_px = points[order, :2] @ warp[:, :2].T + warp[:, 2]
    image, inside = _cropped(rng, image, points_px, SAGITTAL)
    weight = np.isfinite(presence).astype(float)
    lowest = L5_S1 if weight[L5_S1] else LOWEST_FORAMEN
    # Without the sacrum, levels cannot be counted, so visible discs have no label.
    if not inside[lowest]:
        weight[inside] = 0
    presence = np.where(inside, presence, 0)
    if rng.random() < NEGATIVES:
        image, presence, weight = _negative(rng, image), 0 * presence, np.ones(len(order))
    return TrainingExample(_degraded(rng, image), _target(points_px, presence, weight))


def axial_example(rng: Rng, views: ViewDataset) -> TrainingExample:
    """An axial slice at or near a disc; some examples show no lumbar spine."""
    view, index = int(rng.integers(len(views))), int(rng.integers(views.images.shape[1]))
    view_image, points = views.images[view, index], views.points[view].copy()
    across = points[:, 2] - views.positions[view, index]
    presence = np.r_[1.0, _fade(across[1:], RECESS_SD)]
    weight = np.isfinite(across).astype(float)
    if rng.random() < 0.5:
        view_image = view_image[:, ::-1]
        points[:, 0] = locator_views.AXIAL_SIDE - 1 - points[:, 0]
        points[[1, 2]] = points[[2, 1]]
    reach = 45 if rng.random() < 0.3 else 20
    centre = _middle(points, 0) + rng.uniform(-reach, reach, 2) / locator_views.AXIAL_MM
    image, warp = _warped(rng, view_image, centre, locator_views.AXIAL_MM, AXIAL)
    points_px = points[:, :2] @ warp[:, :2].T + warp[:, 2]
    image, inside = _cropped(rng, image, points_px, AXIAL)
    presence = np.where(inside, presence, 0)
    if rng.random() < NEGATIVES:
        image, presence, weight = _negative(rng, image), 0 * presence, np.ones(3)
    return TrainingExample(_degraded(rng, image), _target(points_px, presence, weight))


def border_example(rng: Rng, views: ViewDataset) -> TrainingExample:
    """A midsagittal slice around the lumbosacral border."""
    view, index = int(rng.integers(len(views))), int(rng.integers(views.images.shape[1]))
    offset = np.array([-BORDER_ANTERIOR_MM, BORDER_CAUDAL_MM]) + rng.normal(0, 4, 2)
    centre = views.points[view, 0, :2] + offset / locator_views.BORDER_MM
    image, _ = _warped(rng, views.images[view, index], centre, locator_views.BORDER_MM, BORDER)
    target = np.array([float(views.transitional[view])], np.float32)
    return TrainingExample(_degraded(rng, image), target)


def _middle(points: NDArray[Any], index: int) -> NDArray[Any]:
    """A point on the view, pixels; if it is unknown, the mean of the known points."""
    known = points[index, :2]
    return np.asarray(known if np.isfinite(known[0]) else np.nanmean(points[:, :2], axis=0))


def _fade(across: NDArray[Any], sd: float) -> NDArray[Any]:
    return np.asarray(np.exp(-np.square(across / sd) / 2))


def _target(
    points: NDArray[Any], presence: NDArray[Any], weight: NDArray[Any]
) -> NDArray[np.float32]:
    target = np.column_stack([(points - (CELL_PIXELS - 1) / 2) / CELL_PIXELS, presence, weight])
    return np.asarray(np.nan_to_num(target), dtype=np.float32)


def _warped(
    rng: Rng, image: NDArray[np.uint8], centre: NDArray[Any], mm: float, framing: Framing
) -> tuple[Image, NDArray[np.float64]]:
    """The view rotated, scaled and shifted, as linear signal; and the (2, 3) map, view to image.

    ``mm``: pixel size of the view; ``centre``: the view's pixel that becomes the image's centre.
    """
    size = np.exp(rng.uniform(-0.13, 0.13)) * mm / framing.mm
    stretch = np.exp(rng.normal(0, 0.03))
    angle = np.deg2rad(np.clip(rng.normal(0, 5), -13, 13))
    turn = (
        size
        * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        @ np.diag([stretch, 1.0])
    )
    warp = np.column_stack([turn, np.full(2, (framing.side - 1) / 2) - turn @ centre])
    warped = cv2.warpAffine(image, warp, (framing.side, framing.side), flags=cv2.INTER_LINEAR)
    return np.square(warped.astype(np.float32) / 255) * np.float32(CLIP), warp


def _cropped(
    rng: Rng, image: Image, points: NDArray[Any], framing: Framing
) -> tuple[Image, NDArray[np.bool_]]:
    """The image with a possibly smaller field of view, and which points (pixels) are inside it."""
    low, high = np.zeros(2), np.full(2, framing.side - 1.0)
    if rng.random() < 0.6:
        size = rng.uniform(0.66, 1.05, 2) * framing.side
        middle = (framing.side - 1) / 2 + rng.normal(0, 0.04 * framing.side, 2)
        low, high = np.maximum(low, middle - size / 2), np.minimum(high, middle + size / 2)
        field = np.zeros_like(image)
        (left, top), (right, bottom) = low.astype(int), high.astype(int) + 1
        field[top:bottom, left:right] = image[top:bottom, left:right]
        image = field
    return image, np.all((points > low + MARGIN) & (points < high - MARGIN), axis=1)


def _negative(rng: Rng, image: Image) -> Image:
    """An image that is not an upright lumbar spine: mirrored, rotated, or texture."""
    kind = int(rng.integers(6))
    if kind == 0:
        return np.ascontiguousarray(image[:, ::-1])
    if kind == 1:
        return np.ascontiguousarray(image[::-1])
    if kind == 2:
        return np.ascontiguousarray(image[::-1, ::-1])
    if kind == 3:
        return np.ascontiguousarray(image.T)
    side = len(image)
    grain = int(np.exp(rng.uniform(1.5, np.log(side))))
    pattern = cv2.resize(
        rng.random((grain, grain), dtype=np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    return np.clip(pattern * image * 2 if kind == 4 else pattern, 0, CLIP).astype(np.float32)


def _degraded(rng: Rng, image: Image) -> Image:
    """The image with random blur, coil gain, artefacts, gamma and Rician noise, normalised."""
    side, field = len(image), image > 0
    if rng.random() < 0.7:
        across, down = rng.uniform(0.2, 1.5), rng.uniform(0.2, 1.3)
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), across, sigmaY=down), dtype=np.float32)
    if rng.random() < 0.7:
        coarse = rng.normal(0, rng.uniform(0, 0.5), (4, 4)).astype(np.float32)
        image *= np.exp(np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)))
    if rng.random() < 0.15:
        for _ in range(int(rng.integers(1, 4))):
            at, axes = rng.integers(0, side, 2).tolist(), rng.integers(3, side // 9, 2).tolist()
            cv2.ellipse(
                image,
                at,
                axes,
                float(rng.uniform(0, 180)),
                0,
                360,
                float(rng.choice((0, 0.02, 1.2))),
                -1,
            )
    if rng.random() < 0.5:
        image = np.power(np.maximum(image, 0), np.float32(rng.uniform(0.6, 1.5)))
    level = 0.1 * rng.random() ** 2 if rng.random() < 0.93 else rng.uniform(0.1, 0.18)
    noise = rng.standard_normal((2, side, side), dtype=np.float32) * np.float32(level)
    # Noise at the scanner's resolution rather than the image's.
    if rng.random() < 0.5:
        noise = np.stack([cv2.GaussianBlur(part, (0, 0), 0.7) for part in noise]) * np.float32(1.8)
    image = np.hypot(np.maximum(image, 0) + noise[0], noise[1])
    # Scanners often store zeros outside the field of view.
    if rng.random() < 0.6:
        image = image * (cv2.dilate(field.astype(np.uint8), np.ones((3, 3), np.uint8)))
    return normalise_brightness(image.astype(np.float32))
