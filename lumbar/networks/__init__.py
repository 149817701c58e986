"""The level locator, the two classifiers and their bundles.

Importing this package alone does not import Keras, which takes seconds.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lumbar.errors import WrongSetting
from lumbar.spine.provenance import BundleIdentity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lumbar.spine.keypoint_input import KeypointDetector

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Enables oneDNN on AMD processors too, where it makes training up to twice as fast.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


class Networks(Protocol):
    """What the pipeline needs of the networks: ``classifiers.Classifiers``, or a stub in tests.

    ``crops`` are (n, 224, 224), 0–1, as returned by ``lumbar.spine.crops.crop``.
    """

    @property
    def identity(self) -> BundleIdentity: ...

    @property
    def keypoints(self) -> "KeypointDetector":
        """The level locator."""
        ...

    def conditions(self, crops: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """(n, 6) probabilities that a crop shows each ``Condition``, in order, or none of them.

        Rows sum to 1.
        """
        ...

    def severities(self, crops: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """(n, 3) probabilities of normal_mild, moderate and severe; rows sum to 1."""
        ...


def installed(module: str) -> bool:
    """Whether a module can be imported; it is not imported."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def require_tensorflow() -> None:
    """Requires TensorFlow, which is an extra, before any work is done.

    Raises:
        WrongSetting: it is not installed.
    """
    if not installed("tensorflow"):
        raise WrongSetting(
            "TensorFlow is not installed; the networks need `pip install 'lumbar-triage[cpu]'`, "
            "or [gpu]"
        )


def load(folder: Path | None) -> Networks:
    """The networks of a bundle's folder; None: of the shipped bundle.

    They are loaded on the first call and stay in memory.

    Raises:
        WrongSetting: the bundle is missing, damaged, or made for another version; or TensorFlow is
            not installed.
    """
    require_tensorflow()
    with _native_output_suppressed():
        from lumbar.networks.bundle import cached_bundle

        return cached_bundle(folder)


def load_keypoints(folder: Path | None = None) -> "KeypointDetector":
    """The level locator of a folder; None: the shipped one.

    Raises:
        WrongSetting: its files are missing, damaged, or made for another version; or TensorFlow is
            not installed.
    """
    require_tensorflow()
    with _native_output_suppressed():
        from lumbar.networks.identity import FOLDER
        from lumbar.networks.locator import load_locator

        return load_locator(folder or FOLDER)


@contextmanager
def _native_output_suppressed() -> Iterator[None]:
    """TensorFlow's native libraries print to standard error at start-up, whatever the log level.

    Errors are raised as exceptions, so no message that matters is lost.
    """
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)
