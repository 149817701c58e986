"""The large slice of the picture: upright, true to scale, with every name at its place."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumbar.reports.text_drawing import GROUND, LIGHT, MARK, Page
from lumbar.spine.anatomy import Plane
from lumbar.spine.crops import SIDE, crop_to_image, normalised
from lumbar.spine.slices import SliceHeader, Vector

RING, TICK = 8, 14  # pixels from a mark's centre: its ring, and the ends of its cross-hair
LABEL_ASIDE, LABEL_APART = 84, 24  # pixels from the hindmost mark to the names; between two names
LETTER = 12  # pixels, at most, of a name's letter
SCALE_MM = 50.0
LETTERS = {
    Plane.SAGITTAL: "APHF",
    Plane.AXIAL: "RLAP",
    Plane.CORONAL: "RLHF",
}  # left, right, top, bottom
CROSS = ((1, 0), (-1, 0), (0, 1), (0, -1))
SUBPIXEL = 4  # binary places that OpenCV draws with

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Marked:
    """A slice with what was found on it, under a ``title``.

    ``image`` is (rows, columns), any range; ``marks`` are points in mm (LPS) by name, from top to bottom.
    """

    title: str
    image: NDArray[np.float32]
    header: SliceHeader
    marks: Mapping[str, Vector]


@dataclass(frozen=True)
class Hanging:
    """How the slice hangs on the panel: its pixels' size in mm, and the map from them to the image's."""

    mm: float
    to_image: NDArray[np.float64]

    def place(self, header: SliceHeader, point: Vector) -> tuple[float, float]:
        """Where a point in mm (LPS) lies on the panel."""
        x, y = cv2.invertAffineTransform(self.to_image) @ np.array([*header.to_pixel(point), 1.0])
        return float(x), float(y)


def hang(marked: Marked, width: int, height: int) -> Hanging:
    """The whole height of the slice, and of its width what has room, about the marks."""
    header = marked.header
    middle = ((header.columns - 1) / 2, (header.rows - 1) / 2)
    by_mm = Hanging(1.0, _map(header, middle, 1.0, 1, 1))
    corners = np.array([[-0.5, -0.5, 1.0], [header.columns - 0.5, header.rows - 0.5, 1.0]])
    wide, high = abs(np.diff(corners @ cv2.invertAffineTransform(by_mm.to_image).T, axis=0))[0]
    mm = high / height
    room = max(0.0, (wide - width * mm) / 2)
    aside = [by_mm.place(header, point)[0] for point in marked.marks.values()]
    shift = float(np.clip(np.mean(aside), -room, room)) if aside else 0.0
    column, row = by_mm.to_image @ np.array([shift, 0.0, 1.0])
    return Hanging(mm, _map(header, (column, row), mm, width, height))


def draw_marked(page: Page, x: int, y: int, width: int, height: int, marked: Marked) -> None:
    """The slice with its marks, names, scale bar and directions, into the panel at (x, y)."""
    hanging = hang(marked, width, height)
    grey = cv2.warpAffine(
        normalised(marked.image),
        hanging.to_image,
        (width, height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
    )
    panel: Pixels = np.repeat(
        (grey.clip(0, 1) * 255).round().astype(np.uint8)[..., None], 3, axis=2
    )
    places = {name: hanging.place(marked.header, point) for name, point in marked.marks.items()}
    names = _names(places, width)
    for name, place in places.items():
        _mark(panel, place, names[name])
    bar = (20, height - 30, round(SCALE_MM / hanging.mm))
    _scale_bar(panel, *bar)
    page.image.paste(Image.fromarray(panel), (x, y))
    for name, (name_x, name_y) in names.items():
        page.write_over(x + name_x + 5, y + name_y, name, 19, MARK, "lm")
    page.write_over(x + bar[0], y + bar[1] - 8, "5 cm", 16, LIGHT, "ls")
    sides = (
        (10, height / 2, "lm"),
        (width - 10, height / 2, "rm"),
        (width / 2, 10, "mt"),
        (width / 2, height - 10, "mb"),
    )
    for letter, (*at, anchor) in zip(LETTERS[marked.header.plane], sides, strict=True):
        page.write_over(x + at[0], y + at[1], letter, 20, LIGHT, anchor)


def _map(
    header: SliceHeader, at: tuple[float, float], mm: float, width: int, height: int
) -> NDArray[np.float64]:
    """The (2, 3) affine map from a panel's (x, y) to the image's; the panel's centre maps to a pixel of the image."""
    square = crop_to_image(header, *at, SIDE * mm)
    square[:, 2] += square[:, :2] @ np.array([(SIDE - width) / 2, (SIDE - height) / 2])
    return square


def _names(places: Mapping[str, tuple[float, float]], width: int) -> dict[str, tuple[float, float]]:
    """Where each name begins: one column beside them all, level with the marks and clear of each other."""
    if not places:
        return {}
    x = min(
        max(x for x, _ in places.values()) + LABEL_ASIDE,
        width - LETTER * max(map(len, places)) - 20.0,
    )
    names: dict[str, tuple[float, float]] = {}
    lowest = -np.inf
    for name, (_, y) in places.items():
        lowest = max(y, lowest + LABEL_APART)
        names[name] = x, lowest
    return names


def _mark(panel: Pixels, place: tuple[float, float], name: tuple[float, float]) -> None:
    """A ring open in the middle, four ticks outside it, a thin line to the name; all of it edged in black."""
    x, y = place
    ticks = [((x + RING * dx, y + RING * dy), (x + TICK * dx, y + TICK * dy)) for dx, dy in CROSS]
    for colour, wider in ((GROUND, 2), (MARK, 0)):
        _line(panel, (x + TICK, y), name, colour, 1 + wider)
        for start, end in ticks:
            _line(panel, start, end, colour, 2 + wider)
        cv2.circle(panel, _fixed(place), RING << SUBPIXEL, colour, 2 + wider, cv2.LINE_AA, SUBPIXEL)


def _scale_bar(panel: Pixels, x: int, y: int, long: int) -> None:
    for colour, wider in ((GROUND, 4), (LIGHT, 0)):
        _line(panel, (x, y), (x + long, y), colour, 3 + wider)
        for end in (x, x + long):
            _line(panel, (end, y - 6), (end, y + 6), colour, 3 + wider)


def _line(
    panel: Pixels,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: tuple[int, int, int],
    width: int,
) -> None:
    cv2.line(panel, _fixed(start), _fixed(end), colour, width, cv2.LINE_AA, SUBPIXEL)


def _fixed(place: tuple[float, float]) -> tuple[int, int]:
    """In the fixed point that OpenCV draws with."""
    return round(place[0] * 2**SUBPIXEL), round(place[1] * 2**SUBPIXEL)
