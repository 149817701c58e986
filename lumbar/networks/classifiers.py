"""The two classifiers: VGG16 recognises a crop's condition, ResNet-50 grades its severity."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lumbar.networks.locator import Locator
from lumbar.spine.anatomy import Condition, Severity
from lumbar.spine.crops import SIDE
from lumbar.spine.provenance import BundleIdentity

NO_CONDITION = "none"  # the class of a crop that shows none of the conditions' views
CLASSES: Mapping[str, tuple[str, ...]] = {
    "condition": (*Condition, NO_CONDITION),
    "severity": tuple(Severity),
}

# Crops per call; shorter batches are padded, so that the graph is compiled only once.
BATCH = 4
HIDDEN_UNITS = 256
DROPOUT = 0.5
OUTPUT_LAYER = "probabilities"
IMAGENET = "imagenet"  # the pretrained weights that Keras downloads


@dataclass(frozen=True)
class Backbone:
    """A network of ``keras.applications`` with the range of its input.

    The input is ``scale`` · (0–1) + ``offsets``. ``spread`` is the standard deviation of the first
    convolution's input, as the standard deviation of grey values is about a quarter of their range.
    ``branch_end`` is the suffix of the names of the layers that end a residual branch.
    """

    build: Callable[..., keras.Model]
    scale: tuple[float, float, float]
    offsets: tuple[float, float, float]
    spread: float
    branch_end: str | None = None


def _caffe(build: Callable[..., keras.Model], branch_end: str | None = None) -> Backbone:
    """With the input range 0–255, less ImageNet's mean in blue, green and red."""
    return Backbone(build, (255.0,) * 3, (-103.939, -116.779, -123.68), 64.0, branch_end)


BACKBONES: Mapping[str, Backbone] = {
    "vgg16": _caffe(keras.applications.VGG16),
    "resnet50": _caffe(keras.applications.ResNet50, "_3_bn"),
    "densenet121": Backbone(
        keras.applications.DenseNet121,
        (1 / 0.229, 1 / 0.224, 1 / 0.225),
        (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
        1.0,
    ),
    "mobilenetv2": Backbone(keras.applications.MobileNetV2, (2.0,) * 3, (-1.0,) * 3, 0.5),
    "efficientnetb0": Backbone(keras.applications.EfficientNetB0, (255.0,) * 3, (0.0,) * 3, 0.25),
}


def build_classifier(
    kind: str, architecture: str, side: int = SIDE, weights: str | None = None
) -> keras.Model:
    """A backbone with a new dense head.

    It maps crops (n, 224, 224), 0–1, to (n, classes) probabilities of ``CLASSES[kind]``.
    ``architecture``: a key of ``BACKBONES``. ``side``: the size in pixels to which the network
    resizes the crops; the weights do not depend on it. ``weights``: ``IMAGENET``, or a file of such
    weights without top; None: random weights with which deep networks can be trained on few crops
    (see ``_initialise``).
    """
    chosen = BACKBONES[architecture]
    backbone = chosen.build(weights=weights, include_top=False, input_shape=(side, side, 3))
    if weights is None:
        _initialise(backbone, chosen)
    backbone.name = "backbone"
    crop = keras.Input((SIDE, SIDE), name="crop")
    x = keras.layers.Reshape((SIDE, SIDE, 1))(crop)
    if side != SIDE:
        x = keras.layers.Resizing(side, side, name="resized")(x)
    x = keras.layers.Concatenate(name="colour")([x] * 3)
    x = keras.layers.Rescaling(list(chosen.scale), list(chosen.offsets))(x)
    x = keras.layers.GlobalAveragePooling2D()(backbone(x))
    x = keras.layers.Dense(HIDDEN_UNITS, activation="relu", name="hidden")(x)
    x = keras.layers.Dropout(DROPOUT)(x)
    x = keras.layers.Dense(
        len(CLASSES[kind]), activation="softmax", dtype="float32", name=OUTPUT_LAYER
    )(x)
    return keras.Model(crop, x, name=kind)


class Classifiers:
    """Both classifiers and the locator, kept in memory.

    The result for a crop does not depend on the other crops of the call.
    """

    def __init__(
        self,
        identity: BundleIdentity,
        keypoints: Locator,
        condition: keras.Model,
        severity: keras.Model,
    ) -> None:
        self.identity = identity
        self.keypoints = keypoints
        self._condition = condition
        self._severity = severity

    def conditions(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 224, 224), 0–1, to (n, 6): probabilities of ``CLASSES["condition"]``."""
        return predict(self._condition, crops)

    def severities(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 224, 224), 0–1, to (n, 3): probabilities of ``CLASSES["severity"]``."""
        return predict(self._severity, crops)


def predict(
    network: keras.Model, crops: NDArray[np.float32], batch: int = BATCH
) -> NDArray[np.float32]:
    """(n, 224, 224), 0–1, to (n, classes) probabilities, computed ``batch`` crops at a time.

    Raises:
        ValueError: the crops have another shape.
    """
    if crops.ndim != 3 or crops.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"crops are (n, {SIDE}, {SIDE}), not {crops.shape}")
    padded = np.zeros((-(-len(crops) // batch) * batch, SIDE, SIDE), np.float32)
    padded[: len(crops)] = crops
    outputs: list[Any] = [
        network.predict_on_batch(padded[n : n + batch]) for n in range(0, len(padded), batch)
    ]
    if not outputs:
        return np.empty((0, network.output_shape[-1]), np.float32)
    return np.concatenate(outputs)[: len(crops)].astype(np.float32)


def _initialise(backbone: keras.Model, chosen: Backbone) -> None:
    """Random kernels (He et al., ICCV 2015) that keep the variance at 1 after the first layer.

    Residual branches start at zero (Goyal et al., arXiv 1706.02677); otherwise ResNet-50 makes no
    progress for a long time.
    """
    spread = chosen.spread
    for layer in backbone.layers:
        if type(layer) is keras.layers.Conv2D:
            # One per layer: the same initializer repeats its values for the same shape.
            initializer = keras.initializers.HeNormal()
            layer.kernel.assign(initializer(layer.kernel.shape, layer.kernel.dtype) / spread)
            spread = 1.0
        if chosen.branch_end and layer.name.endswith(chosen.branch_end):
            layer.gamma.assign(keras.ops.zeros_like(layer.gamma))
