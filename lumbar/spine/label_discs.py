"""From heat maps to a row of discs: the levels are named together, from the sacrum upwards.

One map for each disc says where it may be. IngestResult one by one they may all be off by one; a lumbar spine's spacing and
the lowest disc, which is the surest, keep them together.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.spine.keypoint_input import CELL, DISCS, SAGITTAL, Heat
from lumbar.spine.slices import Vector

CELL_MM = CELL * SAGITTAL.mm
# Between neighbours from T11/T12 down to S1/S2, mm along the canal; how far it varies; what is no neighbour at all.
SPACING = (33.0, 34.0, 35.5, 35.5, 34.0, 29.5, 25.0)
SPACING_SD, NEAREST, FARTHEST = 6.0, 13.0, 58.0
SIZES, SIZE_SD = (0.74, 0.86, 1.0, 1.16, 1.34), 0.4  # of a patient's spine over the usual one's
# How much each disc's own map counts: the border to the sacrum is told best.
WEIGHTS = (0.1, 0.1, 0.15, 0.2, 0.3, 0.6, 2.0, 0.8)
APART_MM, MOST = 8.0, 40  # of the places that may be a disc
LEFT_OUT = 0.5  # how much it counts that a map sees a disc where the row has none
FLOOR = 1e-4
BLOB = 5  # cells: what belongs to one place
ANOTHER_MM = 14.0  # from a disc's place to where another numbering would have it
FEWEST = 3  # discs in a row


@dataclass(frozen=True)
class Row:
    """The discs from the uppermost seen to the lowest; ``places`` are (x, y) in cells, by index into ``DISCS``.

    ``margin``: by how much the score is ahead of the best that puts the lowest lumbar disc elsewhere.
    """

    places: dict[int, Vector]
    score: float
    margin: float


def best_row(heat: Heat) -> Row | None:
    """The likeliest row in (cells, cells, discs) of probabilities, what a map lacks to 1 being "not here".

    None where no ``FEWEST`` discs follow each other.
    """
    blobs = np.stack(
        [
            cv2.blur(heat[..., k], (BLOB, BLOB), borderType=cv2.BORDER_CONSTANT)
            for k in range(len(DISCS))
        ]
    )
    blobs = blobs * BLOB**2
    at = _places(blobs.max(axis=0))
    if len(at) < FEWEST:
        return None
    own = np.array(WEIGHTS)[:, None] * np.log(blobs[:, at[:, 1], at[:, 0]] + FLOOR)
    absent = LEFT_OUT * np.log(np.clip(1 - heat.sum(axis=(0, 1)), 0, 1) + FLOOR)
    ends = [
        (score - (np.log(size) / SIZE_SD) ** 2 / 2, path)
        for size in SIZES
        for score, path in _ends(own, absent, at, size)
    ]
    if not ends:
        return None
    score, path = max(ends, key=lambda end: end[0])
    lowest = at[path[_LOWEST]]
    rivals = [s for s, p in ends if np.linalg.norm(at[p[_LOWEST]] - lowest) * CELL_MM > ANOTHER_MM]
    places = {k: _centre(heat[..., k], at[node]) for k, node in path.items()}
    return Row(places, score, score - max(rivals, default=-np.inf))


_LOWEST = len(DISCS) - 2  # L5/S1


def _places(strength: Heat) -> NDArray[np.int64]:
    """(n, 2): the cells (x, y) that stand out, the strongest first."""
    reach = 2 * round(APART_MM / CELL_MM / 2) + 1
    peaks = (strength >= cv2.dilate(strength, np.ones((reach, reach), np.uint8))) & (
        strength > 0.003
    )
    rows, columns = np.nonzero(peaks)
    order = np.argsort(-strength[rows, columns], kind="stable")[:MOST]
    return np.column_stack([columns, rows])[order]


def _ends(
    own: NDArray[np.float64], absent: NDArray[np.float64], at: NDArray[np.int64], size: float
) -> list[tuple[float, dict[int, int]]]:
    """For every place of L5/S1 and every place where the row may end above, the best row between them, its discs apart
    as in a spine of that ``size``.

    The row begins at S1/S2, or at L5/S1 where the former is not in view.
    """
    apart = (at[None] - at[:, None]) * CELL_MM  # from row to column
    distance = np.hypot(apart[..., 0], apart[..., 1])
    upward = apart[..., 1] < -0.35 * distance
    found: list[tuple[float, dict[int, int]]] = []
    step = _step(distance, upward, size * SPACING[_LOWEST])
    begun = np.concatenate([own[-1][:, None] + step, np.full((1, len(at)), absent[-1])])
    first = begun.argmax(axis=0)
    for start in range(len(at)):
        base = float(begun[first[start], start] + own[_LOWEST, start])
        if not np.isfinite(base):
            continue
        score = np.full(len(at), -np.inf)
        score[start] = base
        below: list[NDArray[np.int64]] = []
        best: tuple[float, dict[int, int]] = (-np.inf, {})
        for k in range(_LOWEST - 1, -2, -1):
            if _LOWEST - k >= FEWEST:
                top = int(score.argmax())
                total = float(score[top] + absent[: k + 1].sum())
                if total > best[0]:
                    best = total, _trace(below, top, start, int(first[start]), len(at))
            if k < 0:
                break
            move = score[:, None] + _step(distance, upward, size * SPACING[k])
            below.append(move.argmax(axis=0))
            score = move.max(axis=0) + own[k]
        if np.isfinite(best[0]):
            found.append(best)
    return found


def _step(
    distance: NDArray[np.float64], upward: NDArray[np.bool_], spacing: float
) -> NDArray[np.float64]:
    """The score of going from a disc's place (rows) up to the next one's, usually ``spacing`` mm away."""
    off = (distance - spacing) / SPACING_SD
    possible = upward & (distance > NEAREST) & (distance < FARTHEST)
    return np.asarray(np.where(possible, -np.square(off) / 4, -np.inf))


def _trace(
    below: list[NDArray[np.int64]], top: int, start: int, first: int, none: int
) -> dict[int, int]:
    path = {}
    node = top
    for k, back in zip(range(_LOWEST - len(below), _LOWEST), reversed(below), strict=True):
        path[k] = node
        node = int(back[node])
    path[_LOWEST] = start
    if first != none:
        path[_LOWEST + 1] = first
    return path


def _centre(heat: Heat, at: NDArray[np.int64]) -> Vector:
    """The map's centre of mass around a place, in cells."""
    reach = BLOB // 2
    rows = np.arange(max(at[1] - reach, 0), min(at[1] + reach + 1, len(heat)))
    columns = np.arange(max(at[0] - reach, 0), min(at[0] + reach + 1, len(heat)))
    part = heat[np.ix_(rows, columns)] + 1e-9
    return np.asarray(
        [(part.sum(axis=0) * columns).sum(), (part.sum(axis=1) * rows).sum()] / part.sum()
    )
