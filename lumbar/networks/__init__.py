"""The two classifiers and their bundles. Importing this package alone does not import Keras, which takes seconds."""

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lumbar.spine.provenance import BundleIdentity

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


class CropReader(Protocol):
    """What the pipeline asks of the networks; ``classifiers.Classifiers`` in earnest, a stub in tests.

    ``crops`` are (n, 224, 224), 0–1, as ``lumbar.spine.crops.crop`` makes them.
    """

    @property
    def identity(self) -> BundleIdentity: ...

    def conditions(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 6): how probably each shows each ``Condition``, in order, then none of them; rows sum to 1."""
        ...

    def severities(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 3): normal_mild, moderate, severe; rows sum to 1."""
        ...
