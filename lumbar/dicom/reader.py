"""The pixels of a study's slices, read when they are asked for and once only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lumbar.dicom.folder import Found
from lumbar.dicom.pixels import read_slice
from lumbar.spine.slices import SliceHeader


class SliceReader:
    """All slices of the given instances; only those that are read are decoded."""

    def __init__(self, instances: Sequence[Found]) -> None:
        self.headers: tuple[SliceHeader, ...] = tuple(header for found in instances for header in found.slices)
        self._paths = {found.header.SOPInstanceUID: found.path for found in instances}
        self._read: dict[tuple[str, int | None], NDArray[np.float32]] = {}

    def read(self, header: SliceHeader) -> NDArray[np.float32]:
        """A slice's pixels, (rows, columns), rescaled. Raises NotDicom where they are damaged."""
        wanted = (header.sop_instance_uid, header.frame)
        if wanted not in self._read:
            self._read[wanted] = read_slice(self._paths[header.sop_instance_uid], header.frame)
        return self._read[wanted]
