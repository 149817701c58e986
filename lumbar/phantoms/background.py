"""The tissues around the spine: skin and fat, muscles, great vessels, organs, pelvis to head."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from lumbar.phantoms.curve import STEP, Points
from lumbar.phantoms.patient import Patient
from lumbar.phantoms.shapes import WORLD, Array, Lattice, Signals, Tissue, blend, cover, ellipse

_WAVES = 14
# Only every fourth point of the curve is used.
_EVERY = 4


@dataclass(frozen=True)
class _Coordinates:
    """Coordinates of the lattice's points, mm.

    ``x`` (to the left), ``side`` (its absolute value) and ``back`` (posterior) are relative to the
    spine; ``y`` and ``z`` are LPS.
    """

    x: Array
    side: Array
    back: Array
    y: Array
    z: Array


Put = Callable[[Array, Array | float], None]


def surroundings(lattice: Lattice, patient: Patient, signals: Signals) -> Array:
    """An image (planes, rows, columns) of the lattice's points, without the spine."""
    x, y, z = lattice.coordinates(lattice.everywhere, WORLD)
    path = patient.canal.points[::_EVERY]
    along = x - _follow(z, path[:, 2], path[:, 0])
    back = y - _follow(z, path[:, 2], _back(path[:, 1]))
    along, back, y, z = np.broadcast_arrays(along, back, y, z)
    at = _Coordinates(along, np.abs(along), back, y, z)
    image = np.zeros(lattice.shape, np.float32)

    def put(share: Array, value: float | Array) -> None:
        blend(image, share, value)

    low, high = float(z.min()), float(z.max())
    chest, neck = patient.body("T10").frame.origin[2], patient.body("T1").frame.origin[2]
    inner = _trunk(put, at, lattice, patient, signals, neck)
    if high > chest:
        _chest(put, at, inner, lattice.pixel, signals, (chest, neck))
    _muscles(put, at, lattice, patient, signals)
    _vessels(put, at, patient, signals, lattice.pixel, neck)
    if low < -40:
        _pelvis(put, at, patient, signals, lattice.pixel)
    if high > neck:
        # The trachea.
        air = _rise(at.z, neck - 50, 10.0) * cover(ellipse(along, back + 42, 9, 8), lattice.pixel)
        put(air, signals[Tissue.AIR])
        _head(put, x, at, lattice, patient, signals)
    return image


def _trunk(
    put: Put, at: _Coordinates, lattice: Lattice, patient: Patient, signals: Signals, neck: float
) -> Array:
    """Skin, fat and trunk wall, narrow in the neck; signed distance (mm) from its inside."""
    s, edge = patient.scale, lattice.pixel
    slim = _rise(at.z, neck + 20, 30.0)
    back = (44 * s + 8 + patient.subcutaneous) * (1 - slim) + 34 * s * slim
    muscle = signals[Tissue.MUSCLE] + patient.fatty_muscle * (
        signals[Tissue.FAT] - signals[Tissue.MUSCLE]
    )
    wide, deep = 168 - 106 * slim, 115 - 55 * slim
    put(cover(ellipse(at.x, at.back - back + deep, wide, deep), edge), signals[Tissue.FAT])
    put(
        cover(
            ellipse(
                at.x,
                at.back - 44 * s * (1 - slim) - 28 * s * slim + deep - 10,
                wide - 20,
                deep - 10,
            ),
            edge,
        ),
        muscle,
    )
    inner = ellipse(at.x, at.back + 75 - 20 * slim, 132 - 106 * slim, 78 - 55 * slim)
    put(cover(inner, 2 * edge), signals[Tissue.FAT])
    bowel = _waves(lattice, patient.texture_seed + 1, 0.05, 0.14)
    put(
        cover(inner + 16, 4.0) * np.clip(bowel * 1.5 + 0.4, 0, 1) * (1 - slim),
        signals[Tissue.BOWEL],
    )
    return inner


def _chest(
    put: Put,
    at: _Coordinates,
    inner: Array,
    edge: float,
    signals: Signals,
    heights: tuple[float, float],
) -> None:
    """Lungs on both sides of the mediastinum and the heart, above the domes of the diaphragm."""
    low, high = heights
    dome = low - 8 + 0.003 * np.square(at.side - 60) + 0.15 * np.clip(-at.back - 40, 0, None)
    above = _rise(at.z, dome, 2.0) * (1 - _rise(at.z, high, 4.0))
    put(above * cover(inner, edge), 0.7 * signals[Tissue.MUSCLE])
    lung = np.maximum(inner + 4, 22 - at.side)
    put(above * cover(lung, edge), signals[Tissue.AIR])
    heart = (
        np.sqrt(
            np.square((at.x - 15) / 55)
            + np.square((at.back + 95) / 40)
            + np.square((at.z - low - 45) / 48)
        )
        - 1
    )
    put(above * cover(heart * 40, edge), signals[Tissue.MUSCLE])
    put(above * cover(heart * 40 + 12, edge), 2 * signals[Tissue.FLOW])


def _muscles(
    put: Put, at: _Coordinates, lattice: Lattice, patient: Patient, signals: Signals
) -> None:
    """The paraspinal and psoas muscles, with the fat between them."""
    s, edge = patient.scale, lattice.pixel
    muscle = signals[Tissue.MUSCLE] + patient.fatty_muscle * (
        signals[Tissue.FAT] - signals[Tissue.MUSCLE]
    )
    put(
        cover(ellipse(at.x, at.back - 30 * s, 5.0 + 4 * patient.fatty_muscle, 30 * s), 3.0),
        signals[Tissue.FAT] * 0.75,
    )
    streaks = np.clip(_waves(lattice, patient.texture_seed + 2, 0.2, 0.6), 0, 1) * (
        0.25 + 0.6 * patient.fatty_muscle
    )
    paraspinal = ellipse(at.side - 26 * s, at.back - 26 * s, 24.5 * s, 21 * s)
    put(cover(paraspinal - 1.0, 2 * edge), 0.5 * (muscle + signals[Tissue.FAT]))
    put(cover(paraspinal, edge), muscle + streaks * (signals[Tissue.FAT] - muscle))
    low = np.clip((150 - at.z) / 130, 0, 1)
    lumbar = 1 - _rise(at.z, patient.body("L1").frame.origin[2] + 20, 8.0)
    psoas = ellipse(
        at.side - (27 + 16 * low) * s, at.back + 22 * s, (5 + 15 * low) * s, (7 + 17 * low) * s
    )
    put(lumbar * cover(psoas - 1.0, edge), signals[Tissue.FAT])
    put(lumbar * cover(psoas, edge), signals[Tissue.MUSCLE])


def _vessels(
    put: Put, at: _Coordinates, patient: Patient, signals: Signals, edge: float, neck: float
) -> None:
    """The great vessels, with their bifurcation in front of L4, and the kidneys."""
    s = patient.scale
    bifurcation, l2 = patient.body("L4").frame.origin[2] - 18, patient.body("L2").frame.origin[2]
    above = np.clip((at.z - bifurcation) * 0.2, 0, 1) * (1 - _rise(at.z, neck - 40, 4.0))
    put(above * cover(ellipse(at.x - 9, at.back + 56 * s, 9, 9), edge), signals[Tissue.FLOW])
    put(
        above * cover(ellipse(at.x + 14, at.back + 54 * s, 12, 9), edge), 1.6 * signals[Tissue.FLOW]
    )
    below = np.clip(1 - (at.z - bifurcation) * 0.2, 0, 1) * _rise(at.z, bifurcation - 95, 10.0)
    for sign in (1, -1):
        branch = ellipse(at.x - sign * (14 + 0.5 * (bifurcation - at.z)), at.back + 54 * s, 7, 6)
        put(below * cover(branch, edge), signals[Tissue.FLOW])
    kidney = (
        np.square((at.side - 62) / 26)
        + np.square((at.back + 30) / 26)
        + np.square((at.z - l2 - 30) / 52)
    )
    put(cover((np.sqrt(kidney) - 1) * 26, edge), signals[Tissue.KIDNEY])


def _pelvis(put: Put, at: _Coordinates, patient: Patient, signals: Signals, edge: float) -> None:
    """Bladder, rectum, uterus or prostate, and pubic bone."""
    s = patient.scale
    fill = 0.6 + 0.6 * (patient.texture_seed % 97) / 96

    def ball(y: float, z: float, radii: tuple[float, float, float]) -> Array:
        a, b, c = (r * s for r in radii)
        far = (
            np.sqrt(
                np.square(at.x / a) + np.square((at.y - y * s) / b) + np.square((at.z - z * s) / c)
            )
            - 1
        )
        return np.asarray(far * min(a, b, c), np.float32)

    put(cover(ball(-12, -85, (14, 16, 44)), 3.0), signals[Tissue.BOWEL])
    put(
        cover(ball(-45, -98, (24, 20, 30)), edge),
        0.5 * (signals[Tissue.MUSCLE] + signals[Tissue.KIDNEY]),
    )
    put(cover(ball(-85, -100, (38 * fill, 28 * fill, 27 * fill)), edge), signals[Tissue.CSF])
    put(cover(ball(-122, -128, (28, 11, 20)), edge), signals[Tissue.CORTEX])
    put(cover(ball(-122, -128, (26, 9, 18)), edge), signals[Tissue.MARROW])


def _head(
    put: Put, x: Array, at: _Coordinates, lattice: Lattice, patient: Patient, signals: Signals
) -> None:
    """Scalp, skull and brain above the second cervical vertebra."""
    _, y, z = patient.body("C2").frame.origin
    far = (
        np.sqrt(
            np.square(x / 74) + np.square((at.y - y + 18) / 92) + np.square((at.z - z - 100) / 84)
        )
        - 1
    )
    shell = np.asarray(far * 74, np.float32)
    folds = _waves(lattice, patient.texture_seed + 4, 0.15, 0.5)
    put(cover(shell - 6, lattice.pixel), signals[Tissue.FAT])
    put(cover(shell, lattice.pixel), signals[Tissue.CORTEX])
    put(cover(shell + 6, lattice.pixel), signals[Tissue.CSF])
    put(cover(shell + 9, lattice.pixel), signals[Tissue.CORD] * (1 + 0.25 * folds))


def _rise(z: Array, at: Array | float, over: float) -> Array:
    """From 0 below a height to 1 above it, linearly within ``over`` mm on either side."""
    share: Array = np.clip(0.5 + (z - at) / (2 * over), 0, 1).astype(np.float32)
    return share


def enlarge(image: Array, lattice: Lattice, planes: int) -> Array:
    """A coarse image resampled to a finer lattice, every plane repeated ``planes`` times."""
    _, rows, columns = lattice.shape
    fine = np.empty(lattice.shape, np.float32)
    for i, plane in enumerate(image):
        fine[i * planes : (i + 1) * planes] = cv2.resize(
            plane, (columns, rows), interpolation=cv2.INTER_LINEAR
        )
    return fine


def texture(lattice: Lattice, seed: int) -> Array:
    """A smooth random field fixed to the patient, with mean 0 and standard deviation 1."""
    return _waves(lattice, seed, 0.1, 0.9)


def _waves(lattice: Lattice, seed: int, slow: float, fast: float) -> Array:
    """A sum of plane waves of ``slow`` to ``fast`` radians per mm.

    On a lattice each wave is the product of three one-dimensional arrays.
    """
    rng = np.random.default_rng(seed)
    image = np.zeros(lattice.shape, np.float32)
    for _ in range(_WAVES):
        direction = rng.standard_normal(3)
        direction *= rng.uniform(slow, fast) / np.linalg.norm(direction)
        start = lattice.origin @ direction + rng.uniform(0, 2 * np.pi)
        k, r, c = (
            np.exp(1j * (step @ direction) * np.arange(n))
            for step, n in zip(lattice.steps, lattice.shape, strict=True)
        )
        plane = (r[:, None] * c).astype(np.complex64)
        turn = (np.exp(1j * start) * k).astype(np.complex64)
        image += plane.real * turn.real[:, None, None] - plane.imag * turn.imag[:, None, None]
    return image * np.float32(np.sqrt(2 / _WAVES))


def _follow(z: Array, heights: Points, offsets: Points) -> Array:
    return np.asarray(np.interp(z, heights, offsets), np.float32)


def _back(y: Points) -> Points:
    """The outline of the back: the spine's curve, smoothed over about 12 cm."""
    reach = round(120 / (STEP * _EVERY))
    kernel = np.hanning(2 * reach + 1)
    padded = np.pad(y, reach, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")
