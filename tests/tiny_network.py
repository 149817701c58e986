"""A network that trains in seconds, instead of VGG16 and ResNet-50, and a recipe for it."""

from functools import partial

import keras

from lumbar.networks.classifiers import BACKBONES, Backbone
from lumbar.training import evaluation_report, metrics
from lumbar.training.recipes import Recipe

TINY = "tiny"


def build(weights=None, include_top=False, input_shape=None):
    image = keras.Input(input_shape)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    network = keras.Model(image, x)
    if weights is not None:
        network.load_weights(weights)
    return network


def register(monkeypatch):
    monkeypatch.setitem(BACKBONES, TINY, Backbone(build, (255.0,) * 3, (-128.0,) * 3, 64.0))


def few_samples(monkeypatch):
    """Intervals from ten samples, where a test looks at none: 500 take twenty seconds."""
    quick = partial(metrics.bootstrap_intervals, rounds=10)
    monkeypatch.setattr(evaluation_report, "bootstrap_intervals", quick)


def recipe(**changes):
    network = {
        "architecture": TINY,
        "phases": [
            {"epochs": 2, "rate": 1e-3, "side": 32, "crops": 32},
            {"epochs": 2, "rate": 1e-3, "side": 48, "crops": 32},
        ],
    }
    return Recipe.model_validate(
        {"about": "tiny", "condition": network, "severity": network, "batch": 8, **changes}
    )
