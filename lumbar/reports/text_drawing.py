"""Text on a dark picture: colours, a font, line wrapping, and the en dash that the font lacks.

The font is the one built into Pillow.
"""

import re
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from lumbar.spine.anatomy import Severity

Colour = tuple[int, int, int]

BACKGROUND: Colour = (16, 18, 22)
LIGHT: Colour = (236, 238, 241)
GREY: Colour = (164, 170, 178)
BORDER: Colour = (70, 76, 84)
MARKER: Colour = (86, 180, 233)
WARNING: Colour = (240, 228, 66)
# From the palette of Okabe and Ito, whose colours colour-blind readers can distinguish.
SEVERITY_COLOURS: dict[Severity, Colour] = {
    Severity.NORMAL_MILD: (0, 158, 115),
    Severity.MODERATE: (230, 159, 0),
    Severity.SEVERE: (213, 94, 0),
}

LINE_SPACING = 1.3  # distance between lines, in font sizes
DASH, DASH_EM = "–", 0.55  # the en dash, and its width in font sizes


class Canvas:
    """A picture to paste images and write text on; positions are in pixels from the top left."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), BACKGROUND)
        self.drawing = ImageDraw.Draw(self.image)

    def write(
        self, x: float, y: float, text: str, size: int, colour: Colour = LIGHT, anchor: str = "la"
    ) -> None:
        """Writes one line; ``anchor`` states which part of it lies at (x, y), as in Pillow."""
        x -= {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * text_width(text, size)
        for segment in _segments(text):
            if segment == DASH:
                self._dash(x, y, size, colour, anchor[1])
            else:
                self.drawing.text((x, y), segment, colour, _font(size), anchor="l" + anchor[1])
            x += _segment_width(segment, size)

    def write_lines(
        self, x: float, y: float, lines: Iterable[str], size: int, colour: Colour = LIGHT
    ) -> float:
        """Writes lines one below the other; returns the y below them."""
        for line in lines:
            self.write(x, y, line, size, colour)
            y += size * LINE_SPACING
        return y

    def write_on_plate(
        self, x: float, y: float, text: str, size: int, colour: Colour = LIGHT, anchor: str = "la"
    ) -> None:
        """Writes a short text over an image, on a dark plate, as fat is nearly white."""
        left, top, right, bottom = self.drawing.textbbox((x, y), text, _font(size), anchor=anchor)
        self.drawing.rectangle((left - 3, top - 3, right + 2, bottom + 2), fill=BACKGROUND)
        self.drawing.text((x, y), text, colour, _font(size), anchor=anchor)

    def frame(self, box: tuple[float, float, float, float], colour: Colour, width: int = 1) -> None:
        """Draws a border just inside the box (left, top, right, bottom)."""
        left, top, right, bottom = box
        self.drawing.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=width)

    def _dash(self, x: float, y: float, size: int, colour: Colour, vertical: str) -> None:
        """Draws a dash at the height of the font's hyphen, and about as thick."""
        top = round(y + _font(size).getbbox("-", anchor="l" + vertical)[1])
        right = x + DASH_EM * size
        self.drawing.rectangle(
            (round(x + 1), top, round(right - 1), top + max(0, round(size / 12) - 1)), fill=colour
        )


def text_width(text: str, size: int) -> float:
    """The width of a line, in pixels."""
    return sum(_segment_width(segment, size) for segment in _segments(text))


def wrap(text: str, size: int, width: float, max_lines: int) -> list[str]:
    """The text in lines no wider than ``width`` pixels.

    Text beyond ``max_lines`` is dropped and replaced by "…".
    """
    lines = [""]
    for word in _words(text, size, width):
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > max_lines:
        last = lines[max_lines - 1]
        while last and text_width(last + "…", size) > width:
            last = last[:-1]
        lines[max_lines - 1 :] = [last + "…"]
    return lines


def _words(text: str, size: int, width: float) -> Iterable[str]:
    """The words; a word that is wider than a line is split."""
    for word in text.split():
        starts = [0]
        for end in range(1, len(word) + 1):
            if end - starts[-1] > 1 and text_width(word[starts[-1] : end], size) > width:
                starts.append(end - 1)
        yield from (word[start:end] for start, end in pairwise([*starts, len(word)]))


def _segments(text: str) -> list[str]:
    return [segment for segment in re.split(f"({DASH})", text) if segment]


def _segment_width(segment: str, size: int) -> float:
    return DASH_EM * size if segment == DASH else _font(size).getlength(segment)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
