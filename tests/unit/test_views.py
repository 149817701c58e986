"""Crops of candidates: an image that shows nothing is not graded."""

import numpy as np
import pytest

from lumbar.spine.anatomy import ALL_FINDINGS
from lumbar.spine.candidates import Candidate
from tests.factories.headers import SLICE
from worker.views import BLANK, cut_views

CANDIDATE = Candidate(ALL_FINDINGS[0], SLICE, SLICE.columns / 2, SLICE.rows / 2)


class Slices:
    """Every slice has the same pixels."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels.astype(np.float32)

    def read(self, header: object) -> np.ndarray:
        return self._pixels


def cut(pixels: np.ndarray) -> tuple[int, dict[object, str]]:
    views, unreadable = cut_views([CANDIDATE], Slices(pixels))  # type: ignore[arg-type]
    return len(views), dict(unreadable)


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_a_blank_image_has_no_view_and_says_so(value: float) -> None:
    blank = np.full((SLICE.rows, SLICE.columns), value)
    assert cut(blank) == (0, {CANDIDATE.key: BLANK})


def test_an_image_with_contrast_has_a_view() -> None:
    pixels = np.random.default_rng(1).uniform(1, 100, (SLICE.rows, SLICE.columns))
    assert cut(pixels) == (1, {})
