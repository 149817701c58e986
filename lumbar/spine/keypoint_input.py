"""The keypoint network's interface: its input pictures and the maps it returns.

A picture is a slice, upright, resampled to a fixed resolution and normalised in brightness.
Inference and training share this preprocessing: any change here requires new weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.spine.anatomy import Level, Side
from lumbar.spine.crops import SIDE, crop_to_image, upright
from lumbar.spine.slices import SliceHeader, Vector

Image = NDArray[np.float32]
Heat = NDArray[np.float32]  # (…, cells, cells, points): heat maps
# A slice's pixels, (rows, columns), any range; NaN where it shows nothing.
ReadSlice = Callable[[SliceHeader], Image]

CELL_PIXELS = 2  # width of a heat map's cell in pixels of the picture
# The percentile of the non-zero pixels that is mapped to ``1 / CLIP`` before the square root.
BRIGHT_PERCENTILE = 98.5
CLIP = 1.3


@dataclass(frozen=True)
class Framing:
    """A square picture of ``side`` pixels, each ``mm`` wide, and the points to detect on it."""

    side: int
    mm: float
    points: tuple[str, ...]

    @property
    def cells(self) -> int:
        """The number of cells along one side of a heat map."""
        return self.side // CELL_PIXELS


# Cranial to caudal; numbered upwards from L5/S1, the lowest disc above the sacrum.
DISCS = ("t11_t12", "t12_l1", *Level, "s1_s2")
SAGITTAL = Framing(
    192, 1.6, (*(f"canal_{disc}" for disc in DISCS), *(f"foramen_{level}" for level in Level))
)
AXIAL = Framing(128, 1.25, ("sac", *(f"{side}_recess" for side in Side)))

BORDER = Framing(80, 1.2, ())  # of the lumbosacral border
# The position of that picture's centre relative to the middle of the canal at L5/S1.
BORDER_ANTERIOR_MM, BORDER_CAUDAL_MM = 16.0, 10.0


class KeypointDetector(Protocol):
    """What the spine code requires of the keypoint networks.

    ``lumbar.networks.locator.Locator`` implements it; tests use stubs.
    """

    def sagittal(self, pictures: Image) -> Heat:
        """(n, 192, 192) to (n, 96, 96, 13) probabilities of ``SAGITTAL.points``."""
        ...

    def border(self, pictures: Image) -> Image:
        """(n, 80, 80) to (n,) probabilities that the lumbosacral border is transitional."""
        ...

    def axial(self, pictures: Image) -> Heat:
        """(n, 128, 128) to (n, 64, 64, 3) probabilities of ``AXIAL.points``."""
        ...


@dataclass(frozen=True)
class Picture:
    """A slice as the network's input: ``pixels`` are (side, side), 0–1.

    ``to_image`` (2, 3) maps the picture's (column, row) to those of the upright slice, which
    ``upright_header`` describes.
    """

    header: SliceHeader
    pixels: Image
    upright_header: SliceHeader
    to_image: NDArray[np.float64]

    def to_patient(self, column: float, row: float) -> Vector:
        """The point in mm (LPS) of the picture's pixel (0-based, integers at pixel centres)."""
        x, y = self.to_image @ np.array([column, row, 1.0])
        return self.upright_header.to_patient(float(x), float(y))

    def to_pixel(self, point: Vector) -> Vector:
        """The picture's (column, row) of a point in mm (LPS), projected onto the slice."""
        on_slice = np.array(self.upright_header.to_pixel(point))
        return np.asarray(np.linalg.solve(self.to_image[:, :2], on_slice - self.to_image[:, 2]))

    def to_cell(self, point: Vector) -> Vector:
        """As ``to_pixel``, but (x, y) in cells of a heat map."""
        return np.asarray((self.to_pixel(point) - (CELL_PIXELS - 1) / 2) / CELL_PIXELS)

    def from_cell(self, position: Vector) -> Vector:
        """The point in mm (LPS), on the slice, of a position (x, y) in cells of a heat map."""
        column, row = position * CELL_PIXELS + (CELL_PIXELS - 1) / 2
        return self.to_patient(float(column), float(row))


def picture(image: Image, header: SliceHeader, centre: Vector, framing: Framing) -> Picture:
    """The network's picture of a slice, centred on a point in mm (LPS).

    ``image`` is (rows, columns), any range; NaN, where it shows nothing, becomes black.
    """
    side, mm = framing.side, framing.mm
    image, upright_header = upright(np.where(np.isnan(image), np.float32(0), image), header)
    to_image = _to_image(upright_header, centre, framing)
    spacing = min(header.spacing)
    # Against aliasing of details finer than the picture's pixels.
    if mm > 1.5 * spacing:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * mm / spacing).astype(np.float32)
    resampled = cv2.warpAffine(
        image, to_image, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    pixels = normalise_brightness(np.asarray(resampled, dtype=np.float32))
    return Picture(header, pixels, upright_header, to_image)


def normalise_brightness(image: Image) -> Image:
    """The image scaled to 0–1 regardless of its gain; a square root brightens dark tissue."""
    positive = image[image > 0]
    if not positive.size:
        return np.zeros_like(image)
    top = float(np.percentile(positive, BRIGHT_PERCENTILE))
    return np.asarray(np.sqrt(np.clip(image / max(top, 1e-6), 0, CLIP) / CLIP), dtype=np.float32)


def _to_image(header: SliceHeader, centre: Vector, framing: Framing) -> NDArray[np.float64]:
    """(2, 3): the affine map from the picture's (column, row) to the slice's."""
    column, row = header.to_pixel(centre)
    linear = crop_to_image(header, column, row, SIDE * framing.mm)[:, :2]
    middle = np.full(2, (framing.side - 1) / 2)
    return np.column_stack([linear, np.array([column, row]) - linear @ middle])
