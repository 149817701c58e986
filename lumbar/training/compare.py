"""Candidates for the severity network, side by side: one recipe, one split, one table."""

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
from lumbar.training.calibration import corrected, fitted
from lumbar.training.crop_batches import Samples
from lumbar.training.crop_files import Cut
from lumbar.training.metrics import figures
from lumbar.training.recipes import Recipe
from lumbar.training.split import Part
from lumbar.training.trainer import batches_of, phases_of, teach

FOREST = "random_forest"
CANDIDATES = (FOREST, "densenet121", "mobilenetv2", "efficientnetb0", "vgg16", "resnet50")
TREES, LEAST = 400, 2  # of the forest; crops in a leaf
GREY, CELLS, TURNS = 16, 6, 8  # of the features: pixels, cells of a side, directions

Stage = Callable[[str, int], Callable[[int], None]]
Ask = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def compare(
    cuts: Sequence[Cut],
    parts: dict[str, Part],
    work: Path,
    recipe: Recipe,
    stage: Stage,
    candidates: Sequence[str] = CANDIDATES,
) -> list[dict[str, Any]]:
    """One row a candidate: its figures on the test part's crops, cut at the marked points, its size and its speed.

    All learn from the same crops, drawn alike, and start from random weights; of the recipe all but the architecture
    counts. Their probabilities are corrected and calibrated alike on the validation part. Raises KeyError for an
    unknown candidate, WrongSetting where a part has no crops.
    """
    crops_of = {
        part: [cut for cut in cuts if cut.on_target and parts[cut.study] is part] for part in Part
    }
    if not all(crops_of.values()):
        raise WrongSetting(
            "too few labelled patients: at least ten are needed to have some in every part"
        )
    train, validation, test = (Samples("severity", crops_of[part], work, recipe) for part in Part)
    rows = []
    for name in candidates:
        if name == FOREST:
            ask, size, minutes = _forest(train, stage)
        else:
            ask, size, minutes = _network(name, train, validation, work / "compare" / name, stage)
        held, held_labels = ask(_seen(validation)), np.array(validation.labels)
        crops, labels = _seen(test), np.array(test.labels)
        asked = time.monotonic()
        raw = ask(crops)
        per_second = len(crops) / (time.monotonic() - asked)
        own = figures(corrected(raw, *fitted(held, train.balance.correction, held_labels)), labels)
        about = {
            "candidate": name,
            "parameters": size,
            "minutes": minutes,
            "crops_per_second": per_second,
        }
        rows.append({**about, "crops": len(crops), **own})
    return rows


def _seen(samples: Samples) -> NDArray[np.float32]:
    return np.stack([samples.as_read(i) for i in range(len(samples))])


def _network(
    name: str, train: Samples, validation: Samples, folder: Path, stage: Stage
) -> tuple[Ask, int, float]:
    """How to ask it, how many weights it has, and the minutes it learnt for, before a kill too."""
    if name not in BACKBONES:
        raise KeyError(name)
    course = train.recipe.severity.model_copy(update={"architecture": name})
    length = sum(batches_of(phase, train) for phase in phases_of(course, None))
    network, history = teach(course, train, validation, folder, stage(f"Teaching {name}", length))
    minutes = sum(row["minutes"] for row in history)
    return (
        lambda crops: predict(network, crops, 32).astype(float),
        network.count_params(),
        minutes,
    )


def _forest(train: Samples, stage: Stage) -> tuple[Ask, int, float]:
    """As ``_network``; on image features of as many crops as the networks see, drawn and distorted alike."""
    began = time.monotonic()
    count = sum(
        phase.epochs * (phase.crops or len(train))
        for phase in phases_of(train.recipe.severity, None)
    )
    order = np.random.default_rng(train.recipe.seed).choice(
        len(train), count, p=train.balance.chances
    )
    advance = stage("Teaching the random forest", count)
    features, labels = [], []
    for n, index in enumerate(order):
        image, label = train.drawn((train.recipe.seed, n), int(index))
        features.append(described(image))
        labels.append(label)
        advance(1)
    weights = dict(enumerate(train.balance.weights))
    forest = RandomForestClassifier(
        TREES,
        min_samples_leaf=LEAST,
        class_weight=weights,
        random_state=train.recipe.seed,
        n_jobs=-1,
    )
    forest.fit(np.stack(features), labels)
    minutes = (time.monotonic() - began) / 60
    return (
        lambda crops: np.asarray(
            forest.predict_proba(np.stack([described(c) for c in crops])), float
        ),
        0,
        minutes,
    )


def described(crop: NDArray[np.float32]) -> NDArray[np.float32]:
    """(224, 224), 0–1, to features: grey values of ``GREY``² pixels, and how much of the edges in each of ``CELLS``²
    cells runs in each of ``TURNS`` directions (Dalal and Triggs, CVPR 2005)."""
    grey = cv2.resize(crop, (GREY, GREY), interpolation=cv2.INTER_AREA)
    across, down = (cv2.Sobel(crop, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    strength, angle = cv2.cartToPolar(across, down)
    turns = (angle % np.pi / np.pi * TURNS).astype(int) % TURNS
    side = len(crop) // CELLS * CELLS
    edges = [
        np.where(turns == turn, strength, 0)[:side, :side]
        .reshape(CELLS, side // CELLS, CELLS, side // CELLS)
        .sum((1, 3))
        for turn in range(TURNS)
    ]
    cells = np.stack(edges, axis=-1)
    cells /= cells.sum(axis=-1, keepdims=True) + 1e-6
    return np.concatenate([grey.ravel(), cells.ravel()]).astype(np.float32)
