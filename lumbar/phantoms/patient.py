"""One imaginary patient in millimetres: the chain of vertebrae and discs, the canal behind it, what varies freely.

x grows to the patient's left, y backwards, z upwards (LPS). The upper end-plate of S1 is near the origin.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lumbar.phantoms.curve import Curve, through
from lumbar.phantoms.shapes import Frame
from lumbar.phantoms.truth import Point
from lumbar.spine.anatomy import Condition, FindingKey, Level, Side

BODIES = ("L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10", "T9")
_HEIGHTS = (26.5, 27.0, 27.3, 27.3, 27.0, 25.5, 24.0, 23.0, 22.0)
_DISCS = (9.0, 10.5, 10.5, 9.5, 8.8, 7.0, 6.0, 5.0, 5.0)  # below each body
_DEPTHS = (35.0, 35.0, 34.5, 34.0, 33.0, 31.5, 30.5, 30.0, 29.0)
_WIDTHS = (51.0, 49.0, 47.0, 45.0, 43.0, 42.0, 40.0, 38.0, 36.0)
# Shares of the lordosis (L1's upper to S1's upper end-plate) in each body and in the disc below it.
_BODY_WEDGES = (0.14, 0.06, 0.03, 0.01, 0.02, -0.08, -0.08, -0.08, -0.08)
_DISC_WEDGES = (0.24, 0.18, 0.14, 0.10, 0.08, 0.01, 0.0, 0.0, 0.0)

PEDICLE = {"L5": 20.0, "L4": 18.0, "L3": 17.0, "L2": 16.5, "L1": 16.0, "S1": 23.0}  # mm from the middle


@dataclass(frozen=True)
class Vertebra:
    """A body; lengths are halves in mm, as in :class:`~lumbar.phantoms.shapes.Block`."""

    name: str
    frame: Frame
    height: float
    depths: tuple[float, float]
    widths: tuple[float, float]
    slopes: tuple[float, float]


@dataclass(frozen=True)
class Disc:
    """A disc; lengths are halves in mm. ``hydration`` runs from 0 (black) to 1 (bright on T2)."""

    frame: Frame
    height: float
    depth: float
    width: float
    slope: float
    hydration: float


@dataclass(frozen=True)
class Patient:
    """Everything the pictures of one study are made from."""

    scale: float
    vertebrae: tuple[Vertebra, ...]  # L5 upwards
    sacrum: tuple[Vertebra, ...]  # S1 downwards
    discs: tuple[Disc, ...]  # L5/S1 upwards
    remnant: float  # height in mm of the gap between S1 and S2
    endplate: Frame  # of S1, its posterior elements hang on it
    canal: Curve
    burdens: Mapping[FindingKey, float]
    conus: float  # z in mm of its tip
    subcutaneous: float  # mm of fat behind the muscles
    fatty_muscle: float  # share of fat in the muscles
    marrow: float  # factor on the marrow's signal
    epidural_fat: float  # mm behind the sac
    texture_seed: int

    def disc(self, level: Level) -> Disc:
        """The disc of a level."""
        return self.discs[4 - list(Level).index(level)]

    def burden(self, condition: Condition, level: Level) -> float:
        """How far a finding has gone, 0–3."""
        return self.burdens[FindingKey(condition, level)]

    def foramen(self, level: Level, side: Side) -> Point:
        """The centre of a neural foramen."""
        disc = self.disc(level)
        sign = 1 if side is Side.LEFT else -1
        return disc.frame.to_patient(sign * self.foramen_offset(level), disc.depth + 4.8 * self.scale, 6 * self.scale)

    def foramen_offset(self, level: Level) -> float:
        """How far a foramen's middle is from the mid-sagittal plane, mm."""
        return PEDICLE[level.label[:2]] * self.scale

    def recess(self, level: Level, side: Side) -> Point:
        """The lateral recess at the disc."""
        index = self.canal.levels[level]
        sign = 1 if side is Side.LEFT else -1
        point = self.canal.points[index] - 4.5 * self.scale * self.canal.posterior[index]
        return float(point[0] + sign * 9.5 * self.scale), float(point[1]), float(point[2])

    def sac(self, level: Level) -> Point:
        """The middle of the dural sac at the disc."""
        x, y, z = self.canal.points[self.canal.levels[level]]
        return float(x), float(y), float(z)

    def point(self, key: FindingKey) -> Point:
        """Where a finding lies, mm (LPS)."""
        side = key.condition.side
        if side is None:
            return self.sac(key.level)
        return self.foramen(key.level, side) if "foraminal" in key.condition else self.recess(key.level, side)


def draw_patient(rng: np.random.Generator, burdens: Mapping[FindingKey, float]) -> Patient:
    """A patient with these burdens; nothing else about the patient depends on them."""
    scale = float(np.clip(rng.normal(1, 0.06), 0.86, 1.14))
    lordosis = np.deg2rad(np.clip(rng.normal(47, 10), 25, 70))
    slope = float(np.clip(0.6 * lordosis + np.deg2rad(rng.normal(9, 5)), np.deg2rad(18), np.deg2rad(55)))
    bend, middle = np.clip(rng.normal(0, 4), -8, 8), rng.uniform(40, 120)
    jitter = 1 + 0.03 * rng.standard_normal(len(BODIES))
    narrowed = np.where(rng.random(len(BODIES)) < 0.18, rng.uniform(0.45, 0.8, len(BODIES)), 1.0)
    hydration = np.clip(rng.normal(0.6, 0.25) + 0.2 * rng.standard_normal(len(BODIES)), 0, 1)
    hydration = np.where(narrowed < 1, hydration * 0.4, hydration)

    def aside(z: float) -> float:  # a small scoliosis, none at the sacrum
        return float(bend * np.sin(np.pi * np.clip(z, 0, None) / (2 * middle)))

    vertebrae, discs = [], []
    y, z, angle = 0.0, 0.0, slope
    for i, name in enumerate(BODIES):
        height = _DISCS[i] * scale * narrowed[i]
        wedge = _DISC_WEDGES[i] * lordosis
        frame, (y, z), angle = _stack(y, z, angle, height, wedge, aside)
        depth, width = _DEPTHS[i] * scale / 2, _WIDTHS[i] * scale / 2
        discs.append(Disc(frame, height / 2, depth, width, float(np.tan(wedge / 2)), float(hydration[i])))
        height = _HEIGHTS[i] * scale * jitter[i]
        wedge = _BODY_WEDGES[i] * lordosis
        frame, (y, z), angle = _stack(y, z, angle, height, wedge, aside)
        lean = float(np.tan(wedge / 2))
        vertebrae.append(Vertebra(name, frame, height / 2, (depth, depth), (width, width), (lean, lean)))
    axis = 0.35 * slope + np.deg2rad(38 + np.clip(rng.normal(0, 4), -8, 8))
    remnant = float(rng.uniform(1.0, 5.0))
    sacrum = _sacrum(scale, slope, axis, remnant)
    return Patient(
        scale=scale,
        vertebrae=tuple(vertebrae),
        sacrum=sacrum,
        discs=tuple(discs),
        remnant=remnant,
        endplate=Frame((0.0, float(13.5 * scale * np.sin(slope)), float(-13.5 * scale * np.cos(slope))), slope),
        canal=_canal(scale, vertebrae, discs, sacrum),
        burdens=burdens,
        conus=float(vertebrae[4].frame.origin[2] + rng.normal(0, 12)),
        subcutaneous=float(rng.uniform(8, 40)),
        fatty_muscle=float(rng.beta(1.5, 5)),
        marrow=float(rng.uniform(0.75, 1.1)),
        epidural_fat=float(rng.uniform(1.0, 4.5)),
        texture_seed=int(rng.integers(2**32)),
    )


def _stack(
    y: float, z: float, angle: float, height: float, wedge: float, aside: Callable[[float], float]
) -> tuple[Frame, tuple[float, float], float]:
    """The frame of a block on top of an end-plate; the middle and the angle of the block's own upper end-plate."""
    middle = angle - wedge / 2
    up = np.array([-np.sin(middle), np.cos(middle)])
    centre, top = np.array([y, z]) + up * height / 2, np.array([y, z]) + up * height
    origin = (aside(float(centre[1])), float(centre[0]), float(centre[1]))
    return Frame(origin, float(middle)), (float(top[0]), float(top[1])), angle - wedge


def _sacrum(scale: float, slope: float, axis: float, remnant: float) -> tuple[Vertebra, ...]:
    """S1 to S4. Its axis keeps its angle whatever the slope of its end-plate, and turns downwards lower down."""
    heights = np.array([27.5, 24.0, 20.0, 18.0]) * scale
    depths = np.array([34.0, 21.5, 15.5, 12.0, 9.0]) * scale / 2
    widths = np.array([50.0, 40.0, 33.0, 28.0, 22.0]) * scale / 2
    gaps = np.array([0.0, remnant, 0.8, 0.5])
    turns = np.deg2rad([0, 8, 24, 42])
    y, z, segments = 0.0, 0.0, []
    for i, (height, gap, turn) in enumerate(zip(heights, gaps, turns, strict=True)):
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


def _canal(scale: float, vertebrae: list[Vertebra], discs: list[Disc], sacrum: tuple[Vertebra, ...]) -> Curve:
    knots = [
        part.frame.to_patient(0, float(np.mean(part.depths)) + back * scale, 0)
        for part, back in zip(sacrum[::-1], (4.0, 5.0, 6.0, 8.0), strict=True)
    ]
    marks = [disc.frame.to_patient(0, disc.depth + 9.0 * scale, 0) for disc in discs]
    for mark, body in zip(marks, vertebrae, strict=True):
        knots += [mark, body.frame.to_patient(0, body.depths[0] + 8.5 * scale, 0)]
    return through(
        np.array(knots), {level: np.array(mark) for level, mark in zip(reversed(Level), marks, strict=False)}
    )
