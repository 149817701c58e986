"""What the keypoint network is shown and what it is asked for: slices upright, of one resolution and brightness.

Reading and training share this preprocessing; a change here needs new weights.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.spine.anatomy import Level, Side
from lumbar.spine.crops import SIDE, crop_to_image, upright
from lumbar.spine.slices import SliceHeader, Vector

Image = NDArray[np.float32]
Heat = NDArray[np.float32]

CELL = 2  # pixels of the picture to one cell of a heat map
BRIGHT = 98.5  # percentile of the pixels that are not zero, to ``1 / CLIP`` before the square root
CLIP = 1.3


@dataclass(frozen=True)
class Framing:
    """A square picture of ``side`` pixels of ``mm``, and the points that are looked for on it."""

    side: int
    mm: float
    points: tuple[str, ...]

    @property
    def cells(self) -> int:
        """Of a heat map's side."""
        return self.side // CELL


DISCS = (
    "t11_t12",
    "t12_l1",
    *Level,
    "s1_s2",
)  # cranial to caudal, counted upwards from the lowest above the sacrum
SAGITTAL = Framing(
    192, 1.6, (*(f"canal_{disc}" for disc in DISCS), *(f"foramen_{level}" for level in Level))
)
AXIAL = Framing(128, 1.25, ("sac", *(f"{side}_recess" for side in Side)))

BORDER = Framing(80, 1.2, ())  # between the lumbar spine and the sacrum
BORDER_AHEAD_MM, BORDER_DOWN_MM = 16.0, 10.0  # its middle, from the canal's at L5/S1


@dataclass(frozen=True)
class Picture:
    """A slice as the network sees it: ``pixels`` are (side, side), 0–1.

    ``to_image`` (2, 3) maps their (column, row) to those of the slice as it hangs, which ``hung`` describes.
    """

    header: SliceHeader
    pixels: Image
    hung: SliceHeader
    to_image: NDArray[np.float64]

    def to_patient(self, column: float, row: float) -> Vector:
        """The point in mm (LPS) of a picture's pixel (0-based, integers at pixel centres)."""
        x, y = self.to_image @ np.array([column, row, 1.0])
        return self.hung.to_patient(float(x), float(y))

    def to_pixel(self, point: Vector) -> Vector:
        """Where a point in mm (LPS) falls, projected onto the slice: (column, row) of the picture."""
        on_slice = np.array(self.hung.to_pixel(point))
        return np.asarray(np.linalg.solve(self.to_image[:, :2], on_slice - self.to_image[:, 2]))

    def to_cell(self, point: Vector) -> Vector:
        """Likewise (x, y) in cells of a heat map."""
        return np.asarray((self.to_pixel(point) - (CELL - 1) / 2) / CELL)

    def from_cell(self, place: Vector) -> Vector:
        """The point in mm (LPS), on the slice, of a place (x, y) in cells of a heat map."""
        column, row = place * CELL + (CELL - 1) / 2
        return self.to_patient(float(column), float(row))


def picture(image: Image, header: SliceHeader, centre: Vector, framing: Framing) -> Picture:
    """The slice upright around a point in mm (LPS). ``image`` is (rows, columns), any range."""
    side, mm = framing.side, framing.mm
    image, hung = upright(image, header)
    to_image = _to_image(hung, centre, framing)
    spacing = min(header.spacing)
    if mm > 1.5 * spacing:  # what is finer than the picture's pixels must not alias
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * mm / spacing).astype(np.float32)
    seen = cv2.warpAffine(
        image, to_image, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    return Picture(header, brightened(np.asarray(seen, dtype=np.float32)), hung, to_image)


def brightened(image: Image) -> Image:
    """The picture's own brightness taken out: 0–1, dark tissue spread by a square root."""
    light = image[image > 0]
    if not light.size:
        return np.zeros_like(image)
    top = float(np.percentile(light, BRIGHT))
    return np.asarray(np.sqrt(np.clip(image / max(top, 1e-6), 0, CLIP) / CLIP), dtype=np.float32)


def _to_image(header: SliceHeader, centre: Vector, framing: Framing) -> NDArray[np.float64]:
    """(2, 3): the picture's (column, row) to the slice's."""
    column, row = header.to_pixel(centre)
    turn = crop_to_image(header, column, row, SIDE * framing.mm)[:, :2]
    return np.column_stack(
        [turn, np.array([column, row]) - turn @ np.full(2, (framing.side - 1) / 2)]
    )
