"""One synthetic patient: the spine and its surroundings.

Coordinates are in mm (LPS): x to the patient's left, y backwards, z upwards. The upper end-plate of
S1 is near the origin.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lumbar.phantoms.chain import (
    BEND,
    LORDOSIS,
    SCALE,
    Build,
    Chain,
    Disc,
    Limits,
    Numbering,
    Vertebra,
    draw_chain,
)
from lumbar.phantoms.curve import Curve
from lumbar.phantoms.shapes import Capsule, Shape, Tissue
from lumbar.phantoms.truth import Point
from lumbar.spine.anatomy import Condition, FindingKey, Level, Side

# Distances of the pedicles from the midline, mm: of the five lowest bodies upwards, then of others.
PEDICLES = (20.0, 18.0, 17.0, 16.5, 16.0)
PEDICLES_ABOVE, PEDICLES_S1 = 15.0, 23.0


@dataclass(frozen=True)
class Patient:
    """Everything that the images of one study are rendered from."""

    scale: float
    numbering: Numbering
    chain: Chain
    burdens: Mapping[FindingKey, float]
    # z of the conus' tip, mm.
    conus: float
    # Thickness of the fat behind the muscles, mm.
    subcutaneous: float
    # Share of fat in the muscles.
    fatty_muscle: float
    # Factor on the marrow's signal.
    marrow: float
    # Thickness of the fat behind the sac, mm.
    epidural_fat: float
    texture_seed: int
    # Schmorl's nodes, end-plate changes, haemangiomas.
    lesions: tuple[Shape, ...]

    @property
    def vertebrae(self) -> tuple[Vertebra, ...]:
        """From the lowest lumbar vertebra upwards."""
        return self.chain.vertebrae

    @property
    def discs(self) -> tuple[Disc, ...]:
        """From the lowest disc outside the sacrum upwards."""
        return self.chain.discs

    @property
    def canal(self) -> Curve:
        """The centre line of the dural sac."""
        return self.chain.canal

    def body(self, name: str) -> Vertebra:
        """A vertebra by its anatomical name, such as T12."""
        return next(body for body in self.vertebrae if body.name == name)

    def disc(self, level: Level) -> Disc:
        """The disc of a level, counted upwards from the lowest."""
        return self.discs[4 - list(Level).index(level)]

    def burden(self, condition: Condition, level: Level) -> float:
        """A finding's burden, 0–3 (see ``truth``)."""
        return self.burdens[FindingKey(condition, level)]

    def foramen(self, level: Level, side: Side) -> Point:
        """The centre of a neural foramen, mm (LPS)."""
        disc = self.disc(level)
        sign = 1 if side is Side.LEFT else -1
        return disc.frame.to_patient(
            sign * self.foramen_offset(level), disc.depth + 4.8 * self.scale, 6 * self.scale
        )

    def foramen_offset(self, level: Level) -> float:
        """The distance of a foramen's centre from the midsagittal plane, mm."""
        return PEDICLES[4 - list(Level).index(level)] * self.scale

    def recess(self, level: Level, side: Side) -> Point:
        """The centre of the lateral recess at the disc, mm (LPS)."""
        index = self.canal.levels[level]
        sign = 1 if side is Side.LEFT else -1
        point = self.canal.points[index] - 4.5 * self.scale * self.canal.posterior[index]
        return float(point[0] + sign * 9.5 * self.scale), float(point[1]), float(point[2])

    def sac(self, level: Level) -> Point:
        """The centre of the dural sac at the disc, mm (LPS)."""
        x, y, z = self.canal.points[self.canal.levels[level]]
        return float(x), float(y), float(z)

    def point(self, key: FindingKey) -> Point:
        """The point of a finding, mm (LPS)."""
        side = key.condition.side
        if side is None:
            return self.sac(key.level)
        return (
            self.foramen(key.level, side)
            if "foraminal" in key.condition
            else self.recess(key.level, side)
        )


def draw_patient(
    rng: np.random.Generator,
    burdens: Mapping[FindingKey, float],
    numbering: Numbering = Numbering.USUAL,
    build: Build = Build.USUAL,
) -> Patient:
    """A random patient with these burdens; the burdens influence nothing else."""
    scale = float(np.clip(rng.normal(1, 0.075), SCALE.low, SCALE.high))
    outside = _extreme_measures(rng) if build is Build.EXTREME else []
    scale = SCALE.outside(rng) if SCALE in outside else scale
    chain = draw_chain(rng, scale, numbering, outside)
    l1 = next(body for body in chain.vertebrae if body.name == "L1")
    return Patient(
        scale=scale,
        numbering=numbering,
        chain=chain,
        burdens=burdens,
        conus=float(l1.frame.origin[2] + rng.normal(0, 12)),
        subcutaneous=float(rng.uniform(5, 50)),
        fatty_muscle=float(rng.beta(1.5, 5)),
        marrow=float(rng.uniform(0.7, 1.15)),
        epidural_fat=float(rng.uniform(1.0, 4.5)),
        texture_seed=int(rng.integers(2**32)),
        lesions=tuple(_draw_lesions(rng, chain)),
    )


def _extreme_measures(rng: np.random.Generator) -> list[Limits]:
    """The limits of one or more of the three dimensions, chosen at random."""
    measures, extreme = (SCALE, LORDOSIS, BEND), rng.random(3) < 0.5
    extreme[rng.integers(3)] = True
    return [measure for measure, is_extreme in zip(measures, extreme, strict=True) if is_extreme]


def _draw_lesions(rng: np.random.Generator, chain: Chain) -> Iterator[Shape]:
    for body in chain.vertebrae:
        kind, end = rng.random(), float(rng.choice((-1, 1)))
        back = float(rng.uniform(-0.6, 0.6) * body.depths[0])
        lateral = float(rng.uniform(-0.4, 0.4) * body.widths[0])
        size = float(rng.uniform(3, 7))
        if kind < 0.08:
            # Schmorl's node.
            at, radii = (lateral, back, end * body.height), (size, size, 0.8 * size)
            tissue = Tissue.NUCLEUS
        elif kind < 0.18:
            # End-plate change, fatty or oedematous (Modic).
            at, radii = (0.0, back, end * (body.height - 2)), (16.0, 2 * size, size)
            tissue = Tissue.FAT if rng.random() < 0.6 else Tissue.NUCLEUS
        elif kind < 0.24:
            # Haemangioma.
            at, radii, tissue = (lateral, back, end * 4), (size, size, size), Tissue.FAT
        else:
            continue
        yield Capsule(body.frame, tissue, blur=3.0, start=at, end=at, radii=radii)
