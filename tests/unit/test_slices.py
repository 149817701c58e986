"""Pixel ↔ patient geometry of one slice."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.spine.anatomy import Plane
from lumbar.spine.slices import SliceHeader
from tests.factories.headers import SLICE
from tests.study_factory import Storage, kept_as

AXIAL = replace(
    SLICE,
    columns=256,
    position=(-80.0, -100.0, 30.0),
    orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    spacing=(0.5, 0.625),
)

finite = st.floats(-500, 500)
spacings = st.floats(0.2, 2.5)


@st.composite
def headers(draw: st.DrawFn) -> SliceHeader:
    """Any orientation (two columns of a random rotation), position and spacing."""
    quaternion = np.array([draw(st.floats(-1, 1)) for _ in range(4)])
    length = float(np.linalg.norm(quaternion))
    w, x, y, z = quaternion / length if length > 0.1 else np.array([1.0, 0.0, 0.0, 0.0])
    row = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    column = (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))
    return replace(
        AXIAL,
        orientation=(*row, *column),
        position=(draw(finite), draw(finite), draw(finite)),
        spacing=(draw(spacings), draw(spacings)),
    )


@given(headers(), st.floats(-50, 700), st.floats(-50, 700))
def test_a_pixel_maps_to_the_patient_and_back(
    header: SliceHeader, column: float, row: float
) -> None:
    point = header.to_patient(column, row)
    back = header.to_pixel(point)
    assert math.dist(header.to_patient(*back), point) <= 0.01
    assert math.dist(back, (column, row)) <= 0.01
    assert abs(header.distance(point)) <= 0.01


@given(headers(), finite, finite, finite)
def test_a_point_projects_to_the_slice_along_its_normal(
    header: SliceHeader, x: float, y: float, z: float
) -> None:
    point = np.array([x, y, z])
    foot = header.to_patient(*header.to_pixel(point))
    np.testing.assert_allclose(foot + header.normal * header.distance(point), point, atol=0.01)


@given(headers(), st.tuples(*[st.booleans()] * 3), st.tuples(finite, finite, finite))
def test_a_point_projects_to_one_position_however_the_slice_is_stored(
    header: SliceHeader, storage: Storage, point: tuple[float, float, float]
) -> None:
    other = kept_as(header, storage)
    other_pixel, pixel = other.to_pixel(np.array(point)), header.to_pixel(np.array(point))
    assert math.dist(other.to_patient(*other_pixel), header.to_patient(*pixel)) <= 0.01
    assert abs(abs(other.distance(np.array(point))) - abs(header.distance(np.array(point)))) <= 0.01
    assert math.dist(other.centre, header.centre) <= 0.01
    assert other.plane == header.plane or max(abs(header.normal)) < 0.71


@given(headers())
def test_the_centre_is_equally_far_from_all_four_corners(header: SliceHeader) -> None:
    corners = [
        header.to_patient(c, r) for c in (0, header.columns - 1) for r in (0, header.rows - 1)
    ]
    assert (
        max(math.dist(header.centre, c) for c in corners)
        <= min(math.dist(header.centre, c) for c in corners) + 0.01
    )


@given(headers())
def test_row_column_and_normal_are_a_right_handed_frame(header: SliceHeader) -> None:
    frame = np.stack([header.along_row, header.down_column, header.normal])
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(frame) > 0


def test_columns_count_along_the_row_and_rows_down_the_column() -> None:
    np.testing.assert_allclose(AXIAL.to_patient(8, 0), (-75.0, -100.0, 30.0))
    np.testing.assert_allclose(AXIAL.to_patient(0, 8), (-80.0, -96.0, 30.0))
    assert AXIAL.distance(np.array([0.0, 0.0, 34.0])) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        ((0.0, 1.0, 0.0, 0.0, 0.0, -1.0), Plane.SAGITTAL),
        ((1.0, 0.0, 0.0, 0.0, 0.0, -1.0), Plane.CORONAL),
        ((1.0, 0.0, 0.0, 0.0, 0.77, -0.64), Plane.AXIAL),
    ],
)
def test_the_plane_is_the_axis_closest_to_the_normal(
    orientation: tuple[float, ...], plane: Plane
) -> None:
    assert replace(AXIAL, orientation=orientation).plane == plane


def test_the_image_ends_half_a_pixel_beyond_its_outermost_centres() -> None:
    assert AXIAL.contains(-0.5, -0.5)
    assert AXIAL.contains(255.4, 319.4)
    assert not AXIAL.contains(255.5, 0)
    assert not AXIAL.contains(0, 319.5)
    assert not AXIAL.contains(-0.6, 0)
