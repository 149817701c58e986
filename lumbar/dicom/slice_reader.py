"""The pixels of a study's slices, read when they are asked for."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lumbar.dicom.discover import MRInstance
from lumbar.dicom.pixels import read_slice
from lumbar.spine.slices import SliceHeader

KEPT = 128 * 2**20  # bytes of pixels; 128 slices of 512 × 512


class SliceReader:
    """All slices of the given instances; only those that are read are decoded, and those read last are kept."""

    def __init__(self, instances: Sequence[MRInstance]) -> None:
        self.headers: tuple[SliceHeader, ...] = tuple(
            header for found in instances for header in found.slices
        )
        self._paths = {found.header.SOPInstanceUID: found.path for found in instances}
        self._kept: dict[tuple[str, int | None], NDArray[np.float32]] = {}  # the oldest first
        self._decoded = 0

    @property
    def decoded(self) -> int:
        """How many slices were decoded so far."""
        return self._decoded

    def read(self, header: SliceHeader) -> NDArray[np.float32]:
        """A slice's pixels, (rows, columns), rescaled. Raises NotDicom where they are damaged."""
        wanted = (header.sop_instance_uid, header.frame)
        if wanted not in self._kept:
            self._decoded += 1
            image = read_slice(self._paths[header.sop_instance_uid], header.frame)
            while (
                self._kept
                and sum(kept.nbytes for kept in self._kept.values()) + image.nbytes > KEPT
            ):
                del self._kept[next(iter(self._kept))]
            self._kept[wanted] = image
        return self._kept[wanted]
