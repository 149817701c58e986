"""The crops in batches: drawn, distorted and weighed; batch n of epoch e is the same on every run."""

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
from lumbar.training.crop_files import Cut, as_read, read_cut
from lumbar.training.recipes import Course, Recipe

Kind = Literal["condition", "severity"]


class Samples:
    """What one network learns from: each finding's crops, the labelled slice's first; off target, a crop alone."""

    def __init__(self, kind: Kind, cuts: Sequence[Cut], folder: Path, recipe: Recipe) -> None:
        self.kind, self.folder, self.recipe = kind, folder, recipe
        findings: dict[tuple[str, str, str], list[Cut]] = {}
        for cut in cuts:
            if cut.on_target:
                findings.setdefault((cut.study, cut.condition, cut.level), []).append(cut)
        self.items: list[list[Cut]] = [
            sorted(own, key=lambda cut: cut.rank) for own in findings.values()
        ]
        if kind == "condition":
            off = [[cut] for cut in cuts if not cut.on_target]
            step = len(off) / max(1, round(len(self.items) * recipe.off_target))
            self.items += (
                [off[int(i * step)] for i in range(len(off)) if int(i * step) < len(off)]
                if step >= 1
                else off
            )
        self.labels = [label_of(kind, own[0]) for own in self.items]
        course: Course = getattr(recipe, kind)
        self.balance: Balance = balance(
            self.labels, len(CLASSES[kind]), course.oversampling, course.class_weight
        )

    def __len__(self) -> int:
        return len(self.items)

    def drawn(self, seed: tuple[int, ...], index: int) -> tuple[NDArray[np.float32], int]:
        """One item's crop as the network learns from it, and its label then."""
        rng = np.random.default_rng(seed)
        own = self.items[index]
        rank = (
            int(rng.integers(1, len(own)))
            if len(own) > 1 and rng.random() < self.recipe.neighbour
            else 0
        )
        cut = own[rank]
        image, condition = augmented(
            rng, read_cut(self.folder, cut), Condition(cut.condition), self.recipe.augmentation
        )
        return image, label_of(self.kind, cut, condition)

    def as_read(self, index: int) -> NDArray[np.float32]:
        """One item's crop as the worker would see it."""
        return as_read(read_cut(self.folder, self.items[index][0]))


class Epoch(keras.utils.PyDataset):  # type: ignore[misc]
    """The batches of one epoch: (n, 224, 224) crops, one-hot labels, weights."""

    def __init__(self, samples: Samples, epoch: int, crops: int | None) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=8)
        self._samples, self._epoch = samples, epoch
        recipe = samples.recipe
        rng = np.random.default_rng((recipe.seed, epoch))
        count = -(-(crops or len(samples)) // recipe.batch) * recipe.batch
        self._order = rng.choice(len(samples), count, p=samples.balance.chances)

    def __len__(self) -> int:
        return len(self._order) // self._samples.recipe.batch

    def __getitem__(
        self, index: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        batch, samples = self._samples.recipe.batch, self._samples
        places = range(index * batch, (index + 1) * batch)
        drawn = [
            samples.drawn((samples.recipe.seed, self._epoch, n), int(self._order[n]))
            for n in places
        ]
        labels = np.array([label for _, label in drawn])
        one_hot = np.eye(len(CLASSES[samples.kind]), dtype=np.float32)[labels]
        return (
            np.stack([image for image, _ in drawn]),
            one_hot,
            samples.balance.weights[labels].astype(np.float32),
        )


def label_of(kind: Kind, cut: Cut, condition: Condition | None = None) -> int:
    """The class of a crop, of ``CLASSES[kind]``; ``condition``: what it shows once it is mirrored."""
    if kind == "severity":
        return CLASSES[kind].index(cut.severity)
    return CLASSES[kind].index(condition or cut.condition if cut.on_target else NO_CONDITION)
