"""The picture for checking an analysis: the labelled levels, and the crop of every finding.

It shows no patient data: neither name nor identifier.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumbar.reports.slice_panel import AnnotatedSlice, draw_annotated_slice
from lumbar.reports.text_drawing import (
    BACKGROUND,
    BORDER,
    GREY,
    LIGHT,
    LINE_SPACING,
    MARKER,
    SEVERITY_COLOURS,
    WARNING,
    Canvas,
    wrap,
)
from lumbar.spine.anatomy import Condition, FindingKey, Level, Role
from lumbar.spine.findings import MIN_VIEW_PROBABILITY, Finding

__all__ = ["AnnotatedSlice", "Cell", "draw", "draw_slice"]

# Pixels.
WIDTH, MARGIN, TOP = 1860, 24, 76
SLICE_WIDTH, GRID_LEFT = 488, 582  # the slice's panel; where the grid of cells begins
CELL_WIDTH, CELL_HEIGHT, GAP, CELL_BORDER = 246, 168, 6, 3
CROP, CELL_TEXT_LEFT = 156, 170  # in a cell: the crop's side; where the text beside it begins
GRID_HEIGHT = len(Level) * (CELL_HEIGHT + GAP) - GAP
TEXT_TOP = TOP + GRID_HEIGHT + 22
NOTICES_LEFT = 1090
MAX_LINES = 40  # of text below the grid, to limit the height of the picture
LEGEND = (
    "In each cell: the most probable severity and its probability (ResNet-50); the probability "
    f"that the crop shows the view named above the column (VGG16), in yellow if below "
    f"{MIN_VIEW_PROBABILITY:.2f}"
)
HEADINGS = {
    Condition.LEFT_NEURAL_FORAMINAL_NARROWING: "Left foramen",
    Condition.LEFT_SUBARTICULAR_STENOSIS: "Left subarticular",
    Condition.RIGHT_NEURAL_FORAMINAL_NARROWING: "Right foramen",
    Condition.RIGHT_SUBARTICULAR_STENOSIS: "Right subarticular",
    Condition.SPINAL_CANAL_STENOSIS: "Spinal canal",
}


@dataclass(frozen=True)
class Cell:
    """One finding and the crop that was graded.

    ``crop`` is (224, 224), 0–1, centred on the finding's point; None where it is not assessed.
    ``source`` identifies the image that it was cut from.
    """

    finding: Finding
    crop: NDArray[np.float32] | None
    source: str = ""


def draw(
    annotated: AnnotatedSlice | None,
    cells: Sequence[Cell],
    lines: Sequence[str],
    notices: Sequence[str],
) -> bytes:
    """The picture as a PNG; equal arguments give equal bytes.

    ``lines`` are the caveats and choices of the analysis; ``notices`` are those of every output.
    """
    text_lines = _wrap_all(lines, 17, NOTICES_LEFT - MARGIN - 40)
    notice_lines = _wrap_all(notices, 22, WIDTH - MARGIN - NOTICES_LEFT)
    height = max(len(text_lines) * 17, len(notice_lines) * 22) * LINE_SPACING
    canvas = Canvas(WIDTH, round(TEXT_TOP + height + 12 + 15 + MARGIN))
    _draw_slice(canvas, annotated)
    _draw_headings(canvas)
    by_key = {cell.finding.key: cell for cell in cells}
    for column, condition in enumerate(Condition):
        for row, level in enumerate(Level):
            x, y = GRID_LEFT + column * (CELL_WIDTH + GAP), TOP + row * (CELL_HEIGHT + GAP)
            _draw_cell(canvas, x, y, by_key.get(FindingKey(condition, level)))
    canvas.write_lines(MARGIN, TEXT_TOP, text_lines, 17)
    canvas.write_lines(NOTICES_LEFT, TEXT_TOP, notice_lines, 22, WARNING)
    canvas.write(MARGIN, TEXT_TOP + height + 12, LEGEND, 15, GREY)
    return _png(canvas)


def draw_slice(annotated: AnnotatedSlice, notices: Sequence[str]) -> bytes:
    """One slice with its points as a PNG, for an image whose level is unknown."""
    width = SLICE_WIDTH + 2 * MARGIN
    notice_lines = [line for text in notices for line in wrap(text, 17, SLICE_WIDTH, MAX_LINES)]
    canvas = Canvas(width, round(TEXT_TOP + len(notice_lines) * 17 * LINE_SPACING + MARGIN))
    _draw_slice(canvas, annotated)
    canvas.write_lines(MARGIN, TEXT_TOP, notice_lines, 17, WARNING)
    return _png(canvas)


def _png(canvas: Canvas) -> bytes:
    png = BytesIO()
    canvas.image.save(png, "PNG")
    return png.getvalue()


def _wrap_all(texts: Sequence[str], size: int, width: int) -> list[str]:
    lines = [line for text in texts for line in wrap(text, size, width, MAX_LINES)]
    return lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 1], "…"]


def _draw_slice(canvas: Canvas, annotated: AnnotatedSlice | None) -> None:
    if annotated is not None:
        canvas.write(MARGIN, TOP - 12, annotated.title, 20, anchor="ls")
        draw_annotated_slice(canvas, MARGIN, TOP, SLICE_WIDTH, GRID_HEIGHT, annotated)
    else:
        canvas.write(MARGIN + SLICE_WIDTH / 2, TOP + GRID_HEIGHT / 2, "no slice", 18, GREY, "mm")
    canvas.frame((MARGIN, TOP, MARGIN + SLICE_WIDTH, TOP + GRID_HEIGHT), BORDER)


def _draw_headings(canvas: Canvas) -> None:
    for column, condition in enumerate(Condition):
        x = GRID_LEFT + column * (CELL_WIDTH + GAP)
        canvas.write(x, TOP - 32, HEADINGS[condition], 20, anchor="ls")
        canvas.write(x, TOP - 12, condition.role.label, 14, GREY, "ls")
    for row, level in enumerate(Level):
        canvas.write(
            GRID_LEFT - 10,
            TOP + row * (CELL_HEIGHT + GAP) + CELL_HEIGHT / 2,
            level.label,
            18,
            MARKER,
            "rm",
        )


def _draw_cell(canvas: Canvas, x: int, y: int, cell: Cell | None) -> None:
    box = (x, y, x + CELL_WIDTH, y + CELL_HEIGHT)
    if cell is not None and cell.finding.severity is not None:
        canvas.frame(box, SEVERITY_COLOURS[cell.finding.severity], CELL_BORDER)
        _draw_crop(canvas, x + CELL_BORDER + 3, y + CELL_BORDER + 3, cell)
        _draw_cell_text(canvas, x + CELL_TEXT_LEFT, y + CELL_BORDER + 4, cell)
    else:
        canvas.frame(box, BORDER)
        canvas.write(x + 12, y + 12, "not assessed", 16, GREY)
        reason = cell.finding.reason if cell and cell.finding.reason else ""
        canvas.write_lines(x + 12, y + 38, wrap(reason, 14, CELL_WIDTH - 24, 6), 14, GREY)


def _draw_crop(canvas: Canvas, x: int, y: int, cell: Cell) -> None:
    if cell.crop is None:
        return
    grey = Image.fromarray((cell.crop.clip(0, 1) * 255).round().astype(np.uint8))
    canvas.image.paste(grey.resize((CROP, CROP), Image.Resampling.LANCZOS), (x, y))
    centre_x, centre_y = x + CROP // 2, y + CROP // 2
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        tick = (centre_x + 5 * dx, centre_y + 5 * dy, centre_x + 12 * dx, centre_y + 12 * dy)
        canvas.drawing.line(tick, BACKGROUND, 4)
        canvas.drawing.line(tick, MARKER, 2)
    if cell.finding.condition.role is Role.AXIAL_T2:  # viewed from the feet
        canvas.write_on_plate(x + 5, y + CROP / 2, "R", 15, LIGHT, "lm")
        canvas.write_on_plate(x + CROP - 5, y + CROP / 2, "L", 15, LIGHT, "rm")


def _draw_cell_text(canvas: Canvas, x: int, y: int, cell: Cell) -> None:
    """The severity and its probability, the probability of the view, and the source image."""
    finding = cell.finding
    severity, probabilities, shows = finding.severity, finding.probabilities, finding.shows
    if severity is None or probabilities is None or shows is None:
        return
    y_below = canvas.write_lines(
        x, y, severity.label.replace("/", "/ ").split(), 15, SEVERITY_COLOURS[severity]
    )
    y_below = canvas.write_lines(x, y_below, [f"{max(probabilities):.2f}"], 24)
    word, colour = ("shows only", WARNING) if shows < MIN_VIEW_PROBABILITY else ("shows", GREY)
    canvas.write_lines(x, y_below + 6, [word, f"{shows:.2f}"], 13, colour)
    source = wrap(cell.source, 12, CELL_WIDTH - CELL_TEXT_LEFT - CELL_BORDER, 3)
    canvas.write_lines(x, y + CROP - len(source) * 12 * LINE_SPACING, source, 12, GREY)
