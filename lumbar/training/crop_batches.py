"""Sampled, augmented and weighted batches of crops, reproducible from seed, epoch and batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import keras
import numpy as np
from numpy.typing import NDArray

from lumbar.networks.classifiers import CLASSES, NO_CONDITION
from lumbar.spine.anatomy import Condition
from lumbar.training.augment import augmented
from lumbar.training.balance import Balance, balance
from lumbar.training.crop_files import CropFile, read_crop, worker_crop
from lumbar.training.recipes import NetworkRecipe, Recipe

Kind = Literal["condition", "severity"]


class Samples:
    """The training samples of one network.

    ``items`` has a list of crops per finding, that of the annotated slice first, and a list of one
    crop per off-target sample; ``labels`` has the class of each item.
    """

    def __init__(self, kind: Kind, crops: Sequence[CropFile], folder: Path, recipe: Recipe) -> None:
        self.kind, self.folder, self.recipe = kind, folder, recipe
        findings: dict[tuple[str, str, str], list[CropFile]] = {}
        for crop in crops:
            if crop.on_target:
                findings.setdefault((crop.study, crop.condition, crop.level), []).append(crop)
        self.items = [sorted(group, key=lambda crop: crop.rank) for group in findings.values()]
        if kind == "condition":
            off_target = [[crop] for crop in crops if not crop.on_target]
            self.items += _evenly_chosen(off_target, round(len(self.items) * recipe.off_target))
        self.labels = [label_of(kind, group[0]) for group in self.items]
        network: NetworkRecipe = getattr(recipe, kind)
        self.balance: Balance = balance(
            self.labels, len(CLASSES[kind]), network.oversampling, network.class_weight
        )

    def __len__(self) -> int:
        return len(self.items)

    def augmented_crop(self, seed: tuple[int, ...], index: int) -> tuple[NDArray[np.float32], int]:
        """A random crop of one item for training, (224, 224), 0–1, and its label."""
        rng = np.random.default_rng(seed)
        group = self.items[index]
        rank = 0
        if len(group) > 1 and rng.random() < self.recipe.neighbour:
            rank = int(rng.integers(1, len(group)))
        crop = group[rank]
        image, condition = augmented(
            rng, read_crop(self.folder, crop), Condition(crop.condition), self.recipe.augmentation
        )
        return image, label_of(self.kind, crop, condition)

    def worker_crop(self, index: int) -> NDArray[np.float32]:
        """One item's crop as the worker would cut it, (224, 224), 0–1."""
        return worker_crop(read_crop(self.folder, self.items[index][0]))


def _evenly_chosen(items: list[list[CropFile]], count: int) -> list[list[CropFile]]:
    """About ``count`` of the items, evenly spaced; all if there are fewer."""
    step = len(items) / max(1, count)
    if step < 1:
        return items
    return [items[int(i * step)] for i in range(len(items)) if int(i * step) < len(items)]


class Epoch(keras.utils.PyDataset):  # type: ignore[misc]
    """The batches of one epoch: (n, 224, 224) crops, (n, classes) one-hot labels, (n,) weights."""

    def __init__(self, samples: Samples, epoch: int, crops: int | None) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=8)
        self._samples, self._epoch = samples, epoch
        recipe = samples.recipe
        rng = np.random.default_rng((recipe.seed, epoch))
        count = -(-(crops or len(samples)) // recipe.batch) * recipe.batch
        self._order = rng.choice(len(samples), count, p=samples.balance.sampling)

    def __len__(self) -> int:
        return len(self._order) // self._samples.recipe.batch

    def __getitem__(
        self, index: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        batch, samples = self._samples.recipe.batch, self._samples
        examples = [
            samples.augmented_crop((samples.recipe.seed, self._epoch, n), int(self._order[n]))
            for n in range(index * batch, (index + 1) * batch)
        ]
        labels = np.array([label for _, label in examples])
        one_hot = np.eye(len(CLASSES[samples.kind]), dtype=np.float32)[labels]
        weights = samples.balance.weights[labels].astype(np.float32)
        return np.stack([image for image, _ in examples]), one_hot, weights


def label_of(kind: Kind, crop: CropFile, condition: Condition | None = None) -> int:
    """The class of a crop, an index of ``CLASSES[kind]``.

    ``condition``: what the crop shows after mirroring, if that differs from its file.
    """
    if kind == "severity":
        return CLASSES[kind].index(crop.severity)
    return CLASSES[kind].index(condition or crop.condition if crop.on_target else NO_CONDITION)
