"""VGG16 says which condition a crop shows, ResNet-50 how severe it is; the level locator goes with them."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lumbar.networks.locator import Locator
from lumbar.spine.anatomy import Condition, Severity
from lumbar.spine.crops import SIDE
from lumbar.spine.provenance import BundleIdentity

NONE = "none"  # a crop that shows no condition's view
CONDITION_CLASSES: tuple[str, ...] = (*Condition, NONE)
SEVERITY_CLASSES: tuple[str, ...] = tuple(Severity)

BATCH = 4  # crops; always this many, padded, so that the graph is compiled once
IMAGENET_MEAN = (103.939, 116.779, 123.68)  # blue, green, red: what both networks' weights were trained without
HIDDEN = 256
DROPOUT = 0.5


def build_condition_network(backbone_weights: Path | None = None) -> keras.Model:
    """VGG16 with a new dense head: crops (n, 224, 224), 0–1, to (n, 6) probabilities of ``CONDITION_CLASSES``.

    ``backbone_weights``: the file of ImageNet weights without top; None starts at random.
    """
    backbone = keras.applications.VGG16(
        weights=_given(backbone_weights), include_top=False, input_shape=(SIDE, SIDE, 3)
    )
    return _with_head(backbone, len(CONDITION_CLASSES), "condition")


def build_severity_network(backbone_weights: Path | None = None) -> keras.Model:
    """ResNet-50 with a new dense head: crops (n, 224, 224), 0–1, to (n, 3) probabilities of ``Severity``."""
    backbone = keras.applications.ResNet50(
        weights=_given(backbone_weights), include_top=False, input_shape=(SIDE, SIDE, 3)
    )
    return _with_head(backbone, len(SEVERITY_CLASSES), "severity")


class Classifiers:
    """Both classifiers and the locator, resident. A crop's answer does not depend on the crops it is asked with."""

    def __init__(
        self, identity: BundleIdentity, keypoints: Locator, condition: keras.Model, severity: keras.Model
    ) -> None:
        self.identity = identity
        self.keypoints = keypoints
        self._condition = condition
        self._severity = severity

    def conditions(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 224, 224), 0–1, to (n, 6): probabilities of ``CONDITION_CLASSES``."""
        return _in_batches(self._condition, crops)

    def severities(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 224, 224), 0–1, to (n, 3): probabilities of ``SEVERITY_CLASSES``."""
        return _in_batches(self._severity, crops)


def _given(weights: Path | None) -> str | None:
    return None if weights is None else str(weights)


def _with_head(backbone: keras.Model, classes: int, name: str) -> keras.Model:
    """Grey to the three channels the backbone knows, in its own convention; then a small dense head."""
    grey = keras.Input((SIDE, SIDE), name="crop")
    channel = keras.layers.Reshape((SIDE, SIDE, 1))(grey)
    colour = keras.layers.Concatenate()([channel] * 3)
    centred = keras.layers.Rescaling(255.0, [-mean for mean in IMAGENET_MEAN])(colour)
    features = keras.layers.GlobalAveragePooling2D()(backbone(centred))
    hidden = keras.layers.Dense(HIDDEN, activation="relu", name="hidden")(features)
    dropped = keras.layers.Dropout(DROPOUT)(hidden)
    probabilities = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(dropped)
    return keras.Model(grey, probabilities, name=name)


def _in_batches(network: keras.Model, crops: NDArray[np.float32]) -> NDArray[np.float32]:
    if crops.ndim != 3 or crops.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"crops are (n, {SIDE}, {SIDE}), not {crops.shape}")
    padded = np.zeros((-(-len(crops) // BATCH) * BATCH, SIDE, SIDE), np.float32)
    padded[: len(crops)] = crops
    answers: list[Any] = [network.predict_on_batch(padded[n : n + BATCH]) for n in range(0, len(padded), BATCH)]
    if not answers:
        return np.empty((0, network.output_shape[-1]), np.float32)
    return np.concatenate(answers)[: len(crops)].astype(np.float32)
