"""Random augmentation of training crops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.spine.anatomy import Condition, Role
from lumbar.spine.crops import CROP_MM, SIDE, crop
from lumbar.training.augment import LOCATOR_MM, MAX_MM, Amounts, augmented
from lumbar.training.crop_files import MARGIN, worker_crop
from tests.factories.headers import SLICE as HEADER

NOTHING = Amounts(turn_deg=0, zoom=0, brightness=0, noise=0, blur=0, flip=False)
LEFT, RIGHT = Condition.LEFT_SUBARTICULAR_STENOSIS, Condition.RIGHT_SUBARTICULAR_STENOSIS
SAGITTAL = [c for c in Condition if c.role is not Role.AXIAL_T2]
WHOLE = SIDE + 2 * MARGIN


def spots(*places):
    """A dark stored crop with a bright spot at each (column, row) from its centre."""
    rows, columns = np.mgrid[:WHOLE, :WHOLE] - (WHOLE - 1) / 2
    bright = sum(np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18) for x, y in places)
    return np.asarray(np.clip(bright, 0, 1) * 255, np.uint8)


def middle_of(image):
    """The (column, row) of the bright spot, from the crop's centre."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return np.array([(image * columns).sum(), (image * rows).sum()]) / image.sum()


def test_a_stored_crop_without_margin_is_the_workers_crop():
    image = np.random.default_rng(0).random((HEADER.rows, HEADER.columns), dtype=np.float32) * 900
    stored = crop(image, HEADER, 120.3, 99.7, 60, MARGIN)
    assert stored.shape == (WHOLE, WHOLE)
    np.testing.assert_allclose(
        stored[MARGIN:-MARGIN, MARGIN:-MARGIN], crop(image, HEADER, 120.3, 99.7, 60), atol=1e-5
    )
    rounded = worker_crop(np.rint(stored * 255).astype(np.uint8))
    assert np.abs(rounded - crop(image, HEADER, 120.3, 99.7, 60)).max() <= 0.5 / 255 + 1e-5


@given(st.sampled_from(SAGITTAL), st.integers(0, 10**6))
def test_a_sagittal_crop_is_never_mirrored_and_keeps_its_label(condition, seed):
    """Something in front and below stays in front and below, however the crop is turned."""
    image, label = augmented(
        np.random.default_rng(seed), spots((-60, 0), (-60, 40)), condition, Amounts(noise=0)
    )
    assert label is condition
    off = middle_of(image)
    assert off[0] < -20
    assert off[1] > -25


@given(st.sampled_from([LEFT, RIGHT]), st.integers(0, 10**6))
def test_a_mirrored_axial_crop_is_of_the_other_side(condition, seed):
    image, label = augmented(
        np.random.default_rng(seed), spots((60, 0)), condition, Amounts(noise=0)
    )
    mirrored = middle_of(image)[0] < 0
    assert label is ({LEFT: RIGHT, RIGHT: LEFT}[condition] if mirrored else condition)


@pytest.mark.slow
def test_half_of_the_axial_crops_are_mirrored_and_none_without_flip():
    def mirrored(amounts):
        return [
            augmented(np.random.default_rng(n), spots((60, 0)), LEFT, amounts)[1] is RIGHT
            for n in range(200)
        ]

    assert 70 < sum(mirrored(Amounts())) < 130
    assert sum(mirrored(Amounts(flip=False))) == 0


@pytest.mark.parametrize("condition", [LEFT, Condition.SPINAL_CANAL_STENOSIS])
def test_points_are_shifted_by_as_much_as_the_locators_error(condition):
    size = CROP_MM[condition.role] / SIDE
    off = np.array(
        [
            middle_of(augmented(np.random.default_rng(n), spots((0, 0)), condition, NOTHING)[0])
            for n in range(200)
        ]
    )
    assert np.median(np.linalg.norm(off, axis=1)) * size == pytest.approx(
        1.177 * LOCATOR_MM[condition.role], rel=0.15
    )
    assert np.abs(off).max() * size <= MAX_MM + 0.1


@given(st.integers(0, 10**6))
def test_crops_stay_within_their_range(seed):
    image = np.random.default_rng(seed).integers(0, 256, (WHOLE, WHOLE), dtype=np.uint8)
    image, _ = augmented(np.random.default_rng(seed), image, LEFT, Amounts())
    assert image.shape == (SIDE, SIDE)
    assert image.dtype == np.float32
    assert 0 <= image.min() <= image.max() <= 1


def test_the_same_random_numbers_give_the_same_crop():
    first, second = (
        augmented(np.random.default_rng(9), spots((3, 5)), LEFT, Amounts())[0] for _ in range(2)
    )
    assert (first == second).all()
