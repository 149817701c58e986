"""The pixels of a study's slices, decoded when they are read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from lumbar.dicom.discover import MRInstance
from lumbar.dicom.pixels import read_slice
from lumbar.spine.slices import SliceHeader

MAX_PIXEL_BYTES = 128 * 2**20  # of decoded pixels in memory; 128 slices of 512 × 512


class SliceReader:
    """All slices of the given instances, told apart by file and frame: UIDs may be repeated.

    A slice is decoded only when it is read; those read most recently stay in memory, up to
    ``max_bytes`` of pixels.
    """

    def __init__(
        self, instances: Sequence[MRInstance], *, max_bytes: int = MAX_PIXEL_BYTES
    ) -> None:
        self.headers: tuple[SliceHeader, ...] = tuple(
            header for instance in instances for header in instance.slices
        )
        self._pixels: LRUCache[tuple[str, int | None], NDArray[np.float32]] = LRUCache(
            max_bytes, getsizeof=lambda image: image.nbytes
        )
        self._decoded = 0

    @property
    def decoded(self) -> int:
        """How many slices have been decoded so far."""
        return self._decoded

    def read(self, header: SliceHeader) -> NDArray[np.float32]:
        """A slice's pixels as ``read_slice`` returns them, with NaN for padding.

        Raises:
            NotDicom: the pixels are damaged.
        """
        key = (header.file, header.frame)
        image = self._pixels.get(key)
        if image is None:
            self._decoded += 1
            image = read_slice(Path(header.file), header.frame)
            if image.nbytes <= self._pixels.maxsize:
                self._pixels[key] = image
        return image
