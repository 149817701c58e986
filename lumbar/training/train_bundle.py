"""Trains a bundle on a data set: excludes, splits, crops, trains both classifiers, calibrates."""

import csv
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lumbar import VERSION
from lumbar.errors import WrongSetting
from lumbar.networks.bundle import write_bundle
from lumbar.networks.classifiers import CLASSES, predict
from lumbar.phantoms.dataset import ORIGIN
from lumbar.spine.anatomy import Severity
from lumbar.spine.provenance import BundleIdentity, TrainedOn
from lumbar.training.calibration import (
    apply_calibration,
    calibrate_network,
    expected_calibration_error,
    fit_calibration,
)
from lumbar.training.crop_batches import Kind, Samples
from lumbar.training.crop_files import SPLIT, CropFile, extract_crops
from lumbar.training.demographics import demographics_by_study, parts_by_study, split_sha256
from lumbar.training.metrics import correct_views
from lumbar.training.plots import draw_counts, draw_history
from lumbar.training.recipes import NetworkRecipe, Recipe
from lumbar.training.rsna_dataset import Exclusion, read_data_set
from lumbar.training.split import Part
from lumbar.training.trainer import batch_count, effective_phases, train_classifier

Stage = Callable[[str, int], Callable[[int], None]]
DROPPED = "dropped.csv"
KINDS: tuple[Kind, ...] = ("condition", "severity")


@dataclass(frozen=True)
class _CalibratedNetwork:
    """A calibrated network, its input size in pixels, and its description in ``bundle.json``."""

    network: keras.Model
    side: int
    description: dict[str, Any]


def train_bundle(
    data: Path,
    out: Path,
    work: Path,
    recipe: Recipe,
    stage: Stage,
    *,
    name: str,
    version: str,
    imagenet: Mapping[str, str] | None = None,
) -> BundleIdentity:
    """Trains and writes a bundle.

    ``work`` holds crops, training states, logs and plots; completed steps are not repeated.
    ``stage`` receives each stage's name and length, and returns a callback for steps done.
    ``imagenet``: the backbones' initial weights by ``condition`` and ``severity``.

    Raises:
        WrongSetting: the data are not in the RSNA 2024 layout, or have too few labelled patients.
    """
    crops, exclusions, parts = prepare(data, work, recipe.seed, stage)
    train = [crop for crop in crops if parts[crop.study] is Part.TRAIN]
    validation = [crop for crop in crops if parts[crop.study] is Part.VALIDATION]
    if not train or not validation:
        raise WrongSetting(
            "too few labelled patients: at least ten are needed, eight of them for training"
        )
    networks = {}
    for kind in KINDS:
        samples = Samples(kind, train, work, recipe), Samples(kind, validation, work, recipe)
        networks[kind] = _train(*samples, work, stage, (imagenet or {}).get(kind))
    synthetic = any(crop.synthetic for crop in crops)
    description = {
        "code_version": VERSION,
        "command": shlex.join(["lumbar", *sys.argv[1:]]),
        "data": {
            "phantoms": _phantoms(data),
            "split_seed": recipe.seed,
            "split_sha256": split_sha256(parts),
            "patients": {part: _patients(crops, parts, part) for part in Part},
            "findings": {part: _counts(crops, parts, part) for part in Part},
            "dropped": len(exclusions),
        },
        "recipe": recipe.model_dump(mode="json"),
        "training": {kind: trained.description for kind, trained in networks.items()},
    }
    return write_bundle(
        out,
        name,
        version,
        TrainedOn.SYNTHETIC if synthetic else TrainedOn.CLINICAL,
        {kind: trained.network for kind, trained in networks.items()},
        {kind: trained.side for kind, trained in networks.items()},
        description,
        {kind: getattr(recipe, kind).architecture for kind in CLASSES},
    )


def prepare(
    data: Path, work: Path, seed: int, stage: Stage
) -> tuple[list[CropFile], list[Exclusion], dict[str, Part]]:
    """The crops of a data set, the exclusions, and each study's part.

    Also writes ``dropped.csv``, ``split.csv`` and ``counts.png`` to ``work``.

    Raises:
        WrongSetting: the data are not in the RSNA 2024 layout, or nothing in them is usable.
    """
    data_set = read_data_set(data)
    studies = data_set.studies
    work.mkdir(parents=True, exist_ok=True)
    crops, excluded = extract_crops(studies, work, stage("Cutting crops", len(studies)))
    exclusions = [*data_set.exclusions, *excluded]
    if not crops:
        raise WrongSetting(
            f"nothing in {data} can be used for training; the first reason: {exclusions[0].reason}"
        )
    parts = parts_by_study(studies, demographics_by_study(studies), seed)
    _write(
        work / DROPPED,
        ("study_id", "finding", "why"),
        [(e.study, e.finding, e.reason) for e in exclusions],
    )
    _write(work / SPLIT, ("study_id", "part"), list(parts.items()))
    draw_counts([crop for crop in crops if crop.on_target and crop.rank == 0], work / "counts.png")
    return crops, exclusions, parts


def _train(
    train: Samples, validation: Samples, work: Path, stage: Stage, imagenet: str | None
) -> _CalibratedNetwork:
    """Trains one network and calibrates it on the validation part."""
    kind = train.kind
    network_recipe: NetworkRecipe = getattr(train.recipe, kind)
    phases = effective_phases(network_recipe, imagenet)
    length = sum(batch_count(phase, train) for phase in phases)
    advance = stage(f"Training {network_recipe.architecture}, {kind}", length)
    network, history = train_classifier(
        network_recipe, train, validation, work / kind, advance, imagenet
    )
    draw_history(history, kind, work / f"{kind}.png")
    crops = np.stack([validation.worker_crop(i) for i in range(len(validation))])
    raw, labels = predict(network, crops, 32), np.array(validation.labels)
    priors = train.balance.correction
    correction, temperature = fit_calibration(raw, priors, labels, offsets=kind == "severity")
    calibrate_network(network, correction, temperature)
    probabilities = apply_calibration(raw, correction, temperature)
    calibration_error = expected_calibration_error(probabilities, labels)
    description = {
        "temperature": round(temperature, 4),
        "log_prior_correction": [round(float(c), 4) for c in priors],
        "log_correction": [round(float(c), 4) for c in correction],
        "validation_calibration_error": round(calibration_error, 4),
        "validation_accuracy": round(float(_correct(kind, probabilities, labels).mean()), 4),
        "epochs": len(history),
        "started_from": "ImageNet's weights" if imagenet else "random weights",
    }
    return _CalibratedNetwork(network, network_recipe.phases[-1].side, description)


def _correct(
    kind: Kind, probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    return (
        correct_views(probabilities, labels)
        if kind == "condition"
        else probabilities.argmax(axis=1) == labels
    )


def _phantoms(data: Path) -> Any:
    """What the phantoms were made from; None for other data."""
    origin = data / ORIGIN
    return json.loads(origin.read_text(encoding="utf-8")) if origin.is_file() else None


def _patients(crops: Sequence[CropFile], parts: Mapping[str, Part], part: Part) -> int:
    return len({crop.patient for crop in crops if parts[crop.study] is part})


def _counts(crops: Sequence[CropFile], parts: Mapping[str, Part], part: Part) -> dict[str, int]:
    """The part's findings by severity."""
    findings = [crop for crop in crops if crop.on_target and crop.rank == 0]
    severities = [crop.severity for crop in findings if parts[crop.study] is part]
    return {severity: severities.count(severity) for severity in Severity}


def _write(path: Path, header: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)
