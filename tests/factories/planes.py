"""Hypothesis strategies for slices in any plane."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from lumbar.spine.slices import SliceHeader, Vector
from tests.factories.headers import SLICE

USUAL = (
    ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
)
somewhere = st.floats(-500, 500)


@st.composite
def oblique(draw: st.DrawFn, most: float = 20.0) -> SliceHeader:
    """A plane in its usual orientation, turned by at most so many degrees about each axis."""
    turn = np.eye(3)
    for axis in range(3):
        turn = _about(axis, np.radians(draw(st.floats(-most, most)))) @ turn
    row, column = (turn @ np.array(v) for v in draw(st.sampled_from(USUAL)))
    position = draw(somewhere), draw(somewhere), draw(somewhere)
    return replace(SLICE, orientation=(*row, *column), position=position)


def _about(axis: int, angle: float) -> Vector:
    turn = np.eye(3)
    first_axis, second_axis = (axis + 1) % 3, (axis + 2) % 3
    turn[first_axis, first_axis] = turn[second_axis, second_axis] = np.cos(angle)
    turn[first_axis, second_axis], turn[second_axis, first_axis] = -np.sin(angle), np.sin(angle)
    return turn
