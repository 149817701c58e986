"""The level locator, the two classifiers and their bundles.

Importing this package alone does not import Keras, which takes seconds.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lumbar.spine.provenance import BundleIdentity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lumbar.spine.levels import KeypointReader

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault(
    "TF_ENABLE_ONEDNN_OPTS", "1"
)  # also on AMD: training there is up to twice as fast


class Networks(Protocol):
    """What the pipeline asks of the networks; ``classifiers.Classifiers`` in earnest, a stub in tests.

    ``crops`` are (n, 224, 224), 0–1, as ``lumbar.spine.crops.crop`` makes them.
    """

    @property
    def identity(self) -> BundleIdentity: ...

    @property
    def keypoints(self) -> "KeypointReader":
        """The level locator."""
        ...

    def conditions(self, crops: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """(n, 6): how probably each shows each ``Condition``, in order, then none of them; rows sum to 1."""
        ...

    def severities(self, crops: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """(n, 3): normal_mild, moderate, severe; rows sum to 1."""
        ...


def load(folder: Path | None) -> Networks:
    """A bundle's networks, resident from the first call on; None is the shipped one. Raises WrongSetting."""
    with _native_start_up_lines_dropped():
        from lumbar.networks.bundle import resident

        return resident(folder)


def load_keypoints(folder: Path | None = None) -> "KeypointReader":
    """The level locator of a folder; None gives the shipped one. Raises WrongSetting."""
    with _native_start_up_lines_dropped():
        from lumbar.networks.identity import FOLDER
        from lumbar.networks.locator import load_locator

        return load_locator(folder or FOLDER)


@contextmanager
def _native_start_up_lines_dropped() -> Iterator[None]:
    """TensorFlow's libraries greet on standard error, below Python and whatever the log level; errors are raised."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
