"""The classifiers' input: crops cut from a slice around a point.

A crop is a square of fixed physical size, oriented as radiologists hang the plane, denoised and
scaled to 0–1. Training and inference share this preprocessing: any change here requires a new
``PREPROCESSING_VERSION``, which deliberately makes older bundles unusable.
"""

from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.spine.anatomy import Plane, Role
from lumbar.spine.slices import SliceHeader, Vector

PREPROCESSING_VERSION = "2"
SIDE = 224  # pixels
PERCENTILES = (1.0, 99.5)  # of the slice's non-zero pixels, mapped to 0 and 1
DENOISE_MM = 0.3  # standard deviation of the Gaussian
# Pixels added on each side for denoising, then cut off, so that a margin changes no inner pixel.
RIM = 8

# Wide enough for the canal from the vertebral body above the disc to the one below, for the foramen
# with both pedicles, and for the recess with the sac.
CROP_MM: Mapping[Role, float] = {
    Role.SAGITTAL_T2: 64.0,
    Role.SAGITTAL_T1: 48.0,
    Role.AXIAL_T2: 48.0,
}

# LPS directions of the crop's right and bottom: sagittal with anterior left and cranial up, axial
# as seen from the feet.
HANGING: Mapping[Plane, tuple[Vector, Vector]] = {
    Plane.SAGITTAL: (np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0])),
    Plane.CORONAL: (np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, -1.0])),
    Plane.AXIAL: (np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])),
}


def crop(
    image: NDArray[np.float32],
    header: SliceHeader,
    column: float,
    row: float,
    size_mm: float,
    margin: int = 0,
) -> NDArray[np.float32]:
    """The square of ``size_mm`` centred on a pixel: (224, 224), 0–1, black outside the image.

    ``image`` is (rows, columns), any range, NaN where it shows nothing; ``column`` and ``row`` are
    0-based with integers at pixel centres. The image is only flipped and transposed to hang
    upright, never rotated by another angle. ``margin`` adds pixels on each side, from which
    training cuts rotated and shifted crops.
    """
    upright_image, upright_header = upright(normalised(image), header)
    centre = upright_header.to_pixel(header.to_patient(column, row))
    to_image = crop_to_image(upright_header, *centre, size_mm)
    border = margin + RIM
    to_image[:, 2] -= to_image[:, :2] @ np.full(2, border)
    size = (SIDE + 2 * border,) * 2
    resampled = cv2.warpAffine(
        upright_image, to_image, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    denoised = cv2.GaussianBlur(resampled, (0, 0), DENOISE_MM * SIDE / size_mm)
    return np.ascontiguousarray(denoised[RIM:-RIM, RIM:-RIM], dtype=np.float32).clip(0, 1)


def is_blank(pixels: NDArray[np.float32]) -> bool:
    """Whether the crop is of one grey: the networks would grade it all the same."""
    return bool(np.ptp(pixels) == 0)


def upright(
    image: NDArray[np.float32], header: SliceHeader
) -> tuple[NDArray[np.float32], SliceHeader]:
    """The same slice as it is hung: flipped and transposed, with its pixels unchanged.

    Results computed from it are therefore bit-identical however the slice was stored.
    """
    right, down = _hanging_axes(header)
    transposed = abs(right @ header.along_row) < abs(right @ header.down_column)
    pixels = image.T if transposed else image
    between_rows, between_columns = header.spacing[::-1] if transposed else header.spacing
    position = np.array(header.position)
    if right @ (header.down_column if transposed else header.along_row) < 0:
        pixels = pixels[:, ::-1]
        position = position - right * between_columns * (pixels.shape[1] - 1)
    if down @ (header.along_row if transposed else header.down_column) < 0:
        pixels = pixels[::-1]
        position = position - down * between_rows * (pixels.shape[0] - 1)
    rows, columns = pixels.shape
    x, y, z = (float(value) for value in position)
    (a, b, c), (d, e, f) = right.tolist(), down.tolist()
    upright_header = replace(
        header,
        rows=rows,
        columns=columns,
        spacing=(between_rows, between_columns),
        position=(x, y, z),
        orientation=(a, b, c, d, e, f),
    )
    return np.ascontiguousarray(pixels), upright_header


def crop_to_image(
    header: SliceHeader, column: float, row: float, size_mm: float
) -> NDArray[np.float64]:
    """(2, 3): the affine map from the crop's (column, row) to the image's.

    The crop's centre maps to the given ``column`` and ``row``.
    """
    right, down = _hanging_axes(header)
    mm = size_mm / SIDE
    between_rows, between_columns = header.spacing
    axes = np.array([header.along_row / between_columns, header.down_column / between_rows])
    linear = axes @ np.stack([right, down], axis=1) * mm
    centre = np.full(2, (SIDE - 1) / 2)
    return np.column_stack([linear, np.array([column, row]) - linear @ centre])


def normalised(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The whole slice scaled to 0–1 between ``PERCENTILES`` of its non-zero pixels; NaN is black.

    All zeros if it has no contrast.
    """
    padding = np.isnan(image)
    anatomy = image[(image != 0) & ~padding]
    if not anatomy.size:
        return np.zeros_like(image)
    low, high = np.percentile(anatomy, PERCENTILES)
    if high <= low:
        return np.zeros_like(image)
    scaled = np.asarray((image - low) / (high - low), dtype=np.float32).clip(0, 1)
    scaled[padding] = 0
    return scaled


def _hanging_axes(header: SliceHeader) -> tuple[Vector, Vector]:
    """Of the slice's four in-plane directions, those nearest to right and bottom as it is hung."""
    to_right, to_bottom = HANGING[header.plane]
    across, down = header.along_row, header.down_column
    as_stored = abs(across @ to_right) + abs(down @ to_bottom)
    if as_stored < abs(down @ to_right) + abs(across @ to_bottom):
        across, down = down, across
    return (
        across if across @ to_right >= 0 else -across,
        down if down @ to_bottom >= 0 else -down,
    )
