"""From a data set to a bundle: read, screen, split, cut, teach both classifiers, calibrate, write."""

import csv
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
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
from lumbar.training.calibration import calibrate, corrected, expected_calibration_error, fitted
from lumbar.training.crop_batches import Kind, Samples
from lumbar.training.crop_files import SPLIT, Cut, cut_crops
from lumbar.training.demographics import parts_of, people_of, split_sha256
from lumbar.training.metrics import views_right
from lumbar.training.plots import draw_counts, draw_history
from lumbar.training.recipes import Recipe
from lumbar.training.rsna_dataset import Dropped, read_data_set
from lumbar.training.split import Part
from lumbar.training.trainer import batches_of, phases_of, teach

Stage = Callable[[str, int], Callable[[int], None]]
DROPPED = "dropped.csv"


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
    """Writes a bundle. ``work`` keeps crops, states, logs and plots; what is done is not done again.

    ``stage`` gets each stage's name and length, and gives what is called with each step's size. ``imagenet``: what
    backbones start from, by ``condition`` and ``severity``. Raises WrongSetting where the data are not in the layout.
    """
    work.mkdir(parents=True, exist_ok=True)
    cuts, dropped, parts = prepare(data, work, recipe.seed, stage)
    train, validation = (
        [cut for cut in cuts if parts[cut.study] is part] for part in (Part.TRAIN, Part.VALIDATION)
    )
    if not train or not validation:
        raise WrongSetting(
            "too few labelled patients: at least ten are needed, eight of them to learn from"
        )
    networks: dict[str, keras.Model] = {}
    sides: dict[str, int] = {}
    measured: dict[str, Any] = {}
    kinds: tuple[Kind, ...] = ("condition", "severity")
    for kind in kinds:
        course = getattr(recipe, kind)
        own, held = (Samples(kind, part, work, recipe) for part in (train, validation))
        weights = (imagenet or {}).get(kind)
        length = sum(batches_of(phase, own) for phase in phases_of(course, weights))
        advance = stage(f"Teaching {course.architecture}, {kind}", length)
        network, history = teach(course, own, held, work / kind, advance, weights)
        draw_history(history, kind, work / f"{kind}.png")
        seen = np.stack([held.as_read(i) for i in range(len(held))])
        raw, labels = predict(network, seen, 32), np.array(held.labels)
        correction, temperature = fitted(
            raw, own.balance.correction, labels, offsets=kind == "severity"
        )
        calibrate(network, correction, temperature)
        probabilities = corrected(raw, correction, temperature)
        networks[kind], sides[kind] = network, course.phases[-1].side
        measured[kind] = {
            "temperature": round(temperature, 4),
            "log_prior_correction": [round(float(c), 4) for c in own.balance.correction],
            "log_correction": [round(float(c), 4) for c in correction],
            "validation_calibration_error": round(
                expected_calibration_error(probabilities, labels), 4
            ),
            "validation_accuracy": round(float(_right(kind, probabilities, labels).mean()), 4),
            "epochs": len(history),
            "started_from": "ImageNet's weights" if weights else "random weights",
        }
    synthetic = any(cut.synthetic for cut in cuts)
    about = {
        "code_version": VERSION,
        "command": shlex.join(["lumbar", *sys.argv[1:]]),
        "data": {
            "phantoms": json.loads((data / ORIGIN).read_text(encoding="utf-8"))
            if (data / ORIGIN).is_file()
            else None,
            "split_seed": recipe.seed,
            "split_sha256": split_sha256(parts),
            "patients": {
                part: len({cut.patient for cut in cuts if parts[cut.study] is part})
                for part in Part
            },
            "findings": {part: _counts(cuts, parts, part) for part in Part},
            "dropped": len(dropped),
        },
        "recipe": recipe.model_dump(mode="json"),
        "training": measured,
    }
    architectures = {kind: getattr(recipe, kind).architecture for kind in CLASSES}
    learnt_from = TrainedOn.SYNTHETIC if synthetic else TrainedOn.CLINICAL
    return write_bundle(out, name, version, learnt_from, networks, sides, about, architectures)


def prepare(
    data: Path, work: Path, seed: int, stage: Stage
) -> tuple[list[Cut], list[Dropped], dict[str, Part]]:
    """The crops of a data set, what was dropped and why (``dropped.csv``), and each study's part (``split.csv``)."""
    found = read_data_set(data)
    cuts, lost = cut_crops(found.studies, work, stage("Cutting crops", len(found.studies)))
    dropped = [*found.dropped, *lost]
    if not cuts:
        raise WrongSetting(
            f"nothing in {data} can be learnt from; the first reason: {dropped[0].why}"
        )
    parts = parts_of(found.studies, people_of(found.studies), seed)
    _write(
        work / DROPPED,
        ("study_id", "finding", "why"),
        [(d.study, d.finding, d.why) for d in dropped],
    )
    _write(work / SPLIT, ("study_id", "part"), list(parts.items()))
    draw_counts([cut for cut in cuts if cut.on_target and cut.rank == 0], work / "counts.png")
    return cuts, dropped, parts


def _right(
    kind: Kind, probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    return (
        views_right(probabilities, labels)
        if kind == "condition"
        else probabilities.argmax(axis=1) == labels
    )


def _counts(cuts: Sequence[Cut], parts: dict[str, Part], part: Part) -> dict[str, int]:
    own = [
        cut.severity for cut in cuts if cut.on_target and cut.rank == 0 and parts[cut.study] is part
    ]
    return {severity: own.count(severity) for severity in Severity}


def _write(path: Path, header: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)
