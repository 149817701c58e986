"""Labels the discs on heat maps together, from the sacrum upwards.

There is one map per disc, of the probability of its position. Taken individually, all maps may be
off by one disc; the typical spacing of a lumbar spine, and the lowest disc, which is detected most
reliably, prevent that.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.spine.keypoint_input import CELL_PIXELS, DISCS, SAGITTAL, Heat
from lumbar.spine.slices import Vector

CELL_MM = CELL_PIXELS * SAGITTAL.mm
# Spacing of neighbouring discs from T11/T12 down to S1/S2, mm along the canal, and its standard
# deviation.
SPACING_MM = (33.0, 34.0, 35.5, 35.5, 34.0, 29.5, 25.0)
SPACING_SD_MM = 6.0
MIN_SPACING_MM, MAX_SPACING_MM = 13.0, 58.0  # outside these, two discs are not neighbours
# Trial values of a spine's size relative to a typical one, and the standard deviation of its log.
SIZES, SIZE_SD = (0.74, 0.86, 1.0, 1.16, 1.34), 0.4
# The weight of each disc's own map; the lumbosacral border is detected most reliably.
MAP_WEIGHTS = (0.1, 0.1, 0.15, 0.2, 0.3, 0.6, 2.0, 0.8)
# The minimum distance between candidate positions, and their maximum number.
PEAK_DISTANCE_MM, MAX_PEAKS = 8.0, 40
ABSENCE_WEIGHT = 0.5  # of the map of a disc that the sequence does not include
FLOOR = 1e-4  # added to probabilities before the logarithm
PEAK_CELLS = 5  # width of the square of cells that belong to one peak
OTHER_NUMBERING_MM = 14.0  # distance of two L5/S1 beyond which the numberings differ
MIN_DISCS = 3  # discs in a sequence

_LOWEST = len(DISCS) - 2  # L5/S1

Path = dict[int, int]  # index into ``DISCS`` → index of the peak


@dataclass(frozen=True)
class DiscSequence:
    """Successive discs from the uppermost visible one to the lowest.

    ``positions`` are (x, y) in cells, by index into ``DISCS``. ``margin`` is the lead of ``score``
    over the best sequence with a different L5/S1.
    """

    positions: dict[int, Vector]
    score: float
    margin: float


def best_sequence(heat: Heat) -> DiscSequence | None:
    """The most probable sequence, or None if there is none of at least ``MIN_DISCS`` discs.

    ``heat``: (cells, cells, discs) probabilities; a map's sum is the probability that its disc is
    visible.
    """
    masses = np.stack(
        [
            cv2.blur(heat[..., k], (PEAK_CELLS, PEAK_CELLS), borderType=cv2.BORDER_CONSTANT)
            for k in range(len(DISCS))
        ]
    )
    masses = masses * PEAK_CELLS**2
    peaks = _peaks(masses.max(axis=0))
    if len(peaks) < MIN_DISCS:
        return None
    present = np.array(MAP_WEIGHTS)[:, None] * np.log(masses[:, peaks[:, 1], peaks[:, 0]] + FLOOR)
    absent = ABSENCE_WEIGHT * np.log(np.clip(1 - heat.sum(axis=(0, 1)), 0, 1) + FLOOR)
    paths = [
        (score - (np.log(size) / SIZE_SD) ** 2 / 2, path)
        for size in SIZES
        for score, path in _best_paths(present, absent, peaks, size)
    ]
    if not paths:
        return None
    score, path = max(paths, key=lambda scored: scored[0])
    lowest = peaks[path[_LOWEST]]
    rivals = [
        other_score
        for other_score, other in paths
        if np.linalg.norm(peaks[other[_LOWEST]] - lowest) * CELL_MM > OTHER_NUMBERING_MM
    ]
    positions = {k: _centre_of_mass(heat[..., k], peaks[peak]) for k, peak in path.items()}
    return DiscSequence(positions, score, score - max(rivals, default=-np.inf))


def _peaks(strength: Heat) -> NDArray[np.int64]:
    """(n, 2): the cells (x, y) of the local maxima, the strongest first."""
    width = 2 * round(PEAK_DISTANCE_MM / CELL_MM / 2) + 1
    maxima = (strength >= cv2.dilate(strength, np.ones((width, width), np.uint8))) & (
        strength > 0.003
    )
    rows, columns = np.nonzero(maxima)
    order = np.argsort(-strength[rows, columns], kind="stable")[:MAX_PEAKS]
    return np.column_stack([columns, rows])[order]


def _best_paths(
    present: NDArray[np.float64], absent: NDArray[np.float64], peaks: NDArray[np.int64], size: float
) -> list[tuple[float, Path]]:
    """For each possible peak of L5/S1, the best path upwards from it, with its score.

    The discs are spaced as in a spine of that ``size``. A path starts at S1/S2, or at L5/S1 where
    S1/S2 is not visible.
    """
    offsets = (peaks[None] - peaks[:, None]) * CELL_MM  # from the row's peak to the column's
    distance = np.hypot(offsets[..., 0], offsets[..., 1])
    upward = offsets[..., 1] < -0.35 * distance
    *steps, sacral_step = (_step_scores(distance, upward, size * mm) for mm in SPACING_MM)
    without_s1s2 = np.full((1, len(peaks)), absent[-1])
    starts = np.concatenate([present[-1][:, None] + sacral_step, without_s1s2])
    # By peak of L5/S1: the best peak of S1/S2, or len(peaks) for none.
    s1s2 = starts.argmax(axis=0)
    paths: list[tuple[float, Path]] = []
    for l5s1 in range(len(peaks)):
        score = float(starts[s1s2[l5s1], l5s1] + present[_LOWEST, l5s1])
        if not np.isfinite(score):
            continue
        score, path = _best_path_from(l5s1, score, present, absent, steps)
        if s1s2[l5s1] != len(peaks):
            path[_LOWEST + 1] = int(s1s2[l5s1])
        if np.isfinite(score):
            paths.append((score, path))
    return paths


def _best_path_from(
    l5s1: int,
    start_score: float,
    present: NDArray[np.float64],
    absent: NDArray[np.float64],
    steps: list[NDArray[np.float64]],
) -> tuple[float, Path]:
    """The best path from a peak of L5/S1 upwards, by dynamic programming (Viterbi)."""
    scores = np.full(present.shape[1], -np.inf)  # by peak, of the best path that ends there
    scores[l5s1] = start_score
    predecessors: list[NDArray[np.int64]] = []
    best: tuple[float, Path] = (-np.inf, {})
    # The path ends below disc k, or continues to it.
    for k in range(_LOWEST - 1, -2, -1):
        if _LOWEST - k >= MIN_DISCS:
            top = int(scores.argmax())
            total = float(scores[top] + absent[: k + 1].sum())
            if total > best[0]:
                best = total, _trace(predecessors, top, l5s1)
        if k < 0:
            break
        candidates = scores[:, None] + steps[k]
        predecessors.append(candidates.argmax(axis=0))
        scores = candidates.max(axis=0) + present[k]
    return best


def _step_scores(
    distance: NDArray[np.float64], upward: NDArray[np.bool_], spacing: float
) -> NDArray[np.float64]:
    """Scores of steps from one disc (rows) up to the next (columns), typically ``spacing`` mm."""
    deviation = (distance - spacing) / SPACING_SD_MM
    possible = upward & (distance > MIN_SPACING_MM) & (distance < MAX_SPACING_MM)
    return np.asarray(np.where(possible, -np.square(deviation) / 4, -np.inf))


def _trace(predecessors: list[NDArray[np.int64]], top: int, l5s1: int) -> Path:
    """The path from the uppermost disc's peak back down to L5/S1."""
    path = {}
    peak = top
    discs = range(_LOWEST - len(predecessors), _LOWEST)
    for k, previous in zip(discs, reversed(predecessors), strict=True):
        path[k] = peak
        peak = int(previous[peak])
    path[_LOWEST] = l5s1
    return path


def _centre_of_mass(heat: Heat, peak: NDArray[np.int64]) -> Vector:
    """The centre of mass of a map around a peak: (x, y) in cells."""
    reach = PEAK_CELLS // 2
    rows = np.arange(max(peak[1] - reach, 0), min(peak[1] + reach + 1, len(heat)))
    columns = np.arange(max(peak[0] - reach, 0), min(peak[0] + reach + 1, len(heat)))
    part = heat[np.ix_(rows, columns)] + 1e-9
    return np.asarray(
        [(part.sum(axis=0) * columns).sum(), (part.sum(axis=1) * rows).sum()] / part.sum()
    )
