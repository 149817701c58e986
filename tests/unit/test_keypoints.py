"""The keypoint network's pictures keep their patient coordinates, however a slice is stored."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.spine.keypoint_input import (
    AXIAL,
    CELL_PIXELS,
    SAGITTAL,
    Framing,
    normalise_brightness,
    picture,
)
from lumbar.spine.slices import SliceHeader
from tests.factories.headers import SLICE

AXIAL_SLICE = replace(
    SLICE, orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), position=(-100.0, -100.0, 5.0)
)


@settings(max_examples=60, deadline=None)
@given(
    header=st.sampled_from([SLICE, AXIAL_SLICE]),
    spacing=st.tuples(st.floats(0.3, 1.5), st.floats(0.3, 1.5)),
    place=st.tuples(st.floats(0, 90), st.floats(0, 90)),
)
def test_cells_and_millimetres_agree(
    header: SliceHeader, spacing: tuple[float, float], place: tuple[float, float]
) -> None:
    header = replace(header, spacing=spacing)
    for framing in (SAGITTAL, AXIAL):
        view = picture(
            np.ones((header.rows, header.columns), np.float32), header, header.centre, framing
        )
        point = view.from_cell(np.array(place))
        assert abs(header.distance(point)) < 0.001
        assert np.allclose(view.to_cell(point), place, atol=1e-6)
        right = view.from_cell(np.array(place) + np.array([1.0, 0.0])) - point
        assert np.linalg.norm(right) == pytest.approx(CELL_PIXELS * framing.mm, abs=0.001)


@pytest.mark.parametrize("framing", [SAGITTAL, AXIAL])
def test_the_middle_of_the_picture_is_the_requested_point(framing: Framing) -> None:
    point = SLICE.to_patient(100.0, 120.0)
    view = picture(np.ones((320, 320), np.float32), SLICE, point, framing)
    middle = np.full(2, (framing.cells - 1) / 2)
    assert np.linalg.norm(view.from_cell(middle) - point) < 0.001


def test_a_slice_stored_in_any_way_gives_the_same_picture() -> None:
    image = cv2.GaussianBlur(
        np.random.default_rng(1).random((320, 320), dtype=np.float32), (0, 0), 3
    )
    expected = picture(image, SLICE, SLICE.centre, SAGITTAL)
    row, down = np.array(SLICE.orientation[:3]), np.array(SLICE.orientation[3:])
    corner = SLICE.to_patient(319, 0)
    mirrored = replace(SLICE, position=tuple(corner), orientation=(*-row, *down))
    transposed = replace(SLICE, orientation=(*down, *row))
    for header, stored in ((mirrored, image[:, ::-1]), (transposed, image.T)):
        view = picture(np.ascontiguousarray(stored), header, SLICE.centre, SAGITTAL)
        assert np.abs(view.pixels - expected.pixels).max() < 0.01
        assert np.allclose(
            view.from_cell(np.array([20, 30])), expected.from_cell(np.array([20, 30])), atol=1e-6
        )


@given(st.floats(0.01, 1000))
def test_the_scale_of_a_pictures_values_does_not_matter(factor: float) -> None:
    image = np.random.default_rng(2).random((50, 50), dtype=np.float32)
    assert np.allclose(
        normalise_brightness(image), normalise_brightness(image * np.float32(factor)), atol=1e-3
    )
    assert normalise_brightness(image).max() <= 1


def test_an_empty_picture_stays_empty() -> None:
    assert not normalise_brightness(np.zeros((5, 5), np.float32)).any()
