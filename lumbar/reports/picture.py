"""One picture by which a person checks an analysis: the levels as they were named, and every finding's crop.

Nothing that came with the patient is written on it: neither name nor identifier.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumbar.reports.slice_panel import Marked, draw_marked
from lumbar.reports.text_drawing import (
    GREY,
    GROUND,
    LEADING,
    LIGHT,
    LINE,
    MARK,
    OF_SEVERITY,
    WARNING,
    Page,
    broken,
)
from lumbar.spine.anatomy import Condition, FindingKey, Level, Role
from lumbar.spine.findings import MIN_VIEW_PROBABILITY, Finding

__all__ = ["Cell", "Marked", "draw", "draw_slice"]

WIDTH, MARGIN, TOP = 1860, 24, 76
SLICE_WIDTH, ROWS_LEFT = 488, 582  # the slice's panel; where the grid of cells begins
CELL_WIDTH, CELL_HEIGHT, GAP, EDGE = 246, 168, 6, 3
CROP, WORDS = 156, 170  # of a cell: the crop's side; where the words beside it begin
GRID_HEIGHT = len(Level) * (CELL_HEIGHT + GAP) - GAP
WORDS_TOP = TOP + GRID_HEIGHT + 22
NOTICES_LEFT = 1090
MAX_LINES = 40  # of the words below, so that a strange study makes no endless picture
KEY = (
    "In a cell: the most probable severity with its probability (ResNet-50), "
    f"and the probability that the crop shows what the column says (VGG16), yellow where below {MIN_VIEW_PROBABILITY:.2f}"
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
    """One finding with what it was read on.

    ``crop`` is (224, 224), 0–1, centred on the finding's point, None where it is not assessed; ``source`` says in
    words which image it is of.
    """

    finding: Finding
    crop: NDArray[np.float32] | None
    source: str = ""


def draw(
    marked: Marked | None, cells: Sequence[Cell], lines: Sequence[str], notices: Sequence[str]
) -> bytes:
    """The picture as a PNG; the same values give the same bytes.

    ``lines`` tell what was chosen and what is in caveat; ``notices`` stand on every output.
    """
    said = _broken(lines, 17, NOTICES_LEFT - MARGIN - 40)
    warned = _broken(notices, 22, WIDTH - MARGIN - NOTICES_LEFT)
    height = max(len(said) * 17, len(warned) * 22) * LEADING
    page = Page(WIDTH, round(WORDS_TOP + height + 12 + 15 + MARGIN))
    _slice(page, marked)
    _headings(page)
    of = {cell.finding.key: cell for cell in cells}
    for across, condition in enumerate(Condition):
        for down, level in enumerate(Level):
            x, y = ROWS_LEFT + across * (CELL_WIDTH + GAP), TOP + down * (CELL_HEIGHT + GAP)
            _cell(page, x, y, of.get(FindingKey(condition, level)))
    page.write_all(MARGIN, WORDS_TOP, said, 17)
    page.write_all(NOTICES_LEFT, WORDS_TOP, warned, 22, WARNING)
    page.write(MARGIN, WORDS_TOP + height + 12, KEY, 15, GREY)
    return _png(page)


def draw_slice(marked: Marked, notices: Sequence[str]) -> bytes:
    """A single slice with its marks, for an image of which no level is known; a PNG."""
    width = SLICE_WIDTH + 2 * MARGIN
    warned = [line for text in notices for line in broken(text, 17, SLICE_WIDTH, MAX_LINES)]
    page = Page(width, round(WORDS_TOP + len(warned) * 17 * LEADING + MARGIN))
    _slice(page, marked)
    page.write_all(MARGIN, WORDS_TOP, warned, 17, WARNING)
    return _png(page)


def _png(page: Page) -> bytes:
    png = BytesIO()
    page.image.save(png, "PNG")
    return png.getvalue()


def _broken(texts: Sequence[str], size: int, width: int) -> list[str]:
    lines = [line for text in texts for line in broken(text, size, width, MAX_LINES)]
    return lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 1], "…"]


def _slice(page: Page, marked: Marked | None) -> None:
    if marked is not None:
        page.write(MARGIN, TOP - 12, marked.title, 20, anchor="ls")
        draw_marked(page, MARGIN, TOP, SLICE_WIDTH, GRID_HEIGHT, marked)
    else:
        page.write(MARGIN + SLICE_WIDTH / 2, TOP + GRID_HEIGHT / 2, "no slice", 18, GREY, "mm")
    page.frame((MARGIN, TOP, MARGIN + SLICE_WIDTH, TOP + GRID_HEIGHT), LINE)


def _headings(page: Page) -> None:
    for across, condition in enumerate(Condition):
        x = ROWS_LEFT + across * (CELL_WIDTH + GAP)
        page.write(x, TOP - 32, HEADINGS[condition], 20, anchor="ls")
        page.write(x, TOP - 12, condition.role.label, 14, GREY, "ls")
    for down, level in enumerate(Level):
        page.write(
            ROWS_LEFT - 10,
            TOP + down * (CELL_HEIGHT + GAP) + CELL_HEIGHT / 2,
            level.label,
            18,
            MARK,
            "rm",
        )


def _cell(page: Page, x: int, y: int, cell: Cell | None) -> None:
    box = (x, y, x + CELL_WIDTH, y + CELL_HEIGHT)
    if cell is not None and cell.finding.severity is not None:
        page.frame(box, OF_SEVERITY[cell.finding.severity], EDGE)
        _crop(page, x + EDGE + 3, y + EDGE + 3, cell)
        _grade(page, x + WORDS, y + EDGE + 4, cell)
    else:
        page.frame(box, LINE)
        page.write(x + 12, y + 12, "not assessed", 16, GREY)
        reason = cell.finding.reason if cell and cell.finding.reason else ""
        page.write_all(x + 12, y + 38, broken(reason, 14, CELL_WIDTH - 24, 6), 14, GREY)


def _crop(page: Page, x: int, y: int, cell: Cell) -> None:
    if cell.crop is None:
        return
    grey = Image.fromarray((cell.crop.clip(0, 1) * 255).round().astype(np.uint8))
    page.image.paste(grey.resize((CROP, CROP), Image.Resampling.LANCZOS), (x, y))
    middle_x, middle_y = x + CROP // 2, y + CROP // 2
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        tick = (middle_x + 5 * dx, middle_y + 5 * dy, middle_x + 12 * dx, middle_y + 12 * dy)
        page.ink.line(tick, GROUND, 4)
        page.ink.line(tick, MARK, 2)
    if cell.finding.condition.role is Role.AXIAL_T2:  # seen from the feet
        page.write_over(x + 5, y + CROP / 2, "R", 15, LIGHT, "lm")
        page.write_over(x + CROP - 5, y + CROP / 2, "L", 15, LIGHT, "rm")


def _grade(page: Page, x: int, y: int, cell: Cell) -> None:
    """The severity, its probability, how surely the crop shows its view, and the image."""
    severity, probabilities, shows = (
        cell.finding.severity,
        cell.finding.probabilities,
        cell.finding.shows,
    )
    if severity is None or probabilities is None or shows is None:
        return
    y_below = page.write_all(
        x, y, severity.label.replace("/", "/ ").split(), 15, OF_SEVERITY[severity]
    )
    y_below = page.write_all(x, y_below, [f"{max(probabilities):.2f}"], 24)
    word, colour = ("shows only", WARNING) if shows < MIN_VIEW_PROBABILITY else ("shows", GREY)
    page.write_all(x, y_below + 6, [word, f"{shows:.2f}"], 13, colour)
    source = broken(cell.source, 12, CELL_WIDTH - WORDS - EDGE, 3)
    page.write_all(x, y + CROP - len(source) * 12 * LEADING, source, 12, GREY)
