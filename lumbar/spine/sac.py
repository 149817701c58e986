"""The dural sac in one axial T2 slice, for an image without the sagittal series that would tell its level."""

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.spine.crops import crop_to_image, normalised
from lumbar.spine.slices import SliceHeader, Vector

MM = 1.0  # of the working image's pixel
SIDE_MM = 160.0  # of the square searched, around the image's centre
RADIUS_MM, RING_MM = 6.0, 12.0  # of the sac, and of the darker disc, facets and ligament around it
FROM_MIDDLE_MM = 10.0  # standard deviation: the spine lies near the middle from side to side
CLEAR = 0.1  # the least that the sac must be brighter than its surroundings, 0–1


def find_sac(image: NDArray[np.float32], header: SliceHeader) -> Vector | None:
    """The sac's centre in mm (LPS), or None where no bright round body stands out near the middle.

    ``image`` is (rows, columns), any range, an axial T2 slice.
    """
    centre = ((header.columns - 1) / 2, (header.rows - 1) / 2)
    to_image = _working_to_image(header, centre)
    side = round(SIDE_MM / MM)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    working = cv2.warpAffine(normalised(image), to_image, (side, side), flags=flags)
    inner, outer = _disc(RADIUS_MM), _disc(RING_MM)
    inside = cv2.filter2D(working, cv2.CV_32F, inner / inner.sum())
    around = cv2.filter2D(working, cv2.CV_32F, outer - _padded(inner, outer.shape[0]))
    ring = around / (outer.sum() - inner.sum())
    stands_out = inside - ring
    from_middle = (np.arange(side) - (side - 1) / 2) * MM / FROM_MIDDLE_MM
    likely = stands_out * np.exp(-(from_middle**2) / 2)
    row, column = np.unravel_index(int(np.argmax(likely)), likely.shape)
    if stands_out[row, column] < CLEAR:
        return None
    x, y = to_image @ np.array([column, row, 1.0])
    return header.to_patient(float(x), float(y))


def _working_to_image(header: SliceHeader, centre: tuple[float, float]) -> NDArray[np.float64]:
    """As a crop's map, at one working pixel a ``MM``."""
    per_crop_pixel = crop_to_image(header, *centre, SIDE_MM)
    scale = np.diag([224 * MM / SIDE_MM] * 2)
    turn = per_crop_pixel[:, :2] @ scale
    middle = np.full(2, (SIDE_MM / MM - 1) / 2)
    return np.column_stack([turn, np.array(centre) - turn @ middle])


def _disc(radius_mm: float) -> NDArray[np.float32]:
    reach = round(radius_mm / MM)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(np.hypot(rows, columns) * MM <= radius_mm, dtype=np.float32)


def _padded(small: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    return np.pad(small, (side - small.shape[0]) // 2)
