"""Views of phantoms for training the locator's networks: varied planes, positions and contrasts.

Half of the contrasts follow the spin-echo equation; half are random intensities per tissue, so that
the networks generalise to any contrast (SynthSeg: Billot et al., Medical Image Analysis 86, 2023).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar.phantoms.chain import Numbering
from lumbar.phantoms.patient import Patient, draw_patient
from lumbar.phantoms.planes import Region, Stack, region_centre
from lumbar.phantoms.scanner import Sequence, render
from lumbar.phantoms.shapes import Tissue
from lumbar.phantoms.truth import Point, draw_burdens
from lumbar.spine.anatomy import Level, Side
from lumbar.spine.keypoint_input import BORDER_ANTERIOR_MM, BORDER_CAUDAL_MM

SAGITTAL_MM, SAGITTAL_SIDE = 1.6, 256
AXIAL_MM, AXIAL_SIDE = 1.25, 176
BORDER_MM, BORDER_SIDE = 1.2, 120
SLICE_MM = 5.0
# (slices, rows, columns): the square root of the signal, upright.
Images = NDArray[np.uint8]

# The share of sagittal views centred on each region.
_SHARES = {Region.LUMBAR: 0.76, Region.THORAX: 0.1, Region.NECK: 0.06, Region.PELVIS: 0.08}
# Share of patients with a transitional vertebra.
_TRANSITIONAL = 0.3


@dataclass(frozen=True)
class Views:
    """Parallel slices and the points on them.

    ``points`` is (keypoints, 3): column and row in pixels, and the position along the stack in mm,
    where slice i is at ``positions[i]``.
    """

    images: Images
    positions: NDArray[np.float32]
    points: NDArray[np.float32]
    numbering: Numbering
    region: Region


def sagittal_views(seed: int) -> list[Views]:
    """A patient's lumbar spine, or sometimes another region, in two contrasts.

    Keypoints: the canal at the seven discs from T11/T12 to L5/S1, counted upwards from the lowest,
    and at S1/S2; then the foramina of L1/L2 to L5/S1, left, then right.
    """
    rng = np.random.default_rng((seed, 1))
    transitional = rng.random() < _TRANSITIONAL
    numbering = Numbering(rng.choice(list(Numbering)[1:])) if transitional else Numbering.USUAL
    patient = draw_patient(rng, draw_burdens(rng), numbering)
    region = Region(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    points = np.array(sagittal_points(patient))
    return [_sagittal_view(rng, patient, region, points) for _ in range(2)]


def sagittal_points(patient: Patient) -> list[Point]:
    """The keypoints in mm (LPS), in the order of ``sagittal_views``."""
    s1, s = patient.chain.sacrum[0], patient.scale
    below = s1.frame.to_patient(0, s1.depths[0] + 7 * s, -s1.height - patient.chain.remnant / 2)
    marks = [
        disc.frame.to_patient(0, body.depths[0] + 9 * s, 0)
        for disc, body in zip(patient.discs[6::-1], patient.vertebrae[6::-1], strict=True)
    ]
    return [
        *(patient.canal.nearest(mark) for mark in (*marks, below)),
        *(patient.foramen(level, side) for side in Side for level in Level),
    ]


def axial_views(seed: int) -> list[Views]:
    """A few slices around three of a patient's discs.

    Keypoints: the sac, the left recess, the right recess.
    """
    rng = np.random.default_rng((seed, 2))
    patient = draw_patient(rng, draw_burdens(rng))
    views = []
    for level in rng.choice(list(Level), 3, replace=False):
        disc = patient.disc(Level(level))
        angle, yaw = disc.frame.angle + np.deg2rad(rng.normal(0, 7)), np.deg2rad(rng.normal(0, 3))
        along = np.array([np.cos(yaw), np.sin(yaw), 0.0])
        down = np.array([0.0, np.cos(angle), np.sin(angle)])
        down -= along * (down @ along)
        down /= np.linalg.norm(down)
        up = np.cross(along, down)
        sac = np.array(patient.sac(Level(level)))
        middle = sac + rng.uniform(-6, 6) * up + np.array([rng.normal(0, 5), rng.normal(-10, 8), 0])
        stack = _stack(middle, along, down, up * 6.0, 4, AXIAL_SIDE, AXIAL_MM)
        points = np.array([sac, *(patient.recess(Level(level), side) for side in Side)])
        views.append(_views(rng, patient, stack, points, Region.LUMBAR))
    return views


def border_views(seed: int) -> list[Views]:
    """Midsagittal views of the lumbosacral border, half of them transitional, in two contrasts.

    Keypoint: the canal at the lowest disc.
    """
    rng = np.random.default_rng((seed, 4))
    numbering = Numbering.USUAL
    # Half of the sixth lumbar vertebrae are fused with the sacrum, the least conspicuous kind.
    if rng.random() < 0.5:
        numbering = Numbering(rng.choice(list(Numbering)[1:], p=(0.7, 0.15, 0.15)))
    patient = draw_patient(rng, draw_burdens(rng), numbering)
    lowest = np.array(patient.sac(Level.L5_S1))
    views = []
    for _ in range(2):
        middle = lowest + np.array([0.0, -BORDER_ANTERIOR_MM, -BORDER_CAUDAL_MM])
        stack = _upright(rng, middle, (2, 3, 3), (3.5, 5), 5, BORDER_SIDE, BORDER_MM)
        views.append(_views(rng, patient, stack, lowest[None], Region.LUMBAR))
    return views


def _sagittal_view(
    rng: np.random.Generator, patient: Patient, region: Region, points: NDArray[np.float64]
) -> Views:
    at = region_centre(patient, region)
    at[2] += rng.uniform(-70, 60) if region is Region.THORAX else 0.0
    stack = _upright(rng, at, (3, 10, 15), (8, 11), 7, SAGITTAL_SIDE, SAGITTAL_MM)
    return _views(rng, patient, stack, points, region)


def _upright(
    rng: np.random.Generator,
    at: NDArray[np.float64],
    spread: tuple[float, float, float],
    gaps: tuple[float, float],
    count: int,
    size: int,
    mm: float,
) -> Stack:
    """Slightly rotated sagittal slices around a point.

    ``spread`` (standard deviations of the centre) and ``gaps`` (limits of the slice distance): mm.
    """
    turn, lean = np.deg2rad(np.clip(rng.normal(0, 2.5, 2), -7, 7))
    along = np.array([np.sin(turn), np.cos(turn), 0.0])
    down = np.array([np.sin(lean), 0.0, -np.cos(lean)])
    down -= along * (down @ along)
    down /= np.linalg.norm(down)
    middle = at + rng.normal(0, spread)
    step = -np.cross(along, down) * float(rng.uniform(*gaps))
    return _stack(middle, along, down, step, count, size, mm)


def _stack(
    middle: NDArray[np.float64],
    along: NDArray[np.float64],
    down: NDArray[np.float64],
    step: NDArray[np.float64],
    count: int,
    size: int,
    mm: float,
) -> Stack:
    corner = middle - (along + down) * mm * (size - 1) / 2 - step * (count - 1) / 2
    return Stack(corner, along, down, step, mm, SLICE_MM, count, size)


def _views(
    rng: np.random.Generator,
    patient: Patient,
    stack: Stack,
    points: NDArray[np.float64],
    region: Region,
) -> Views:
    contrast = _realistic(rng) if rng.random() < 0.5 else _AnyContrast(rng)
    front = min(body.frame.origin[1] - body.depths[1] for body in patient.vertebrae[:7])
    band = front - rng.uniform(-3, 30) if rng.random() < 0.6 else -500.0
    signal = render(stack, contrast, patient, float(np.exp(rng.uniform(0, 1.8))), band)
    top = np.percentile(signal, 99.7) + 1e-6
    images = np.sqrt(np.clip(signal / top, 0, 1.3) / 1.3) * 255
    normal = stack.step / np.linalg.norm(stack.step)
    offset = points - stack.position
    projected = np.column_stack(
        [
            offset @ stack.along_row / stack.spacing,
            offset @ stack.down_column / stack.spacing,
            offset @ normal,
        ]
    )
    positions = np.arange(stack.count) * np.linalg.norm(stack.step)
    return Views(
        images.round().astype(np.uint8),
        positions.astype(np.float32),
        projected.astype(np.float32),
        patient.numbering,
        region,
    )


def _realistic(rng: np.random.Generator) -> Sequence:
    kind = rng.random()
    if kind < 0.38:
        return Sequence(rng.uniform(2000, 6000), rng.uniform(70, 140))
    if kind < 0.68:
        return Sequence(rng.uniform(350, 900), rng.uniform(7, 20))
    if kind < 0.86:
        return Sequence(rng.uniform(2500, 6000), rng.uniform(30, 80), rng.uniform(120, 240))
    if kind < 0.94:
        return Sequence(rng.uniform(1700, 2700), rng.uniform(8, 25), rng.uniform(650, 950))
    return Sequence(rng.uniform(1500, 4000), rng.uniform(15, 50))


class _AnyContrast:
    """A random signal for every tissue; air and cortical bone stay dark."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._values = {tissue: float(rng.uniform(0, 100)) for tissue in Tissue}
        self._values[Tissue.AIR] *= 0.05
        self._values[Tissue.CORTEX] *= rng.uniform(0.05, 0.6)
        self._dry = float(rng.uniform(0, 100))

    def signals(self, patient: Patient, hydration: float) -> dict[Tissue, float]:
        """The signal of every tissue; ``hydration`` (0–1) mixes those of a dry and a wet disc."""
        wet = self._values[Tissue.NUCLEUS]
        return {**self._values, Tissue.NUCLEUS: self._dry + hydration * (wet - self._dry)}
