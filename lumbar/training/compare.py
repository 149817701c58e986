"""Compares candidates for the severity network by one recipe, on one split, in one table."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from lumbar.errors import WrongSetting
from lumbar.networks.classifiers import BACKBONES, predict
from lumbar.training.calibration import apply_calibration, fit_calibration
from lumbar.training.crop_batches import Samples
from lumbar.training.crop_files import CropFile
from lumbar.training.metrics import figures
from lumbar.training.recipes import Recipe
from lumbar.training.split import Part
from lumbar.training.trainer import batch_count, effective_phases, train_classifier

FOREST = "random_forest"
CANDIDATES = (FOREST, "densenet121", "mobilenetv2", "efficientnetb0", "vgg16", "resnet50")
# Trees of the random forest; minimum number of crops per leaf.
TREES, MIN_LEAF = 400, 2
# Image features: thumbnail side in pixels, cells per side, orientation bins.
THUMBNAIL, CELLS, ORIENTATIONS = 16, 6, 8

Stage = Callable[[str, int], Callable[[int], None]]
Predict = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def compare(
    crops: Sequence[CropFile],
    parts: dict[str, Part],
    work: Path,
    recipe: Recipe,
    stage: Stage,
    candidates: Sequence[str] = CANDIDATES,
) -> list[dict[str, Any]]:
    """One row per candidate: figures on the test part's crops at the annotated points, size, speed.

    All candidates are trained on the same crops, sampled alike, from random weights, with the
    recipe's severity settings except the architecture. Their probabilities are corrected and
    calibrated alike on the validation part.

    Raises:
        WrongSetting: a part has no crops.
        KeyError: a candidate is unknown.
    """
    by_part: dict[Part, list[CropFile]] = {part: [] for part in Part}
    for crop in crops:
        if crop.on_target:
            by_part[parts[crop.study]].append(crop)
    if not all(by_part.values()):
        raise WrongSetting(
            "too few labelled patients: at least ten are needed to have some in every part"
        )
    train, validation, test = (Samples("severity", by_part[part], work, recipe) for part in Part)
    rows = []
    for name in candidates:
        if name == FOREST:
            predict, parameters, minutes = _train_forest(train, stage)
        else:
            folder = work / "compare" / name
            predict, parameters, minutes = _train_network(name, train, validation, folder, stage)
        calibration = fit_calibration(
            predict(_worker_crops(validation)),
            train.balance.correction,
            np.array(validation.labels),
        )
        images, labels = _worker_crops(test), np.array(test.labels)
        start = time.monotonic()
        raw = predict(images)
        row = {
            "candidate": name,
            "parameters": parameters,
            "minutes": minutes,
            "crops_per_second": len(images) / (time.monotonic() - start),
            "crops": len(images),
        }
        rows.append(row | figures(apply_calibration(raw, *calibration), labels))
    return rows


def _worker_crops(samples: Samples) -> NDArray[np.float32]:
    return np.stack([samples.worker_crop(i) for i in range(len(samples))])


def _train_network(
    name: str, train: Samples, validation: Samples, folder: Path, stage: Stage
) -> tuple[Predict, int, float]:
    """Prediction function, number of weights, and minutes of training including resumed ones.

    Raises:
        KeyError: there is no such architecture.
    """
    if name not in BACKBONES:
        raise KeyError(name)
    network_recipe = train.recipe.severity.model_copy(update={"architecture": name})
    length = sum(batch_count(phase, train) for phase in effective_phases(network_recipe, None))
    advance = stage(f"Training {name}", length)
    network, history = train_classifier(network_recipe, train, validation, folder, advance)
    minutes = sum(row["minutes"] for row in history)
    return (
        lambda crops: predict(network, crops, 32).astype(float),
        network.count_params(),
        minutes,
    )


def _train_forest(train: Samples, stage: Stage) -> tuple[Predict, int, float]:
    """As ``_train_network``, on features of equally many crops, sampled and augmented alike."""
    start = time.monotonic()
    count = sum(
        phase.epochs * (phase.crops or len(train))
        for phase in effective_phases(train.recipe.severity, None)
    )
    order = np.random.default_rng(train.recipe.seed).choice(
        len(train), count, p=train.balance.sampling
    )
    advance = stage("Training the random forest", count)
    features, labels = [], []
    for n, index in enumerate(order):
        image, label = train.augmented_crop((train.recipe.seed, n), int(index))
        features.append(image_features(image))
        labels.append(label)
        advance(1)
    weights = dict(enumerate(train.balance.weights))
    forest = RandomForestClassifier(
        TREES,
        min_samples_leaf=MIN_LEAF,
        class_weight=weights,
        random_state=train.recipe.seed,
        n_jobs=-1,
    )
    forest.fit(np.stack(features), labels)
    minutes = (time.monotonic() - start) / 60

    def predict(crops: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(forest.predict_proba(np.stack([image_features(c) for c in crops])), float)

    return predict, 0, minutes


def image_features(crop: NDArray[np.float32]) -> NDArray[np.float32]:
    """A thumbnail and a histogram of oriented gradients (Dalal and Triggs, CVPR 2005).

    (224, 224), 0–1, to (``THUMBNAIL``² + ``CELLS``² * ``ORIENTATIONS``,).
    """
    thumbnail = cv2.resize(crop, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    across, down = (cv2.Sobel(crop, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    strength, angle = cv2.cartToPolar(across, down)
    bins = (angle % np.pi / np.pi * ORIENTATIONS).astype(int) % ORIENTATIONS
    side = len(crop) // CELLS * CELLS
    gradients = [
        np.where(bins == n, strength, 0)[:side, :side]
        .reshape(CELLS, side // CELLS, CELLS, side // CELLS)
        .sum((1, 3))
        for n in range(ORIENTATIONS)
    ]
    cells = np.stack(gradients, axis=-1)
    cells /= cells.sum(axis=-1, keepdims=True) + 1e-6
    return np.concatenate([thumbnail.ravel(), cells.ravel()]).astype(np.float32)
