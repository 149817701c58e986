"""Labelling the discs together, on synthetic heat maps."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lumbar.spine.keypoint_input import DISCS, SAGITTAL
from lumbar.spine.label_discs import CELL_MM, SPACING_MM, best_sequence
from tests.stub_networks import seen_at

Heat = NDArray[np.float32]
LOWEST = DISCS.index("l5_s1")


def spine(
    left: float = 48.0, bottom: float = 84.0, size: float = 1.0, lean: float = 0.12
) -> NDArray[np.float64]:
    """(8, 2): x and y in cells of the discs, the lowest at ``bottom``."""
    up = np.concatenate([np.cumsum(np.array(SPACING_MM)[::-1])[::-1], [0.0]]) * size / CELL_MM
    return np.column_stack([left - lean * up, bottom - up])


def heat_of(
    places: NDArray[np.float64], shares: Mapping[int, Mapping[int, float]] | None = None
) -> Heat:
    """A blob of .95 at each disc's position, or shared among the positions of other discs."""
    blobs = seen_at([(x, y) for x, y in places], SAGITTAL, 1)[0]
    mixes = [(shares or {}).get(k, {k: 1.0}) for k in range(len(DISCS))]
    return np.stack(
        [sum(share * blobs[..., disc] for disc, share in mix.items()) for mix in mixes], axis=-1
    )


@settings(max_examples=50, deadline=None)
@given(
    left=st.floats(25, 75),
    bottom=st.floats(82, 90),
    size=st.floats(0.72, 1.1),
    lean=st.floats(-0.2, 0.3),
)
def test_a_clear_spine_is_located_correctly(
    left: float, bottom: float, size: float, lean: float
) -> None:
    places = spine(left, bottom, size, lean)
    sequence = best_sequence(heat_of(places))
    assert sequence is not None
    assert sequence.margin > 1
    visible = [k for k in range(len(DISCS)) if places[k, 1] > 3]
    assert set(visible) <= set(sequence.positions)
    for k in visible:
        assert np.linalg.norm(sequence.positions[k] - places[k]) < 0.5


def test_upper_maps_that_are_off_by_one_follow_the_lowest() -> None:
    places = spine()
    shifted = {k: {k + 1: 1.0} for k in range(LOWEST - 1)}
    sequence = best_sequence(heat_of(places, shifted))
    assert sequence is not None
    for k in range(1, len(DISCS)):
        assert np.linalg.norm(sequence.positions[k] - places[k]) < 1.5


def test_two_numberings_that_fit_equally_well_leave_little_margin() -> None:
    places = spine()
    clear = best_sequence(heat_of(places))
    ambiguous = best_sequence(
        heat_of(places, {k: {k: 0.5, k - 1: 0.5} for k in range(1, len(DISCS))})
    )
    assert clear is not None
    assert ambiguous is not None
    assert ambiguous.margin < 0.4 * clear.margin


def test_a_spine_cut_at_the_top_ends_there() -> None:
    places = spine(bottom=60.0)
    heat = heat_of(places)
    heat[..., :3] = 0  # not here
    sequence = best_sequence(heat)
    assert sequence is not None
    assert min(sequence.positions) == 3


@pytest.mark.parametrize(
    "heat", [np.zeros((96, 96, 8), np.float32), np.full((96, 96, 8), 1e-4, np.float32)]
)
def test_maps_without_a_peak_give_no_sequence(heat: Heat) -> None:
    assert best_sequence(heat) is None


def test_a_single_disc_gives_no_sequence() -> None:
    heat = np.zeros((96, 96, 8), np.float32)
    heat[..., LOWEST] = heat_of(spine())[..., LOWEST]
    assert best_sequence(heat) is None
