"""Trains one classifier, epoch by epoch, and can resume.

A training that was killed resumes after its last complete epoch and ends with the same weights.
Everything here is plain Keras and runs on any of its backends.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lumbar import VERSION
from lumbar.errors import WrongSetting
from lumbar.networks.classifiers import CLASSES, build_classifier, predict
from lumbar.networks.weights import read_weights, write_weights
from lumbar.spine.crops import PREPROCESSING_VERSION
from lumbar.training.calibration import apply_calibration, log_loss
from lumbar.training.crop_batches import Epoch, Samples
from lumbar.training.crop_files import CropFile
from lumbar.training.recipes import NetworkRecipe, Phase

Weights = list[NDArray[np.float32]]
Row = dict[str, float]
# Learning rate at a phase's end, relative to its rate; warm-up, as a share of a phase's batches.
FINAL_RATE, WARM_UP = 0.01, 0.05
STATE, BEST, HISTORY = "state.keras", "best.npz", "history.json"
ORIGIN = "origin"


def train_classifier(
    network_recipe: NetworkRecipe,
    train: Samples,
    validation: Samples,
    folder: Path,
    advance: Callable[[int], None],
    imagenet: str | None = None,
) -> tuple[keras.Model, list[Row]]:
    """The network with the weights of the last phase's best epoch, and every epoch's figures.

    ``folder`` holds the state after the last complete epoch and TensorBoard's logs. ``imagenet``:
    the backbone's initial weights (see ``build_classifier``); without them, frozen phases are
    skipped. ``advance`` is called with the number of batches done.

    Raises:
        WrongSetting: ``folder`` has the state of another training.
    """
    keras.config.set_dtype_policy(train.recipe.precision)
    try:
        training = _Training(network_recipe, train, validation, folder, advance, imagenet)
        side = training.run()
    finally:
        keras.config.set_dtype_policy("float32")
    network = build_classifier(train.kind, network_recipe.architecture, side)
    network.set_weights(training.best)
    return network, training.history


def effective_phases(network_recipe: NetworkRecipe, imagenet: str | None) -> list[Phase]:
    """The phases that are used: a backbone with random weights is never frozen."""
    return [phase for phase in network_recipe.phases if imagenet or not phase.frozen]


def batch_count(phase: Phase, samples: Samples) -> int:
    """The number of batches in all epochs of a phase."""
    return phase.epochs * -(-(phase.crops or len(samples)) // samples.recipe.batch)


class _Training:
    def __init__(
        self,
        network_recipe: NetworkRecipe,
        train: Samples,
        validation: Samples,
        folder: Path,
        advance: Callable[[int], None],
        imagenet: str | None,
    ) -> None:
        self.network_recipe, self.train = network_recipe, train
        self.folder, self.advance, self.imagenet = folder, advance, imagenet
        self.origin = _origin(network_recipe, train, validation, imagenet)
        self.history: list[Row] = []
        self.best: Weights = []
        order = np.random.default_rng(train.recipe.seed).permutation(len(validation))
        chosen = np.sort(order[: train.recipe.validation])
        self._crops = np.stack([validation.worker_crop(i) for i in chosen])
        self._labels = np.array(validation.labels)[chosen]

    def run(self) -> int:
        """Runs all phases; returns the input size (pixels) of the last.

        Raises:
            WrongSetting: the folder has the state of another training.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        origin = self.folder / ORIGIN
        if origin.exists() and origin.read_text(encoding="utf-8") != self.origin:
            raise WrongSetting(
                f"{self.folder} has the state of a training with another recipe, other data or "
                "other code; remove it, or name another work folder"
            )
        origin.write_text(self.origin, encoding="utf-8")
        network = self._resume()
        phases = effective_phases(self.network_recipe, self.imagenet)
        for number, phase in enumerate(phases):
            if not self._rows(number) and not self._is_over(number, phase):
                network = self._begin(phase)
            while not self._is_over(number, phase):
                self._epoch(network, number, phase)
                self._save(network)
            skipped = phase.epochs - len(self._rows(number))
            self.advance(skipped * batch_count(phase, self.train) // phase.epochs)
        return phases[-1].side

    def _rows(self, number: int) -> list[Row]:
        return [row for row in self.history if row["phase"] == number]

    def _is_over(self, number: int, phase: Phase) -> bool:
        """Whether all its epochs are done, it was stopped early, or a later phase has begun."""
        losses = [row["validation_loss"] for row in self._rows(number)]
        waited = len(losses) - 1 - int(np.argmin(losses)) if losses else 0
        later = any(row["phase"] > number for row in self.history)
        return len(losses) >= phase.epochs or waited >= self.train.recipe.patience or later

    def _begin(self, phase: Phase) -> keras.Model:
        """The best network so far, or a new one, compiled for the phase."""
        keras.utils.set_random_seed(self.train.recipe.seed + len(self.history))
        weights = None if self.best else self.imagenet
        network = build_classifier(
            self.train.kind, self.network_recipe.architecture, phase.side, weights
        )
        if self.best:
            network.set_weights(self.best)
        network.get_layer("backbone").trainable = not phase.frozen
        steps = batch_count(phase, self.train)
        warm_up = round(WARM_UP * steps)
        rate = keras.optimizers.schedules.CosineDecay(
            phase.rate * FINAL_RATE,
            max(steps - warm_up, 1),
            FINAL_RATE,
            warmup_target=phase.rate,
            warmup_steps=warm_up,
        )
        network.compile(
            keras.optimizers.Adam(rate, clipnorm=1.0),
            "categorical_crossentropy",
            metrics=["accuracy"],
        )
        return network

    def _epoch(self, network: keras.Model, number: int, phase: Phase) -> None:
        """Trains for one epoch, evaluates, and keeps the weights if they are the best."""
        progress = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: self.advance(1)
        )
        epoch = Epoch(self.train, len(self.history), phase.crops)
        _reseed(network, self.train.recipe.seed, len(self.history))
        start = time.monotonic()
        fit = network.fit(epoch, epochs=1, shuffle=False, verbose=0, callbacks=[progress]).history
        raw = predict(network, self._crops, 32)
        probabilities = apply_calibration(raw, self.train.balance.correction)
        row: Row = {
            "phase": number,
            "loss": float(fit["loss"][0]),
            "accuracy": float(fit["accuracy"][0]),
            "validation_loss": log_loss(probabilities, self._labels),
            "validation_accuracy": float((probabilities.argmax(axis=1) == self._labels).mean()),
            "minutes": (time.monotonic() - start) / 60,
        }
        self.history.append(row)
        if row["validation_loss"] == min(r["validation_loss"] for r in self._rows(number)):
            self.best = network.get_weights()
        self._log(row)

    def _log(self, row: Row) -> None:
        """Logs the figures of the last epoch for TensorBoard."""
        from tensorboard.summary import Writer

        writer = Writer(str(self.folder / "logs"))
        for name, value in row.items():
            writer.add_scalar(name, value, len(self.history))
        writer.close()

    def _save(self, network: keras.Model) -> None:
        """Saves the state atomically: the folder is renamed once it is complete."""
        staging, done = self.folder / "staging", self.folder / f"epoch-{len(self.history):04}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        network.save(staging / STATE)
        write_weights(staging / BEST, self.best)
        (staging / HISTORY).write_text(json.dumps(self.history, indent=1), encoding="utf-8")
        staging.rename(done)
        for earlier in self.folder.glob("epoch-*"):
            if earlier != done:
                shutil.rmtree(earlier)

    def _resume(self) -> Any:
        """The network after the last complete epoch; None if there is no state."""
        states = sorted(self.folder.glob("epoch-*"))
        if not states:
            return None
        self.history = json.loads((states[-1] / HISTORY).read_text(encoding="utf-8"))
        self.best = read_weights((states[-1] / BEST).read_bytes())
        for number, phase in enumerate(effective_phases(self.network_recipe, self.imagenet)):
            self.advance(len(self._rows(number)) * batch_count(phase, self.train) // phase.epochs)
        return keras.models.load_model(states[-1] / STATE)


def _origin(
    network_recipe: NetworkRecipe, train: Samples, validation: Samples, imagenet: str | None
) -> str:
    """The identity of a training: a hash of everything that determines its weights."""
    identity: list[Any] = [
        VERSION,
        PREPROCESSING_VERSION,
        CLASSES[train.kind],
        network_recipe.model_dump(mode="json"),
        train.recipe.model_dump(mode="json", exclude={"about", "condition", "severity"}),
    ]
    identity += [_files(item) for samples in (train, validation) for item in samples.items]
    identity += [train.labels, validation.labels]
    if imagenet is not None:
        is_file = Path(imagenet).is_file()
        digest = hashlib.sha256(Path(imagenet).read_bytes()).hexdigest() if is_file else imagenet
        identity.append(digest)
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _files(crops: Sequence[CropFile]) -> list[str]:
    return [crop.file for crop in crops]


def _reseed(network: keras.Model, seed: int, epoch: int) -> None:
    """Seeds dropout for each epoch separately: Keras does not save the generators' state."""
    for number, layer in enumerate((*network.layers, *network.get_layer("backbone").layers)):
        if (generator := getattr(layer, "seed_generator", None)) is not None:
            generator.state.assign(np.array([seed + 1000 * epoch, number], np.uint32))
