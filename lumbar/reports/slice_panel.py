"""The large slice of the picture: upright, true to scale, with its points labelled."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumbar.reports.text_drawing import BACKGROUND, LIGHT, MARKER, Canvas
from lumbar.spine.anatomy import Plane
from lumbar.spine.crops import SIDE, crop_to_image, normalised
from lumbar.spine.slices import SliceHeader, Vector

# Pixels.
RING_RADIUS, TICK_END = 8, 14  # of a marker, from its centre; the ticks begin at the ring
LABEL_OFFSET = 84  # from the rightmost point to the column of labels
LABEL_SPACING = 24  # minimum, between two labels
LETTER_WIDTH = 12  # maximum, of a label's letters
SCALE_BAR_MM = 50.0
# The directions of the left, right, top and bottom edges.
DIRECTIONS = {Plane.SAGITTAL: "APHF", Plane.AXIAL: "RLAP", Plane.CORONAL: "RLHF"}
TICKS = ((1, 0), (-1, 0), (0, 1), (0, -1))  # unit vectors
SUBPIXEL_BITS = 4  # fractional bits of the fixed-point coordinates for OpenCV's drawing

Pixels = NDArray[np.uint8]
Position = tuple[float, float]  # x, y on the panel, in pixels


@dataclass(frozen=True)
class AnnotatedSlice:
    """A slice and the points to label on it, under a ``title``.

    ``image`` is (rows, columns), in any range, NaN where it shows nothing. ``points`` are in mm
    (LPS), by label, from top to bottom.
    """

    title: str
    image: NDArray[np.float32]
    header: SliceHeader
    points: Mapping[str, Vector]


@dataclass(frozen=True)
class PanelGeometry:
    """How the slice is laid out on the panel.

    ``pixel_mm`` is the size of a panel's pixel; ``to_image`` the (2, 3) affine map from the panel's
    (x, y) to the image's (column, row).
    """

    pixel_mm: float
    to_image: NDArray[np.float64]

    def position(self, header: SliceHeader, point: Vector) -> Position:
        """The position on the panel of a point in mm (LPS)."""
        x, y = cv2.invertAffineTransform(self.to_image) @ np.array([*header.to_pixel(point), 1.0])
        return float(x), float(y)


def fit_to_panel(annotated: AnnotatedSlice, width: int, height: int) -> PanelGeometry:
    """Fits the whole height of the slice, and as much of its width as the panel can show.

    Horizontally it is centred on the points, as far as the slice's edges allow.
    """
    header = annotated.header
    centre = ((header.columns - 1) / 2, (header.rows - 1) / 2)
    in_mm = PanelGeometry(1.0, _panel_to_image(header, centre, 1.0, 1, 1))
    corners = np.array([[-0.5, -0.5, 1.0], [header.columns - 0.5, header.rows - 0.5, 1.0]])
    extent = abs(np.diff(corners @ cv2.invertAffineTransform(in_mm.to_image).T, axis=0))[0]
    width_mm, height_mm = extent
    pixel_mm = height_mm / height
    room = max(0.0, (width_mm - width * pixel_mm) / 2)
    offsets = [in_mm.position(header, point)[0] for point in annotated.points.values()]
    shift = float(np.clip(np.mean(offsets), -room, room)) if offsets else 0.0
    column, row = in_mm.to_image @ np.array([shift, 0.0, 1.0])
    to_image = _panel_to_image(header, (column, row), pixel_mm, width, height)
    return PanelGeometry(pixel_mm, to_image)


def draw_annotated_slice(
    canvas: Canvas, x: int, y: int, width: int, height: int, annotated: AnnotatedSlice
) -> None:
    """Draws the slice, its points, scale bar and directions into the panel at (x, y)."""
    geometry = fit_to_panel(annotated, width, height)
    grey = cv2.warpAffine(
        normalised(annotated.image),
        geometry.to_image,
        (width, height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
    )
    panel: Pixels = np.repeat(
        (grey.clip(0, 1) * 255).round().astype(np.uint8)[..., None], 3, axis=2
    )
    positions = {
        label: geometry.position(annotated.header, point)
        for label, point in annotated.points.items()
    }
    labels = _label_positions(positions, width)
    for label, position in positions.items():
        _draw_marker(panel, position, labels[label])
    bar = (20, height - 30, round(SCALE_BAR_MM / geometry.pixel_mm))
    _draw_scale_bar(panel, *bar)
    canvas.image.paste(Image.fromarray(panel), (x, y))
    for label, (label_x, label_y) in labels.items():
        canvas.write_on_plate(x + label_x + 5, y + label_y, label, 19, MARKER, "lm")
    canvas.write_on_plate(x + bar[0], y + bar[1] - 8, "5 cm", 16, LIGHT, "ls")
    edges = (
        (10, height / 2, "lm"),
        (width - 10, height / 2, "rm"),
        (width / 2, 10, "mt"),
        (width / 2, height - 10, "mb"),
    )
    for letter, (*edge, anchor) in zip(DIRECTIONS[annotated.header.plane], edges, strict=True):
        canvas.write_on_plate(x + edge[0], y + edge[1], letter, 20, LIGHT, anchor)


def _panel_to_image(
    header: SliceHeader, centre: tuple[float, float], pixel_mm: float, width: int, height: int
) -> NDArray[np.float64]:
    """The (2, 3) affine map from a panel's (x, y) to the image's (column, row).

    The panel's centre maps to ``centre``, a (column, row) of the image.
    """
    to_image = crop_to_image(header, *centre, SIDE * pixel_mm)
    to_image[:, 2] += to_image[:, :2] @ np.array([(SIDE - width) / 2, (SIDE - height) / 2])
    return to_image


def _label_positions(positions: Mapping[str, Position], width: int) -> dict[str, Position]:
    """Where each label begins: one column beside all points, level with them, without overlap."""
    if not positions:
        return {}
    x = min(
        max(x for x, _ in positions.values()) + LABEL_OFFSET,
        width - LETTER_WIDTH * max(map(len, positions)) - 20.0,
    )
    labels: dict[str, Position] = {}
    lowest = -np.inf
    for label, (_, y) in positions.items():
        lowest = max(y, lowest + LABEL_SPACING)
        labels[label] = x, lowest
    return labels


def _draw_marker(panel: Pixels, position: Position, label: Position) -> None:
    """An open ring, four ticks outside it and a thin line to the label, all outlined in black."""
    x, y = position
    ticks = [
        ((x + RING_RADIUS * dx, y + RING_RADIUS * dy), (x + TICK_END * dx, y + TICK_END * dy))
        for dx, dy in TICKS
    ]
    centre, radius = _fixed_point(position), RING_RADIUS << SUBPIXEL_BITS
    for colour, outline in ((BACKGROUND, 2), (MARKER, 0)):
        _draw_line(panel, (x + TICK_END, y), label, colour, 1 + outline)
        for start, end in ticks:
            _draw_line(panel, start, end, colour, 2 + outline)
        cv2.circle(panel, centre, radius, colour, 2 + outline, cv2.LINE_AA, SUBPIXEL_BITS)


def _draw_scale_bar(panel: Pixels, x: int, y: int, width: int) -> None:
    for colour, outline in ((BACKGROUND, 4), (LIGHT, 0)):
        _draw_line(panel, (x, y), (x + width, y), colour, 3 + outline)
        for end in (x, x + width):
            _draw_line(panel, (end, y - 6), (end, y + 6), colour, 3 + outline)


def _draw_line(
    panel: Pixels, start: Position, end: Position, colour: tuple[int, int, int], width: int
) -> None:
    ends = _fixed_point(start), _fixed_point(end)
    cv2.line(panel, *ends, colour, width, cv2.LINE_AA, SUBPIXEL_BITS)


def _fixed_point(position: Position) -> tuple[int, int]:
    return round(position[0] * 2**SUBPIXEL_BITS), round(position[1] * 2**SUBPIXEL_BITS)
