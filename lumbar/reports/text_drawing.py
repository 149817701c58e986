"""Words on a dark picture: colours, a font, lines broken to a width, and the en dash that Pillow's font lacks."""

import re
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from lumbar.spine.anatomy import Severity

Colour = tuple[int, int, int]

GROUND: Colour = (16, 18, 22)
LIGHT: Colour = (236, 238, 241)
GREY: Colour = (164, 170, 178)
LINE: Colour = (70, 76, 84)
MARK: Colour = (86, 180, 233)
WARNING: Colour = (240, 228, 66)
# Okabe and Ito's, which the colour-blind can tell apart.
OF_SEVERITY: dict[Severity, Colour] = {
    Severity.NORMAL_MILD: (0, 158, 115),
    Severity.MODERATE: (230, 159, 0),
    Severity.SEVERE: (213, 94, 0),
}

LEADING = 1.3  # from one line to the next, over the font's size
DASH, DASH_EM = "–", 0.55


class Page:
    """A picture to paste on and write on; places are in pixels from the top left."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), GROUND)
        self.ink = ImageDraw.Draw(self.image)

    def write(
        self, x: float, y: float, text: str, size: int, colour: Colour = LIGHT, anchor: str = "la"
    ) -> None:
        """One line; ``anchor`` says what of it lies at (x, y), in Pillow's two letters."""
        x -= {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * length(text, size)
        for run in _runs(text):
            if run == DASH:
                self._dash(x, y, size, colour, anchor[1])
            else:
                self.ink.text((x, y), run, colour, _font(size), anchor="l" + anchor[1])
            x += _advance(run, size)

    def write_all(
        self, x: float, y: float, lines: Iterable[str], size: int, colour: Colour = LIGHT
    ) -> float:
        """Lines one under the other; the y below them."""
        for line in lines:
            self.write(x, y, line, size, colour)
            y += size * LEADING
        return y

    def write_over(
        self, x: float, y: float, text: str, size: int, colour: Colour = LIGHT, anchor: str = "la"
    ) -> None:
        """A short word over an image, on a dark plate so that it is read on white fat too."""
        left, top, right, bottom = self.ink.textbbox((x, y), text, _font(size), anchor=anchor)
        self.ink.rectangle((left - 3, top - 3, right + 2, bottom + 2), fill=GROUND)
        self.ink.text((x, y), text, colour, _font(size), anchor=anchor)

    def frame(self, box: tuple[float, float, float, float], colour: Colour, width: int = 1) -> None:
        """An edge just inside the box: left, top, right, bottom."""
        left, top, right, bottom = box
        self.ink.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=width)

    def _dash(self, x: float, y: float, size: int, colour: Colour, vertical: str) -> None:
        """As high as the font's own hyphen, and about as thick."""
        top = round(y + _font(size).getbbox("-", anchor="l" + vertical)[1])
        right = x + DASH_EM * size
        self.ink.rectangle(
            (round(x + 1), top, round(right - 1), top + max(0, round(size / 12) - 1)), fill=colour
        )


def length(text: str, size: int) -> float:
    """How wide a line is."""
    return sum(_advance(run, size) for run in _runs(text))


def broken(text: str, size: int, width: float, most: int) -> list[str]:
    """The text in lines no wider than ``width``, and no more of them than ``most``; "…" where words are left out."""
    lines = [""]
    for word in _words(text, size, width):
        longer = f"{lines[-1]} {word}".strip()
        if length(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        last = lines[most - 1]
        while last and length(last + "…", size) > width:
            last = last[:-1]
        lines[most - 1 :] = [last + "…"]
    return lines


def _words(text: str, size: int, width: float) -> Iterable[str]:
    """The words; one that is too wide by itself in pieces."""
    for word in text.split():
        at = [0]
        for end in range(1, len(word) + 1):
            if end - at[-1] > 1 and length(word[at[-1] : end], size) > width:
                at.append(end - 1)
        yield from (word[start:end] for start, end in pairwise([*at, len(word)]))


def _runs(text: str) -> list[str]:
    return [run for run in re.split(f"({DASH})", text) if run]


def _advance(run: str, size: int) -> float:
    return DASH_EM * size if run == DASH else _font(size).getlength(run)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
