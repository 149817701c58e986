"""What lies around the spine: skin and fat, muscles, great vessels, kidneys, the abdomen."""

import cv2
import numpy as np

from lumbar.phantoms.curve import STEP, Points
from lumbar.phantoms.patient import Patient
from lumbar.phantoms.shapes import WORLD, Array, Lattice, Signals, Tissue, blend, cover, ellipse

_WAVES = 14
_EVERY = 4  # of the curve's points is enough


def surroundings(lattice: Lattice, patient: Patient, signals: Signals) -> Array:
    """An image of the lattice's points without the spine, planes × rows × columns."""
    x, y, z = lattice.coordinates(lattice.everywhere, WORLD)
    path = patient.canal.points[::_EVERY]
    x = x - _follow(z, path[:, 2], path[:, 0])
    y = y - _follow(z, path[:, 2], _back(path[:, 1]))
    x, y, z = np.broadcast_arrays(x, y, z)
    side, s = np.abs(x), patient.scale
    edge = lattice.pixel
    muscle = signals[Tissue.MUSCLE] + patient.fatty_muscle * (signals[Tissue.FAT] - signals[Tissue.MUSCLE])
    image = np.zeros(lattice.shape, np.float32)

    def put(share: Array, value: float | Array) -> None:
        blend(image, share, value)

    back = 44 * s + 8 + patient.subcutaneous
    trunk = ellipse(x, y - back + 115, 168, 115)
    put(cover(trunk, edge), signals[Tissue.FAT])
    wall = ellipse(x, y - 44 * s + 105, 148, 105)
    put(cover(wall, edge), muscle)
    inner = ellipse(x, y + 75, 132, 78)
    put(cover(inner, 2 * edge), signals[Tissue.FAT])
    bowel = _waves(lattice, patient.texture_seed + 1, 0.05, 0.14)
    put(cover(inner + 16, 4.0) * np.clip(bowel * 1.5 + 0.4, 0, 1), signals[Tissue.BOWEL])
    # Fat between the muscles behind the spinous processes and around the psoas.
    put(cover(ellipse(x, y - 30 * s, 5.0 + 4 * patient.fatty_muscle, 30 * s), 3.0), signals[Tissue.FAT] * 0.75)
    streaks = np.clip(_waves(lattice, patient.texture_seed + 2, 0.2, 0.6), 0, 1) * (0.25 + 0.6 * patient.fatty_muscle)
    paraspinal = ellipse(side - 26 * s, y - 26 * s, 24.5 * s, 21 * s)
    put(cover(paraspinal - 1.0, 2 * edge), 0.5 * (muscle + signals[Tissue.FAT]))
    put(cover(paraspinal, edge), muscle + streaks * (signals[Tissue.FAT] - muscle))
    low = np.clip((150 - z) / 130, 0, 1)
    psoas = ellipse(side - (27 + 16 * low) * s, y + 22 * s, (5 + 15 * low) * s, (7 + 17 * low) * s)
    put(cover(psoas - 1.0, edge), signals[Tissue.FAT])
    put(cover(psoas, edge), signals[Tissue.MUSCLE])
    above = np.clip((z - 30) * 0.2, 0, 1)  # the great vessels part in front of L4
    put(above * cover(ellipse(x - 9, y + 56 * s, 9, 9), edge), signals[Tissue.FLOW])
    put(above * cover(ellipse(x + 14, y + 54 * s, 12, 9), edge), 1.6 * signals[Tissue.FLOW])
    for sign in (1, -1):
        put(
            (1 - above) * cover(ellipse(x - sign * (14 + 0.5 * (30 - z)), y + 54 * s, 7, 6), edge),
            signals[Tissue.FLOW],
        )
    kidney = np.sqrt(np.square((side - 62) / 26) + np.square((y + 30) / 26) + np.square((z - 150) / 52)) - 1
    put(cover(kidney * 26, edge), signals[Tissue.KIDNEY])
    return image


def enlarge(image: Array, lattice: Lattice, planes: int) -> Array:
    """A coarse image at a finer lattice's rows and columns, every plane repeated ``planes`` times."""
    _, rows, columns = lattice.shape
    fine = np.empty(lattice.shape, np.float32)
    for i, plane in enumerate(image):
        fine[i * planes : (i + 1) * planes] = cv2.resize(plane, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return fine


def texture(lattice: Lattice, seed: int) -> Array:
    """A smooth random field fixed to the patient, of mean 0 and standard deviation 1."""
    return _waves(lattice, seed, 0.1, 0.9)


def _waves(lattice: Lattice, seed: int, slow: float, fast: float) -> Array:
    """A sum of plane waves of ``slow`` to ``fast`` radians a mm; on a lattice each is a product of three rows."""
    rng = np.random.default_rng(seed)
    image = np.zeros(lattice.shape, np.float32)
    for _ in range(_WAVES):
        direction = rng.standard_normal(3)
        direction *= rng.uniform(slow, fast) / np.linalg.norm(direction)
        start = lattice.origin @ direction + rng.uniform(0, 2 * np.pi)
        k, r, c = (
            np.exp(1j * (step @ direction) * np.arange(n)) for step, n in zip(lattice.steps, lattice.shape, strict=True)
        )
        plane = (r[:, None] * c).astype(np.complex64)
        turn = (np.exp(1j * start) * k).astype(np.complex64)
        image += plane.real * turn.real[:, None, None] - plane.imag * turn.imag[:, None, None]
    return image * np.float32(np.sqrt(2 / _WAVES))


def _follow(z: Array, heights: Points, offsets: Points) -> Array:
    return np.asarray(np.interp(z, heights, offsets), np.float32)


def _back(y: Points) -> Points:
    """The outline of the back: the spine's curve, smoothed over some 12 cm."""
    reach = round(120 / (STEP * _EVERY))
    kernel = np.hanning(2 * reach + 1)
    padded = np.pad(y, reach, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")
