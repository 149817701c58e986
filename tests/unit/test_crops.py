"""Crops: right position, right size, right way up, 0 to 1."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lumbar.spine.anatomy import Plane, Role
from lumbar.spine.crops import CROP_MM, SIDE, crop, crop_to_image, normalised
from lumbar.spine.slices import SliceHeader, Vector
from tests.factories.headers import SLICE
from tests.factories.planes import oblique
from tests.study_factory import Storage, kept_as, stored

Image = NDArray[np.float32]

HEADER = replace(SLICE, rows=200, columns=240, position=(0.0, -100.0, 100.0), spacing=(1.0, 0.8))
STANDARD = {
    Plane.SAGITTAL: ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    Plane.CORONAL: ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    Plane.AXIAL: ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
}
storages = st.tuples(st.booleans(), st.booleans(), st.booleans())


def hung(plane: Plane, tilt: float = 0.0) -> SliceHeader:
    """A header in the plane's usual hanging, tilted by an angle in degrees about its rows."""
    row, column = (np.array(v) for v in STANDARD[plane])
    turn = np.radians(tilt)
    down = column * np.cos(turn) + np.cross(row, column) * np.sin(turn)
    return replace(HEADER, orientation=(*row, *down))


def bright_at(header: SliceHeader, column: float, row: float, sigma_mm: float = 2.0) -> Image:
    """A round spot in mm on a faint ground."""
    columns, rows = np.meshgrid(np.arange(header.columns), np.arange(header.rows))
    across = (columns - column) * header.spacing[1]
    down = (rows - row) * header.spacing[0]
    return (1 + 100 * np.exp(-(across**2 + down**2) / (2 * sigma_mm**2))).astype(np.float32)


def centre_of(bright: Image) -> tuple[float, float]:
    """Column and row of the centre of what is brighter than half."""
    rows, columns = np.nonzero(bright > 0.5)
    return float(columns.mean()), float(rows.mean())


def anatomy(seed: int = 0) -> Image:
    """A smooth random slice of HEADER's size."""
    coarse = np.random.default_rng(seed).random((20, 24), dtype=np.float32)
    return np.kron(coarse, np.ones((10, 10), np.float32)) * 900 + 20


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(Plane)),
    st.floats(-35, 35),
    storages,
    st.tuples(st.floats(0.3, 1.6), st.floats(0.3, 1.6)),
    st.floats(60, 140),
    st.floats(60, 140),
    st.floats(40, 100),
)
def test_a_spot_at_the_point_lands_in_the_centre(
    plane: Plane,
    tilt: float,
    storage: Storage,
    spacing: tuple[float, float],
    column: float,
    row: float,
    size_mm: float,
) -> None:
    header = replace(hung(plane, tilt), spacing=spacing)
    point = header.to_patient(column, row)
    image, header = stored(bright_at(header, column, row, sigma_mm=6), header, storage)
    pixels = crop(image, header, *header.to_pixel(point), size_mm)
    assert centre_of(pixels) == pytest.approx(((SIDE - 1) / 2,) * 2, abs=1.0)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(Plane)),
    st.floats(-35, 35),
    storages,
    st.floats(20, 200),
    st.floats(20, 160),
)
def test_the_crop_does_not_depend_on_how_the_slice_is_stored(
    plane: Plane, tilt: float, storage: Storage, column: float, row: float
) -> None:
    header = hung(plane, tilt)
    expected = crop(anatomy(), header, column, row, 60)
    image, other = stored(anatomy(), header, storage)
    pixels = crop(image, other, *other.to_pixel(header.to_patient(column, row)), 60)
    np.testing.assert_allclose(
        pixels, expected, atol=0.03
    )  # OpenCV interpolates in steps of 1/32 pixel
    assert np.abs(pixels - expected).mean() < 0.003


@pytest.mark.parametrize(
    ("plane", "towards", "where"),
    [
        (Plane.SAGITTAL, (0, 20, 0), (+1, 0)),  # posterior is right
        (Plane.SAGITTAL, (0, 0, 20), (0, -1)),  # cranial is up
        (Plane.AXIAL, (20, 0, 0), (+1, 0)),  # the patient's left is right
        (Plane.AXIAL, (0, 20, 0), (0, +1)),  # posterior is down
        (Plane.CORONAL, (20, 0, 0), (+1, 0)),
        (Plane.CORONAL, (0, 0, 20), (0, -1)),
    ],
)
@pytest.mark.parametrize(
    "storage", [(False, False, False), (True, False, True), (False, True, True)]
)
def test_the_crop_hangs_as_radiologists_hang_it_and_20_mm_are_20_mm(
    plane: Plane, towards: tuple[float, float, float], where: tuple[int, int], storage: Storage
) -> None:
    header = hung(plane)
    centre = header.to_patient(120, 100)
    spot = header.to_pixel(centre + np.array(towards))
    image, header = stored(bright_at(header, *spot), header, storage)
    column, row = centre_of(crop(image, header, *header.to_pixel(centre), 80))
    middle, step = (SIDE - 1) / 2, 20 * SIDE / 80
    assert (column, row) == pytest.approx(
        (middle + where[0] * step, middle + where[1] * step), abs=1.0
    )


@given(
    st.sampled_from(list(Plane)), st.floats(-35, 35), storages, st.floats(0, 223), st.floats(0, 223)
)
def test_a_crops_pixels_lie_at_their_positions_in_millimetres(
    plane: Plane, tilt: float, storage: Storage, u: float, v: float
) -> None:
    _, header = stored(anatomy(), hung(plane, tilt), storage)
    column, row = crop_to_image(header, 90.0, 70.0, 60.0) @ (u, v, 1)
    offset = header.to_patient(column, row) - header.to_patient(90.0, 70.0)
    expected = np.hypot(u - (SIDE - 1) / 2, v - (SIDE - 1) / 2) * 60 / SIDE
    assert np.linalg.norm(offset) == pytest.approx(expected, abs=0.01)


@given(
    oblique(),
    storages,
    st.tuples(st.floats(0.3, 1.6), st.floats(0.3, 1.6)),
    st.tuples(*[st.floats(0, 199)] * 2),
    st.tuples(*[st.floats(-25, 25)] * 2),
)
def test_a_point_of_the_patient_has_one_position_in_the_crop_however_the_slice_is_stored(
    header: SliceHeader,
    storage: Storage,
    spacing: tuple[float, float],
    centre: tuple[float, float],
    offset: tuple[float, float],
) -> None:
    """Double-oblique slices too; the position is computed by inverting the crop's map."""
    header = replace(header, spacing=spacing, rows=200, columns=240)
    middle = header.to_patient(*centre)
    point = middle + offset[0] * header.along_row + offset[1] * header.down_column

    def place(stored: SliceHeader) -> Vector:
        to_image = crop_to_image(stored, *stored.to_pixel(middle), 60.0)
        return np.linalg.solve(to_image[:, :2], np.array(stored.to_pixel(point)) - to_image[:, 2])

    expected = place(header)
    np.testing.assert_allclose(place(kept_as(header, storage)), expected, atol=1e-6)
    assert np.linalg.norm(expected - (SIDE - 1) / 2) * 60 / SIDE == pytest.approx(
        np.hypot(*offset), abs=0.01
    )


def test_the_area_beyond_the_image_is_black() -> None:
    pixels = crop(np.full((200, 240), 7, np.float32) + anatomy(), HEADER, 0, 100, 80)
    assert pixels[:, : SIDE // 2 - 8].max() == 0
    assert pixels[:, SIDE // 2 + 8 :].max() > 0.5


@pytest.mark.parametrize("gain", [0.01, 1.0, 300.0])
def test_the_scanners_gain_does_not_matter(gain: float) -> None:
    np.testing.assert_allclose(
        crop(anatomy() * np.float32(gain), HEADER, 120, 100, 60),
        crop(anatomy(), HEADER, 120, 100, 60),
        atol=1e-4,
    )


def test_crops_are_float32_from_0_to_1() -> None:
    pixels = crop(anatomy(), HEADER, 120, 100, 60)
    assert pixels.shape == (SIDE, SIDE)
    assert pixels.dtype == np.float32
    assert 0 <= pixels.min() < 0.2
    assert 0.8 < pixels.max() <= 1


def test_air_and_a_few_hot_pixels_do_not_set_the_scale() -> None:
    image = anatomy()
    framed = np.pad(image, 100)
    framed[0, :5] = 1e6
    np.testing.assert_allclose(normalised(framed)[100:-100, 100:-100], normalised(image), atol=0.02)


@pytest.mark.parametrize("value", [0, 5])
def test_an_image_without_contrast_is_black(value: float) -> None:
    assert not crop(np.full((200, 240), value, np.float32), HEADER, 120, 100, 60).any()


def test_noise_is_damped_and_the_image_kept() -> None:
    noise = np.random.default_rng(1).normal(500, 100, (200, 240)).astype(np.float32)
    pixels = crop(noise, replace(HEADER, spacing=(0.3, 0.3)), 120, 100, 60)
    assert pixels.std() < 0.4 * normalised(noise).std()
    assert pixels.mean() == pytest.approx(normalised(noise).mean(), abs=0.02)


def test_every_role_has_its_crop() -> None:
    assert set(CROP_MM) == set(Role)
