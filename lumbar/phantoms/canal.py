"""The spinal canal's contents along its curve: fat, flavum, sac, cord, roots, lateral recesses."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar.phantoms.curve import STEP
from lumbar.phantoms.patient import Patient
from lumbar.phantoms.shapes import WORLD, Array, Lattice, Signals, Tissue, blend, cover, ellipse
from lumbar.phantoms.truth import measure
from lumbar.spine.anatomy import Condition, Level, Side

# Maximum extent of the canal from the centre of the sac, mm.
_REACH = 16.0
_ROOTLETS = 14


@dataclass(frozen=True)
class _Profile:
    """Dimensions in mm at every point of the canal's curve; depths and widths are halves."""

    # Of the sac, front to back, and side to side.
    depth: Array
    width: Array
    # Amount cut off the sac's anterior corners.
    corners: Mapping[Side, Array]
    # Of the lateral recesses, front to back.
    pockets: Mapping[Side, Array]
    # 1 at a lateral recess, 0 elsewhere.
    recess: Array
    # 1 at a disc, 0 elsewhere.
    disc: Array
    # Share of the epidural fat replaced by annulus and ligamentum flavum.
    stenosis: Array
    # Share of the CSF between the roots that is lost.
    crowding: Array
    # Thickness of the ligamentum flavum.
    flavum: Array
    # Epidural fat behind the sac.
    fat: Array
    # Radius of the cord, 0 below the conus.
    cord: Array


def paint_canal(image: Array, lattice: Lattice, patient: Patient, signals: Signals) -> None:
    """Paints the canal's contents onto an image of the lattice's points, in place."""
    points, margin = patient.canal.points, np.array([_REACH, _REACH, 0])
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    box = lattice.box(WORLD, (low[0], low[1], low[2]), (high[0], high[1], high[2]))
    if box is None:
        return
    part = image[box]
    x, y, z = (np.broadcast_to(a, part.shape) for a in lattice.coordinates(box, WORLD))
    along, behind = np.empty(part.shape, np.float32), np.empty(part.shape, np.float32)
    for i in range(len(part)):
        along[i], behind[i] = patient.canal.coordinates(
            np.ascontiguousarray(y[i]), np.ascontiguousarray(z[i])
        )
    near = (np.abs(behind) < _REACH) & (along > 0) & (along < STEP * (len(points) - 1))
    index = (along[near] / STEP).astype(np.int32)
    lateral = x[near] - points[:, 0].astype(np.float32)[index]
    values = part[near]
    _paint(values, lateral, behind[near], index, _profile(patient), patient, signals, lattice.pixel)
    part[near] = values


def _profile(patient: Patient) -> _Profile:
    canal, scale = patient.canal, patient.scale
    position = np.arange(len(canal.points)) * STEP
    zero = np.zeros(len(position))
    marks = {level: canal.levels[level] * STEP for level in Level}
    s1, l1 = marks[Level.L5_S1], marks[Level.L1_L2]
    # The sac is widest in the upper lumbar spine and ends behind S1–S2.
    knots = [0, s1 - 52, s1 - 45, s1 - 20, s1, l1, position[-1]]
    depth = np.interp(position, knots, [0.0, 0.0, 2.6, 5.2, 7.3, 7.7, 7.0]) * scale
    width = 1.2 * depth
    disc, recess, stenosis, crowding, flavum = zero, zero, zero, zero, zero + 1.2
    corners = dict.fromkeys(Side, zero)
    pockets = dict.fromkeys(Side, zero + 2.6 * scale)
    for level, mark in marks.items():
        bump = np.exp(-0.5 * ((position - mark) / 5.0) ** 2)
        disc = np.maximum(disc, np.exp(-0.5 * ((position - mark) / 8.0) ** 2))
        below = np.exp(-0.5 * ((position - mark + 3) / 8.0) ** 4)
        recess = np.maximum(recess, below)
        burden = patient.burden(Condition.SPINAL_CANAL_STENOSIS, level)
        # Cross-section: about 180 mm² normal; 112 and 74 mm² separate the grades; down to 28 mm².
        index = canal.levels[level]
        area = measure(burden, 180.0, 112.0, 74.0, 28.0)
        narrow = np.sqrt(min(1.0, area / float(np.pi * depth[index] * width[index])))
        depth = depth * (1 - bump * (1 - narrow**1.1))
        width = width * (1 - bump * (1 - narrow**0.9))
        stenosis = stenosis + bump * measure(burden, 0.0, 0.45, 0.8, 1.0)
        crowding = crowding + bump * measure(burden, 0.0, 0.1, 0.4, 0.9)
        flavum = flavum + bump * measure(burden, 1.2, 2.2, 3.4, 4.6)
        for side in Side:
            tight = patient.burden(
                next(c for c in Condition if c.side is side and "subarticular" in c), level
            )
            corners[side] = corners[side] + below * measure(tight, 0.0, 0.4, 1.1, 2.0)
            pockets[side] = pockets[side] - below * (
                2.6 * scale - measure(tight, 2.6, 1.7, 1.0, 0.1)
            )
    above = canal.points[:, 2] - patient.conus
    cord = np.where(above > 0, np.minimum(4.2, 0.8 + 0.17 * np.clip(above, 0, None)), 0) * scale
    fat = patient.epidural_fat * (0.3 + 0.7 * disc)
    corners = {
        side: np.minimum(cut, 0.25 * depth).astype(np.float32) for side, cut in corners.items()
    }
    pockets = {side: pocket.astype(np.float32) for side, pocket in pockets.items()}
    rest = (a.astype(np.float32) for a in (recess, disc, stenosis, crowding, flavum, fat, cord))
    return _Profile(depth.astype(np.float32), width.astype(np.float32), corners, pockets, *rest)


def _paint(
    values: Array,
    u: Array,
    v: Array,
    index: NDArray[np.int32],
    profile: _Profile,
    patient: Patient,
    signals: Signals,
    pixel: float,
) -> None:
    """Paints the canal onto points u mm to the left of the sac's centre and v mm behind it."""
    scale = patient.scale
    depth, width, disc = profile.depth[index], profile.width[index], profile.disc[index]
    fat, ligament, annulus, root = (
        signals[t] for t in (Tissue.FAT, Tissue.LIGAMENT, Tissue.ANNULUS, Tissue.ROOT)
    )
    left = u > 0

    # The bony canal, filled with fat; annulus in front and flavum behind narrow the sac.
    rear = 7.9 * scale + profile.fat[index]
    room = cover(ellipse(u, v, 11.5 * scale, np.where(v > 0, rear, np.float32(8.3 * scale))), pixel)
    filled = np.where(v > 0, np.float32(ligament), np.float32(annulus))
    blend(values, room, fat + np.clip(profile.stenosis[index], 0, 1) * (filled - fat))
    # Ligamentum flavum: a V, open in the midline, in front of laminae and facet joints.
    slant = (v - 8.6 * scale + 0.72 * np.abs(u)) * 0.81
    half = profile.flavum[index] / 2
    blend(
        values,
        room
        * disc
        * np.clip(np.abs(u) / 3, 0, 1)
        * cover(np.abs(slant + 0.5 - half) - half, pixel),
        ligament,
    )

    # Lateral recesses: fat around the exiting root, between disc and facet joint.
    present = profile.recess[index]
    pocket = np.where(left, profile.pockets[Side.LEFT][index], profile.pockets[Side.RIGHT][index])
    a, b = np.abs(u) - 9.5 * scale, v + 4.5 * scale
    blend(values, present * cover(ellipse(a, b, 4.2, 3.2), pixel), ligament)
    space = (
        present * np.clip(pocket, 0, 1) * cover(ellipse(a, b, 3.6, np.maximum(pocket, 0.15)), pixel)
    )
    blend(values, space, 0.5 * (fat + signals[Tissue.CSF]))
    blend(
        values,
        present * cover(ellipse(a - 0.5, b, 1.6, np.minimum(1.5, pocket + 0.2)), pixel),
        root,
    )

    # The sac, its anterior corners cut off at a narrow recess; a dark line of dura around it.
    cut = np.where(left, profile.corners[Side.LEFT][index], profile.corners[Side.RIGHT][index])
    corner = (np.abs(u) - v) * 0.707 - (0.707 * np.hypot(width, depth) - cut)
    sac = np.where(
        depth > 0.8, np.maximum(ellipse(u, v, width + 0.01, depth + 0.01), corner), np.float32(9)
    )
    csf = signals[Tissue.CSF] * _flowing(v / (depth + 1), index, len(profile.depth), patient)
    csf = csf + np.clip(profile.crowding[index], 0, 0.95) * (root - csf)
    blend(values, cover(sac - 0.4, pixel), ligament)
    inside = cover(sac, pixel)
    blend(values, inside, csf)
    seen = np.flatnonzero(inside)
    strands = np.zeros_like(inside)
    strands[seen] = _rootlets(u[seen], v[seen], index[seen], profile, patient, pixel)
    blend(values, inside * strands, root)
    cord = profile.cord[index] + np.float32(0.01)
    blend(
        values, inside * cover(ellipse(u, v - 0.5, cord * 1.15, cord), pixel), signals[Tissue.CORD]
    )


def _flowing(behind: Array, index: NDArray[np.int32], length: int, patient: Patient) -> Array:
    """CSF flow voids as a factor on its signal, 0–1: in some patients, mainly in the posterior sac.

    ``behind`` is -1 at the sac's anterior edge, 1 at its posterior edge.
    """
    rng = np.random.default_rng((patient.texture_seed, 5))
    strength = rng.uniform(0.1, 0.6) if rng.random() < 0.4 else 0.0
    position = STEP * np.arange(length)
    clouds = np.clip(
        np.sin(position / rng.uniform(4, 15) + rng.uniform(0, 6)) + rng.uniform(-0.5, 0.5), 0, 1
    )
    factor: Array = 1 - strength * clouds.astype(np.float32)[index] * np.clip(
        0.6 + 0.4 * behind, 0, 1
    )
    return factor


def _rootlets(
    u: Array, v: Array, index: NDArray[np.int32], profile: _Profile, patient: Patient, pixel: float
) -> Array:
    """The cauda equina: strands of fixed thickness at positions relative to the sac's size."""
    rng = np.random.default_rng(patient.texture_seed)
    position = np.linspace(-1, 1, len(profile.depth))
    share = np.zeros_like(u)
    depth, width = profile.depth[index], profile.width[index]
    for _ in range(_ROOTLETS):
        angle, radius = rng.uniform(0.0, np.pi), rng.uniform(0.35, 0.85)
        drift = 0.1 * np.sin(rng.uniform(3, 9) * position + rng.uniform(0, 6))
        lateral = (radius * np.cos(angle) + drift).astype(np.float32)[index]
        behind = np.float32(radius * (0.85 * np.sin(angle) + 0.05))
        far = np.hypot(u - lateral * width, v - behind * depth) - np.float32(0.65)
        np.maximum(share, cover(far, max(pixel, 0.8)), out=share)
    return share * np.float32(0.85)
