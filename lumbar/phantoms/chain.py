"""The chain of vertebrae and discs from the coccyx to C2, and the spinal canal behind it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from lumbar.phantoms.curve import Curve, through
from lumbar.phantoms.shapes import Frame
from lumbar.spine.anatomy import Level

# Mean height of each body and of the disc below it, depth and width of the body, mm.
_SIZES: dict[str, tuple[float, float, float, float]] = {
    "L5": (26.5, 9.0, 35.0, 51.0), "L4": (27.0, 10.5, 35.0, 49.0), "L3": (27.3, 10.5, 34.5, 47.0),
    "L2": (27.3, 9.5, 34.0, 45.0), "L1": (27.0, 8.8, 33.0, 43.0), "T12": (25.5, 7.0, 31.5, 42.0),
    "T11": (24.0, 6.0, 30.5, 40.0), "T10": (23.0, 5.0, 30.0, 38.0), "T9": (22.0, 5.0, 29.0, 36.0),
    "T8": (21.5, 4.5, 28.5, 34.0), "T7": (21.0, 4.5, 28.0, 33.0), "T6": (20.5, 4.5, 27.5, 32.0),
    "T5": (20.0, 4.5, 26.5, 31.0), "T4": (19.5, 4.5, 25.0, 30.0), "T3": (19.0, 4.5, 23.0, 29.0),
    "T2": (18.5, 4.5, 21.0, 29.0), "T1": (17.5, 5.0, 18.5, 29.0), "C7": (14.5, 5.5, 17.0, 28.0),
    "C6": (13.5, 5.5, 16.5, 26.0), "C5": (13.0, 5.5, 16.0, 24.0), "C4": (13.0, 5.5, 15.5, 22.0),
    "C3": (13.0, 5.5, 15.5, 20.0), "C2": (21.0, 5.0, 15.0, 18.0),
}  # fmt: skip
_ABOVE = tuple(name for name in _SIZES if not name.startswith("L"))
# Shares of the lordosis of the five lowest bodies and of the discs below them.
_BODY_WEDGES = (0.14, 0.06, 0.03, 0.01, 0.02)
_DISC_WEDGES = (0.24, 0.18, 0.14, 0.10, 0.08)
# Degrees by which body and disc turn the chain in the thoracic and cervical spine.
_TURNS = {"T": (-2.8, 0.0), "C": (1.0, 3.0)}
# S1 to S5 and two segments of the coccyx, mm and degrees.
_SACRAL_HEIGHTS = (27.5, 24.0, 20.0, 18.0, 16.0, 10.0, 9.0)
_SACRAL_DEPTHS = (34.0, 21.5, 15.5, 12.0, 9.0, 8.0, 7.0, 5.0)
_SACRAL_WIDTHS = (50.0, 40.0, 33.0, 28.0, 22.0, 18.0, 13.0, 8.0)
_SACRAL_TURNS = (0.0, 8.0, 24.0, 42.0, 60.0, 78.0, 95.0)


class Numbering(StrEnum):
    """The number of lumbar vertebrae and the kind of lumbosacral transition."""

    USUAL = "usual"
    SIX_LUMBAR = "six_lumbar"
    SACRALISED_L5 = "sacralised_l5"
    LUMBARISED_S1 = "lumbarised_s1"


class Build(StrEnum):
    """Whether a spine's dimensions are within the usual limits, which all training data observe.

    An ``EXTREME`` spine is smaller or larger, less or more lordotic, or more scoliotic than them.
    """

    USUAL = "usual"
    EXTREME = "extreme"


@dataclass(frozen=True)
class Limits:
    """The limits of a random dimension, and how far beyond them an extreme value can be."""

    low: float
    high: float
    beyond: float

    def outside(self, rng: np.random.Generator) -> float:
        by = float(rng.uniform(0, self.beyond))
        return self.low - by if rng.random() < 0.5 else self.high + by


# Size relative to the mean; lordosis, degrees; lateral deviation, mm.
SCALE, LORDOSIS = Limits(0.8, 1.2, 0.08), Limits(20, 75, 8)
BEND = Limits(-12, 12, 6)


@dataclass(frozen=True)
class Vertebra:
    """A vertebral body; lengths are halves in mm, as in :class:`~lumbar.phantoms.shapes.Block`."""

    name: str
    frame: Frame
    height: float
    depths: tuple[float, float]
    widths: tuple[float, float]
    slopes: tuple[float, float]

    @property
    def size(self) -> float:
        """The width relative to a lumbar vertebra's."""
        return self.widths[1] / 24.0


@dataclass(frozen=True)
class Disc:
    """A disc; lengths are halves in mm. ``hydration``: 0 (dark on T2) to 1 (bright)."""

    frame: Frame
    height: float
    depth: float
    width: float
    slope: float
    hydration: float


@dataclass(frozen=True)
class Chain:
    """Bodies and discs from the lowest mobile one upwards, and the sacrum from S1 downwards.

    ``remnant``: height of the disc between S1 and S2, mm. ``squared``: S1 looks like a lumbar
    vertebra. ``transitional``: the lowest lumbar vertebra is fused with the sacrum. ``endplate``:
    the frame of S1's posterior elements.
    """

    vertebrae: tuple[Vertebra, ...]
    discs: tuple[Disc, ...]
    sacrum: tuple[Vertebra, ...]
    remnant: float
    squared: bool
    transitional: bool
    endplate: Frame
    canal: Curve


def draw_chain(
    rng: np.random.Generator, scale: float, numbering: Numbering, outside: Collection[Limits] = ()
) -> Chain:
    """A spine with random posture and degeneration; S1's upper end-plate is near the origin.

    ``outside``: the limits beyond which a dimension must lie.
    """
    rudimentary = numbering is Numbering.SIX_LUMBAR and rng.random() < 0.5
    squared = numbering is not Numbering.USUAL and not rudimentary
    lordosis = np.clip(rng.normal(46, 11), LORDOSIS.low, LORDOSIS.high)
    lordosis = np.deg2rad(LORDOSIS.outside(rng) if LORDOSIS in outside else lordosis)
    slope = float(
        np.clip(0.6 * lordosis + np.deg2rad(rng.normal(8.5, 6)), np.deg2rad(14), np.deg2rad(58))
    )
    names = _names(numbering)
    heights, gaps, depths, widths = (
        np.array(column) * scale for column in zip(*map(_size, names), strict=True)
    )
    heights *= 1 + 0.03 * rng.standard_normal(len(names))
    worn = np.where(rng.random(len(names)) < 0.18, rng.uniform(0.35, 0.8, len(names)), 1.0)
    hydration = np.clip(rng.normal(0.6, 0.25) + 0.2 * rng.standard_normal(len(names)), 0, 1)
    if rudimentary:
        worn[0] = rng.uniform(0.3, 0.6)
    hydration = np.where(worn < 1, hydration * 0.4, hydration)
    body_turns, disc_turns = _turns(rng, names, lordosis)
    broken = rng.random(len(names)) < np.where(
        [n in ("L3", "L2", "L1", "T12", "T11") for n in names], 0.015, 0.002
    )
    heights = np.where(broken, heights * rng.uniform(0.6, 0.85, len(names)), heights)
    body_turns = np.where(
        broken, body_turns - np.deg2rad(rng.uniform(3, 11, len(names))), body_turns
    )
    slips = np.zeros(len(names))
    if rng.random() < 0.08:
        slips[rng.choice(3, p=(0.35, 0.5, 0.15))] = rng.uniform(3, 9) * scale
    bend, middle = np.clip(rng.normal(0, 5), BEND.low, BEND.high), rng.uniform(40, 120)
    bend = BEND.outside(rng) if BEND in outside else bend

    def lateral(z: float) -> float:
        """Lateral deviation in mm of a small scoliosis; 0 at the sacrum."""
        return float(bend * np.sin(np.pi * np.clip(z, 0, 250) / (2 * middle)))

    vertebrae, discs = [], []
    y, z, angle = 0.0, 0.0, slope
    for i, name in enumerate(names):
        frame, (y, z), angle = _stack(y, z, angle, gaps[i] * worn[i], disc_turns[i], lateral)
        depth, width = float(depths[i]) / 2, float(widths[i]) / 2
        reach = depth * (0.78 if rudimentary and i == 0 else 1.0)
        lean = float(np.tan(disc_turns[i] / 2))
        discs.append(
            Disc(frame, float(gaps[i] * worn[i]) / 2, reach, width, lean, float(hydration[i]))
        )
        y, z = y - slips[i] * np.cos(angle), z - slips[i] * np.sin(angle)
        frame, (y, z), angle = _stack(y, z, angle, heights[i], body_turns[i], lateral)
        lean = float(np.tan(body_turns[i] / 2))
        vertebrae.append(
            Vertebra(
                name, frame, float(heights[i]) / 2, (depth, depth), (width, width), (lean, lean)
            )
        )
    axis = 0.35 * slope + np.deg2rad(38 + np.clip(rng.normal(0, 8), -18, 18))
    remnant = float(rng.uniform(4.0, 8.0) if squared else rng.uniform(0.5, 4.5))
    if squared:
        axis = (axis + slope) / 2
    sacrum = _sacrum(scale, slope, float(axis), remnant, squared)
    endplate = Frame(
        (0.0, float(13.5 * scale * np.sin(slope)), float(-13.5 * scale * np.cos(slope))), slope
    )
    canal = _canal(scale, vertebrae, discs, sacrum)
    return Chain(
        tuple(vertebrae), tuple(discs), sacrum, remnant, squared, rudimentary, endplate, canal
    )


def _names(numbering: Numbering) -> tuple[str, ...]:
    """From the lowest vertebra that is not part of the sacrum upwards."""
    lowest = {Numbering.SIX_LUMBAR: 6, Numbering.SACRALISED_L5: 4}.get(numbering, 5)
    return (*(f"L{n}" for n in range(lowest, 0, -1)), *_ABOVE)


def _size(name: str) -> tuple[float, float, float, float]:
    return _SIZES["L5" if name == "L6" else name]


def _turns(
    rng: np.random.Generator, names: tuple[str, ...], lordosis: float
) -> tuple[np.ndarray, np.ndarray]:
    """Radians by which each body and the disc below it turn the chain backwards."""
    turns = np.array([(0.0, 0.0) if n.startswith("L") else np.deg2rad(_TURNS[n[0]]) for n in names])
    shares = np.column_stack([_BODY_WEDGES, _DISC_WEDGES]) * np.clip(
        rng.normal(1, 0.25, (5, 2)), 0.3, 2
    )
    turns[:5] = shares / shares.sum() * lordosis
    turns[5:] *= np.clip(rng.normal(1, 0.3), 0.3, 1.7)
    return turns[:, 0], turns[:, 1]


def _stack(
    y: float, z: float, angle: float, height: float, wedge: float, lateral: Callable[[float], float]
) -> tuple[Frame, tuple[float, float], float]:
    """The frame of a block on an end-plate, and its upper end-plate's centre (y, z) and angle."""
    middle = angle - wedge / 2
    up = np.array([-np.sin(middle), np.cos(middle)])
    centre, top = np.array([y, z]) + up * height / 2, np.array([y, z]) + up * height
    origin = (lateral(float(centre[1])), float(centre[0]), float(centre[1]))
    return Frame(origin, float(middle)), (float(top[0]), float(top[1])), angle - wedge


def _sacrum(
    scale: float, slope: float, axis: float, remnant: float, squared: bool
) -> tuple[Vertebra, ...]:
    """Sacrum and coccyx; the angle of their axis is independent of the slope of S1's end-plate."""
    heights, depths = np.array(_SACRAL_HEIGHTS) * scale, np.array(_SACRAL_DEPTHS) * scale / 2
    widths = np.array(_SACRAL_WIDTHS) * scale / 2
    gaps = np.array([0.0, remnant, 0.8, 0.5, 0.5, 1.0, 0.5])
    if squared:
        depths[1] = 0.9 * depths[0]
    y, z, segments = 0.0, 0.0, []
    for i, (height, gap, turn) in enumerate(
        zip(heights, gaps, np.deg2rad(_SACRAL_TURNS), strict=True)
    ):
        angle = axis - turn
        down = np.array([np.sin(angle), -np.cos(angle)])
        y, z = np.array([y, z]) + down * gap
        centre = np.array([y, z]) + down * height / 2
        y, z = np.array([y, z]) + down * height
        top = float(np.tan(axis - slope)) if i == 0 else 0.0
        segments.append(
            Vertebra(
                f"S{i + 1}",
                Frame((0.0, float(centre[0]), float(centre[1])), float(angle)),
                float(height / 2),
                (float(depths[i + 1]), float(depths[i])),
                (float(widths[i + 1]), float(widths[i])),
                (0.0, top),
            )
        )
    return tuple(segments)


def _canal(
    scale: float, vertebrae: list[Vertebra], discs: list[Disc], sacrum: tuple[Vertebra, ...]
) -> Curve:
    knots = [
        part.frame.to_patient(0, float(np.mean(part.depths)) + back * scale, 0)
        for part, back in zip(sacrum[3::-1], (4.0, 5.0, 6.0, 8.0), strict=True)
    ]
    marks = [
        disc.frame.to_patient(0, body.depths[0] + 9.0 * scale, 0)
        for disc, body in zip(discs, vertebrae, strict=True)
    ]
    for mark, body in zip(marks, vertebrae, strict=True):
        knots += [mark, body.frame.to_patient(0, body.depths[0] + 8.5 * scale, 0)]
    return through(
        np.array(knots),
        {level: np.array(mark) for level, mark in zip(reversed(Level), marks, strict=False)},
    )
