"""Simulated scanners: sequences, spin-echo equation, noise, coil and saturation band."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.phantoms.anatomy import shapes
from lumbar.phantoms.background import enlarge, surroundings, texture
from lumbar.phantoms.canal import paint_canal
from lumbar.phantoms.patient import Patient
from lumbar.phantoms.planes import Stack
from lumbar.phantoms.shapes import Array, Lattice, Tissue, paint
from lumbar.spine.anatomy import Role

# Planes averaged into a slice.
_PER_SLICE = 3

# T1 and T2 in ms and proton density in % at 1.5 T; the last few are chosen for their appearance.
_TISSUES: dict[Tissue, tuple[float, float, float]] = {
    Tissue.AIR: (1000, 1, 0),
    Tissue.FAT: (300, 120, 95),
    Tissue.MUSCLE: (900, 40, 75),
    Tissue.MARROW: (515, 101, 91),
    Tissue.CORTEX: (500, 3, 15),
    Tissue.NUCLEUS: (1165, 102, 79),
    Tissue.ANNULUS: (554, 42, 42),
    Tissue.LIGAMENT: (500, 25, 45),
    Tissue.CSF: (4273, 1578, 107),
    Tissue.CORD: (780, 102, 59),
    Tissue.ROOT: (900, 70, 60),
    Tissue.VEIN: (1200, 140, 85),
    Tissue.FLOW: (1500, 12, 60),
    Tissue.BOWEL: (900, 60, 60),
    Tissue.KIDNEY: (1000, 85, 85),
}
_DRY_DISC = (554, 50, 46)


@dataclass(frozen=True)
class Scanner:
    """A family of scanners; pairs are the limits of a study's random value."""

    name: str
    # Tesla.
    field: float
    sagittal_matrix: tuple[int, ...]
    axial_matrix: tuple[int, ...]
    # TR and TE, ms.
    t1: tuple[tuple[float, float], tuple[float, float]]
    t2: tuple[tuple[float, float], tuple[float, float]]
    # TI of STIR, ms.
    inversion: tuple[float, float]
    signal_to_noise: tuple[float, float]
    # Signal at the back relative to the front.
    coil: tuple[float, float]
    # Standard deviation of the reconstruction's blur, pixels.
    blur: float
    # Share of studies whose axial slices follow the discs.
    tilted: float
    # Stored value of the brightest tissue.
    scale: float


SCANNERS = (
    Scanner(
        "Phantom A",
        1.5,
        (384, 352),
        (288, 320),
        ((480, 680), (8, 13)),
        ((2800, 4000), (95, 118)),
        (145, 165),
        (25, 60),
        (1.6, 3.2),
        0.55,
        0.3,
        1400,
    ),
    Scanner(
        "Phantom B",
        1.5,
        (320, 384),
        (256, 320),
        ((450, 620), (9, 14)),
        ((3000, 4500), (85, 110)),
        (150, 170),
        (18, 45),
        (1.4, 2.6),
        0.7,
        0.8,
        700,
    ),
    Scanner(
        "Phantom C",
        3.0,
        (384,),
        (320,),
        ((560, 780), (8, 11)),
        ((3200, 4800), (90, 120)),
        (180, 220),
        (35, 80),
        (1.6, 3.8),
        0.45,
        0.5,
        2400,
    ),
)
# Never used for training: a low-field family, and one with TR, TE and resolution beyond all others.
HELD_OUT = (
    Scanner(
        "Phantom D",
        0.35,
        (256, 288),
        (224, 256),
        ((420, 560), (16, 22)),
        ((2200, 2800), (120, 135)),
        (110, 135),
        (12, 24),
        (1.2, 2.0),
        0.9,
        0.6,
        260,
    ),
    Scanner(
        "Phantom E",
        3.0,
        (512,),
        (448,),
        ((920, 1150), (22, 30)),
        ((6200, 7500), (145, 180)),
        (220, 260),
        (10, 16),
        (4.5, 7.0),
        0.5,
        0.4,
        3600,
    ),
)


@dataclass(frozen=True)
class Sequence:
    """TR, TE and TI of one series, ms; ``inversion`` is 0 without an inversion pulse."""

    repetition: float
    echo: float
    inversion: float = 0.0

    def signals(self, patient: Patient, hydration: float) -> dict[Tissue, float]:
        """The signal of every tissue by the spin-echo equation, about 0–100."""
        values = {tissue: self._signal(*times) for tissue, times in _TISSUES.items()}
        wet, dry = values[Tissue.NUCLEUS], self._signal(*_DRY_DISC)
        values[Tissue.NUCLEUS] = dry + hydration * (wet - dry)
        values[Tissue.MARROW] *= patient.marrow
        return values

    def _signal(self, t1: float, t2: float, density: float) -> float:
        recovered = 1 - np.exp(-self.repetition / t1)
        if self.inversion:
            recovered = abs(1 - 2 * np.exp(-self.inversion / t1) + np.exp(-self.repetition / t1))
        return float(density * recovered * np.exp(-self.echo / t2))


def draw_sequence(
    rng: np.random.Generator, scanner: Scanner, role: Role, *, stir: bool = False
) -> Sequence:
    """A random sequence for a series of this role."""
    repetition, echo = scanner.t1 if role is Role.SAGITTAL_T1 else scanner.t2
    if stir:
        return Sequence(
            round(rng.uniform(3500, 5000)),
            round(rng.uniform(45, 70), 1),
            round(rng.uniform(*scanner.inversion)),
        )
    return Sequence(round(rng.uniform(*repetition)), round(rng.uniform(*echo), 1))


def acquire(
    rng: np.random.Generator,
    scanner: Scanner,
    sequence: Sequence,
    patient: Patient,
    stacks: tuple[Stack, ...],
) -> list[NDArray[np.uint16]]:
    """The slices of a series in order of its stacks, (rows, columns), 12-bit values in uint16."""
    ratio = rng.uniform(*scanner.coil)
    noise = 1 / rng.uniform(*scanner.signal_to_noise)
    front = min(body.frame.origin[1] - body.depths[1] for body in patient.vertebrae[:7])
    # y where saturation begins, mm.
    band = front - rng.uniform(8, 25) if rng.random() < 0.7 else -500.0
    images = [plane for stack in stacks for plane in render(stack, sequence, patient, ratio, band)]
    top = max(sequence.signals(patient, 1.0)[t] for t in (Tissue.CSF, Tissue.FAT, Tissue.MARROW))
    slices = []
    moved = _movement(rng.spawn(1)[0])
    for image in images:
        blurred = moved(cv2.GaussianBlur(image, (0, 0), scanner.blur))
        sigma = np.float32(noise * 0.6 * top)
        parts = rng.standard_normal((2, *blurred.shape), dtype=np.float32) * sigma
        magnitude = np.hypot(blurred + parts[0], parts[1]) * np.float32(scanner.scale / top)
        slices.append(np.clip(np.rint(magnitude), 0, 4095).astype(np.uint16))
    return slices


def _movement(rng: np.random.Generator) -> Callable[[Array], Array]:
    """Motion artefacts of a series: in every third series, weak ghosts along rows or columns."""
    strength = float(rng.uniform(0.02, 0.1)) if rng.random() < 0.33 else 0.0
    axis, shift = int(rng.integers(2)), float(rng.uniform(0.05, 0.3))

    def moved(image: Array) -> Array:
        by = round(shift * image.shape[axis])
        ghosts = 0.5 * (np.roll(image, by, axis) + np.roll(image, -by, axis))
        blended: Array = (1 - strength) * image + strength * ghosts
        return blended

    return moved if strength else lambda image: image


class Contrast(Protocol):
    """Has a signal for every tissue; ``hydration`` (0–1) is that of a disc."""

    def signals(self, patient: Patient, hydration: float) -> dict[Tissue, float]: ...


def render(stack: Stack, sequence: Contrast, patient: Patient, ratio: float, band: float) -> Array:
    """The noise-free slices of one stack, (slices, rows, columns).

    ``ratio``: the coil's signal at the back relative to the front; ``band``: y in mm where the
    anterior saturation band begins.
    """
    fine, coarse = stack.lattice(_PER_SLICE), stack.coarse_lattice()
    signals = sequence.signals(patient, 0.6)
    image = enlarge(surroundings(coarse, patient, signals), fine, _PER_SLICE)
    hydration = {id(disc.frame): disc.hydration for disc in patient.discs}
    for shape in shapes(patient):
        wet = hydration.get(id(shape.frame)) if shape.tissue is Tissue.NUCLEUS else None
        paint(image, fine, shape, signals if wet is None else sequence.signals(patient, wet))
    paint_canal(image, fine, patient, signals)
    slices: Array = image.reshape(stack.count, _PER_SLICE, *fine.shape[1:]).mean(axis=1)
    gain = _gain(coarse, patient, ratio, band)
    return slices * enlarge(gain, stack.lattice(1), 1)


def _gain(lattice: Lattice, patient: Patient, ratio: float, band: float) -> Array:
    """Spatial gain: posterior coil, anterior saturation band, uneven tissue."""
    k, r, c = (np.arange(n, dtype=np.float32) for n in lattice.shape)
    planes, rows, columns = lattice.steps
    x, y = (
        (
            lattice.origin[i] + k[:, None, None] * planes[i] + r[:, None] * rows[i] + c * columns[i]
        ).astype(np.float32)
        for i in range(2)
    )
    coil = np.exp(np.float32(np.log(ratio) / 160) * (y - 20)) * np.exp(-np.square(x / 160))
    saturated = 1 - 0.85 / (1 + np.exp(np.clip((y - band) / 5, -30, 30)))
    uneven = 1 + 0.04 * texture(lattice, patient.texture_seed + 3)
    gain: Array = (coil * saturated * uneven).astype(np.float32)
    return gain
