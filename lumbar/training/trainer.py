"""Teaching one classifier, epoch by epoch. Killed and started again, it goes on after the last whole epoch, and ends
with the weights it would have had.

Everything here is Keras alone, on whatever backend there is.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
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
from lumbar.training.calibration import corrected, log_loss
from lumbar.training.crop_batches import Epoch, Samples
from lumbar.training.recipes import Course, Phase

Weights = list[NDArray[np.float32]]
Row = dict[str, float]
LOWEST, WARM_UP = 0.01, 0.05  # of the rate, at a phase's end; of a phase's batches
STATE, BEST, HISTORY = "state.keras", "best.npz", "history.json"
ORIGIN = "origin"


def teach(
    course: Course,
    train: Samples,
    validation: Samples,
    folder: Path,
    advance: Callable[[int], None],
    imagenet: str | None = None,
) -> tuple[keras.Model, list[Row]]:
    """The network at the best epoch of the last phase, and what was measured after every epoch.

    ``folder`` keeps the state after the last whole epoch, and TensorBoard's logs. ``imagenet``: the backbone's weights
    to start from (see ``build_classifier``); without them there is no frozen phase. ``advance`` gets the number of
    batches done. Raises WrongSetting where ``folder`` has the state of another teaching.
    """
    keras.config.set_dtype_policy(train.recipe.precision)
    try:
        teaching = _Teaching(course, train, validation, folder, advance, imagenet)
        side = teaching.run()
    finally:
        keras.config.set_dtype_policy("float32")
    network = build_classifier(train.kind, course.architecture, side)
    network.set_weights(teaching.best)
    return network, teaching.history


def phases_of(course: Course, imagenet: str | None) -> list[Phase]:
    """Those that are gone through: a random backbone is not frozen."""
    return [phase for phase in course.phases if imagenet or not phase.frozen]


def batches_of(phase: Phase, samples: Samples) -> int:
    """In all its epochs."""
    return phase.epochs * -(-(phase.crops or len(samples)) // samples.recipe.batch)


class _Teaching:
    def __init__(
        self,
        course: Course,
        train: Samples,
        validation: Samples,
        folder: Path,
        advance: Callable[[int], None],
        imagenet: str | None,
    ) -> None:
        self.course, self.train = course, train
        self.folder, self.advance, self.imagenet = folder, advance, imagenet
        self.origin = _origin(course, train, validation, imagenet)
        self.history: list[Row] = []
        self.best: Weights = []
        drawn = np.random.default_rng(train.recipe.seed).permutation(len(validation))
        looked_at = np.sort(drawn[: train.recipe.validation])
        self._seen = np.stack([validation.as_read(i) for i in looked_at])
        self._labels = np.array(validation.labels)[looked_at]

    def run(self) -> int:
        """Goes through all phases; the last one's side."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = self.folder / ORIGIN
        if kept.exists() and kept.read_text(encoding="utf-8") != self.origin:
            raise WrongSetting(
                f"{self.folder} has the state of a teaching by another recipe, from other data or by other code; "
                "remove it, or name another folder to work in"
            )
        kept.write_text(self.origin, encoding="utf-8")
        network = self._resumed()
        phases = phases_of(self.course, self.imagenet)
        for number, phase in enumerate(phases):
            if not self._rows(number) and not self._is_over(number, phase):
                network = self._begin(phase)
            while not self._is_over(number, phase):
                self._epoch(network, number, phase)
                self._keep(network)
            left = phase.epochs - len(self._rows(number))
            self.advance(left * batches_of(phase, self.train) // phase.epochs)
        return phases[-1].side

    def _rows(self, number: int) -> list[Row]:
        return [row for row in self.history if row["phase"] == number]

    def _is_over(self, number: int, phase: Phase) -> bool:
        """All its epochs done, or none better for as long as one waits, or a later one begun."""
        losses = [row["validation_loss"] for row in self._rows(number)]
        waited = len(losses) - 1 - int(np.argmin(losses)) if losses else 0
        later = any(row["phase"] > number for row in self.history)
        return len(losses) >= phase.epochs or waited >= self.train.recipe.patience or later

    def _begin(self, phase: Phase) -> keras.Model:
        """The best network so far, or a new one, ready to learn at the phase's size and rate."""
        keras.utils.set_random_seed(self.train.recipe.seed + len(self.history))
        weights = None if self.best else self.imagenet
        network = build_classifier(self.train.kind, self.course.architecture, phase.side, weights)
        if self.best:
            network.set_weights(self.best)
        network.get_layer("backbone").trainable = not phase.frozen
        steps = batches_of(phase, self.train)
        warm = round(WARM_UP * steps)
        rate = keras.optimizers.schedules.CosineDecay(
            phase.rate * LOWEST,
            max(steps - warm, 1),
            LOWEST,
            warmup_target=phase.rate,
            warmup_steps=warm,
        )
        network.compile(
            keras.optimizers.Adam(rate, clipnorm=1.0),
            "categorical_crossentropy",
            metrics=["accuracy"],
        )
        return network

    def _epoch(self, network: keras.Model, number: int, phase: Phase) -> None:
        told = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: self.advance(1)
        )
        epoch = Epoch(self.train, len(self.history), phase.crops)
        _reseed(network, self.train.recipe.seed, len(self.history))
        began = time.monotonic()
        learnt = network.fit(epoch, epochs=1, shuffle=False, verbose=0, callbacks=[told]).history
        raw = predict(network, self._seen, 32)
        probabilities = corrected(raw, self.train.balance.correction)
        row: Row = {
            "phase": number,
            "loss": float(learnt["loss"][0]),
            "accuracy": float(learnt["accuracy"][0]),
            "validation_loss": log_loss(probabilities, self._labels),
            "validation_accuracy": float((probabilities.argmax(axis=1) == self._labels).mean()),
            "minutes": (time.monotonic() - began) / 60,
        }
        self.history.append(row)
        if row["validation_loss"] == min(r["validation_loss"] for r in self._rows(number)):
            self.best = network.get_weights()
        self._log(row)

    def _log(self, row: Row) -> None:
        """For TensorBoard."""
        from tensorboard.summary import Writer

        writer = Writer(str(self.folder / "logs"))
        for name, value in row.items():
            writer.add_scalar(name, value, len(self.history))
        writer.close()

    def _keep(self, network: keras.Model) -> None:
        """Whole or not at all: the folder's name is the last thing that is changed."""
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

    def _resumed(self) -> Any:
        kept = sorted(self.folder.glob("epoch-*"))
        if not kept:
            return None
        self.history = json.loads((kept[-1] / HISTORY).read_text(encoding="utf-8"))
        self.best = read_weights((kept[-1] / BEST).read_bytes())
        for number, phase in enumerate(phases_of(self.course, self.imagenet)):
            self.advance(len(self._rows(number)) * batches_of(phase, self.train) // phase.epochs)
        return keras.models.load_model(kept[-1] / STATE)


def _origin(course: Course, train: Samples, validation: Samples, imagenet: str | None) -> str:
    """Of everything that decides what is learnt."""
    said: list[Any] = [
        VERSION,
        PREPROCESSING_VERSION,
        CLASSES[train.kind],
        course.model_dump(mode="json"),
    ]
    said += [train.recipe.model_dump(mode="json", exclude={"about", "condition", "severity"})]
    said += [
        [cut.file for cut in item] for samples in (train, validation) for item in samples.items
    ]
    said += [train.labels, validation.labels]
    if imagenet is not None:
        is_file = Path(imagenet).is_file()
        said += [hashlib.sha256(Path(imagenet).read_bytes()).hexdigest() if is_file else imagenet]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _reseed(network: keras.Model, seed: int, epoch: int) -> None:
    """Dropout of each epoch by itself: Keras does not keep its state in a file."""
    for number, layer in enumerate((*network.layers, *network.get_layer("backbone").layers)):
        if (generator := getattr(layer, "seed_generator", None)) is not None:
            generator.state.assign(np.array([seed + 1000 * epoch, number], np.uint32))
