"""Random pictures from the phantoms' views, with what the keypoint network should say of them.

Whatever a scanner, a coil, a field of view or a pair of hands may do to a slice is done here at random.
"""

from collections.abc import Callable, Sequence
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

CANAL_SD, FORAMEN_SD, RECESS_SD = (
    6.0,
    4.5,
    4.0,
)  # mm across the slices over which a point fades from sight
L3_L4, L5_S1, LOWEST_FORAMEN = (
    DISCS.index(Level.L3_L4),
    DISCS.index(Level.L5_S1),
    len(DISCS) + len(Level) - 1,
)
MARGIN = 2.0  # pixels within the picture's edge

Rng = np.random.Generator


@dataclass(frozen=True)
class Lesson:
    """``picture`` is (side, side); ``truth`` is (keypoints, 4): column and row in cells, presence 0–1, weight.

    Of the border, ``truth`` is (1,): 1 where it is transitional.
    """

    picture: Image
    truth: NDArray[np.float32]


class Album:
    """All views of some files in memory. A point that nobody has marked is NaN."""

    def __init__(self, files: Sequence[Path]) -> None:
        parts = [np.load(file) for file in files]
        self.images, self.places, self.points, self.transitional, self.lumbar = (
            np.concatenate([part[name] for part in parts])
            for name in ("images", "places", "points", "transitional", "lumbar")
        )

    def __len__(self) -> int:
        return len(self.images)


Lessons = Callable[[Rng, Album], Lesson]


def sagittal_lesson(rng: Rng, album: Album) -> Lesson:
    """A slice of any lateral position: what of the canal and the foramina shows on it."""
    view = int(rng.integers(len(album)))
    index = int(rng.integers(album.images.shape[1]))
    image, points = album.images[view, index], album.points[view]
    across = points[:, 2] - album.places[view, index]
    canal, foramina = (
        slice(0, len(DISCS)),
        np.arange(len(DISCS), len(points)).reshape(2, len(Level)),
    )
    beside = np.where(np.isfinite(across[foramina]), np.abs(across[foramina]), np.inf)
    nearer = foramina[beside.argmin(axis=0), np.arange(len(Level))]
    order = np.r_[np.arange(len(DISCS)), nearer]
    presence = np.r_[_fade(across[canal], CANAL_SD), _fade(across[nearer], FORAMEN_SD)]
    if album.lumbar[view]:
        away = np.array([rng.uniform(-30, 45), rng.uniform(-62, 70)])
        centre = _middle(points, L3_L4) + away / locator_views.SAGITTAL_MM
    else:
        centre = np.full(2, (locator_views.SAGITTAL_SIDE - 1) / 2) + rng.uniform(-40, 40, 2)
    picture, warp = _warped(rng, image, centre, locator_views.SAGITTAL_MM, SAGITTAL)
    places = points[order, :2] @ warp[:, :2].T + warp[:, 2]
    picture, inside = _framed(rng, picture, places, SAGITTAL)
    weight = np.isfinite(presence).astype(float)
    lowest = L5_S1 if weight[L5_S1] else LOWEST_FORAMEN
    if not inside[lowest]:  # without the sacrum nothing can be counted: what is seen has no name
        weight[inside] = 0
    presence = np.where(inside, presence, 0)
    if rng.random() < 0.08:
        picture, presence, weight = _strange(rng, picture), 0 * presence, np.ones(len(order))
    return Lesson(_spoilt(rng, picture), _cells(places, presence, weight))


def axial_lesson(rng: Rng, album: Album) -> Lesson:
    """A slice at or near a disc, or now and then something else."""
    view, index = int(rng.integers(len(album))), int(rng.integers(album.images.shape[1]))
    image, points = album.images[view, index], album.points[view].copy()
    across = points[:, 2] - album.places[view, index]
    presence = np.r_[1.0, _fade(across[1:], RECESS_SD)]
    weight = np.isfinite(across).astype(float)
    if rng.random() < 0.5:
        image = image[:, ::-1]
        points[:, 0] = locator_views.AXIAL_SIDE - 1 - points[:, 0]
        points[[1, 2]] = points[[2, 1]]
    reach = 45 if rng.random() < 0.3 else 20
    centre = _middle(points, 0) + rng.uniform(-reach, reach, 2) / locator_views.AXIAL_MM
    picture, warp = _warped(rng, image, centre, locator_views.AXIAL_MM, AXIAL)
    places = points[:, :2] @ warp[:, :2].T + warp[:, 2]
    picture, inside = _framed(rng, picture, places, AXIAL)
    presence = np.where(inside, presence, 0)
    if rng.random() < 0.08:
        picture, presence, weight = _strange(rng, picture), 0 * presence, np.ones(3)
    return Lesson(_spoilt(rng, picture), _cells(places, presence, weight))


def border_lesson(rng: Rng, album: Album) -> Lesson:
    """A middle slice about the lumbosacral border."""
    view, index = int(rng.integers(len(album))), int(rng.integers(album.images.shape[1]))
    offset = np.array([-BORDER_ANTERIOR_MM, BORDER_CAUDAL_MM]) + rng.normal(0, 4, 2)
    centre = album.points[view, 0, :2] + offset / locator_views.BORDER_MM
    picture, _ = _warped(rng, album.images[view, index], centre, locator_views.BORDER_MM, BORDER)
    return Lesson(_spoilt(rng, picture), np.array([float(album.transitional[view])], np.float32))


def _middle(points: NDArray[Any], index: int) -> NDArray[Any]:
    """A point's place on the view, or the middle of those that are known."""
    known = points[index, :2]
    return np.asarray(known if np.isfinite(known[0]) else np.nanmean(points[:, :2], axis=0))


def _fade(across: NDArray[Any], sd: float) -> NDArray[Any]:
    return np.asarray(np.exp(-np.square(across / sd) / 2))


def _cells(
    places: NDArray[Any], presence: NDArray[Any], weight: NDArray[Any]
) -> NDArray[np.float32]:
    truth = np.column_stack([(places - (CELL_PIXELS - 1) / 2) / CELL_PIXELS, presence, weight])
    return np.asarray(np.nan_to_num(truth), dtype=np.float32)


def _warped(
    rng: Rng, image: NDArray[np.uint8], centre: NDArray[Any], mm: float, framing: Framing
) -> tuple[Image, NDArray[np.float64]]:
    """The view turned, stretched and moved into a picture of linear signal; and its (2, 3) map, view to picture."""
    size = np.exp(rng.uniform(-0.13, 0.13)) * mm / framing.mm
    stretch = np.exp(rng.normal(0, 0.03))
    angle = np.deg2rad(np.clip(rng.normal(0, 5), -13, 13))
    turn = (
        size
        * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        @ np.diag([stretch, 1.0])
    )
    warp = np.column_stack([turn, np.full(2, (framing.side - 1) / 2) - turn @ centre])
    seen = cv2.warpAffine(image, warp, (framing.side, framing.side), flags=cv2.INTER_LINEAR)
    return np.square(seen.astype(np.float32) / 255) * np.float32(CLIP), warp


def _framed(
    rng: Rng, picture: Image, places: NDArray[Any], framing: Framing
) -> tuple[Image, NDArray[np.bool_]]:
    """A field of view that may be smaller than the picture; and which points are inside."""
    low, high = np.zeros(2), np.full(2, framing.side - 1.0)
    if rng.random() < 0.6:
        size = rng.uniform(0.66, 1.05, 2) * framing.side
        middle = (framing.side - 1) / 2 + rng.normal(0, 0.04 * framing.side, 2)
        low, high = np.maximum(low, middle - size / 2), np.minimum(high, middle + size / 2)
        kept = np.zeros_like(picture)
        (left, top), (right, bottom) = low.astype(int), high.astype(int) + 1
        kept[top:bottom, left:right] = picture[top:bottom, left:right]
        picture = kept
    return picture, np.all((places > low + MARGIN) & (places < high - MARGIN), axis=1)


def _strange(rng: Rng, picture: Image) -> Image:
    """What is no upright lumbar spine: mirrored, turned, or a mere texture."""
    kind = int(rng.integers(6))
    if kind == 0:
        return np.ascontiguousarray(picture[:, ::-1])
    if kind == 1:
        return np.ascontiguousarray(picture[::-1])
    if kind == 2:
        return np.ascontiguousarray(picture[::-1, ::-1])
    if kind == 3:
        return np.ascontiguousarray(picture.T)
    side = len(picture)
    grain = int(np.exp(rng.uniform(1.5, np.log(side))))
    pattern = cv2.resize(
        rng.random((grain, grain), dtype=np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    return np.clip(pattern * picture * 2 if kind == 4 else pattern, 0, CLIP).astype(np.float32)


def _spoilt(rng: Rng, picture: Image) -> Image:
    """Blur, an uneven coil, objects that should not be there, gamma and Rician noise; then the usual brightness."""
    side, field = len(picture), picture > 0
    if rng.random() < 0.7:
        across, down = rng.uniform(0.2, 1.5), rng.uniform(0.2, 1.3)
        picture = np.asarray(
            cv2.GaussianBlur(picture, (0, 0), across, sigmaY=down), dtype=np.float32
        )
    if rng.random() < 0.7:
        coarse = rng.normal(0, rng.uniform(0, 0.5), (4, 4)).astype(np.float32)
        picture *= np.exp(
            np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))
        )
    if rng.random() < 0.15:
        for _ in range(int(rng.integers(1, 4))):
            at, axes = rng.integers(0, side, 2).tolist(), rng.integers(3, side // 9, 2).tolist()
            cv2.ellipse(
                picture,
                at,
                axes,
                float(rng.uniform(0, 180)),
                0,
                360,
                float(rng.choice((0, 0.02, 1.2))),
                -1,
            )
    if rng.random() < 0.5:
        picture = np.power(np.maximum(picture, 0), np.float32(rng.uniform(0.6, 1.5)))
    level = 0.1 * rng.random() ** 2 if rng.random() < 0.93 else rng.uniform(0.1, 0.18)
    noise = rng.standard_normal((2, side, side), dtype=np.float32) * np.float32(level)
    if rng.random() < 0.5:  # of the resolution of the scanner, not of ours
        noise = np.stack([cv2.GaussianBlur(part, (0, 0), 0.7) for part in noise]) * np.float32(1.8)
    picture = np.hypot(np.maximum(picture, 0) + noise[0], noise[1])
    if rng.random() < 0.6:  # scanners often store nothing outside the field of view
        picture = picture * (cv2.dilate(field.astype(np.uint8), np.ones((3, 3), np.uint8)))
    return normalise_brightness(picture.astype(np.float32))
