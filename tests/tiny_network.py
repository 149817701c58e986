"""A network that trains in seconds, instead of VGG16 and ResNet-50, and a recipe for it."""

import hashlib
from functools import partial

import keras

from lumbar.networks.classifiers import BACKBONES, Backbone
from lumbar.training import evaluation_report, metrics
from lumbar.training.crop_batches import Samples
from lumbar.training.crop_files import extract_crops
from lumbar.training.recipes import Recipe
from lumbar.training.rsna_dataset import read_data_set
from lumbar.training.trainer import train_classifier

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


def train_severity(data, work, out, advance):
    """Trains on a few studies; returns a hash of the weights, and every epoch's figures."""
    crops, _ = extract_crops(read_data_set(data).studies[:4], work, lambda done: None, 1)
    tiny = recipe()
    samples = Samples("severity", crops, work, tiny)
    network, history = train_classifier(tiny.severity, samples, samples, out, advance)
    weights = b"".join(weight.tobytes() for weight in network.get_weights())
    rows = [{name: row[name] for name in row if name != "minutes"} for row in history]
    return [hashlib.sha256(weights).hexdigest(), rows]
