"""Rare grades seen more often and weighing more; and what that does to a network's probabilities undone again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Balance:
    """Of a set with so many crops of each class: how likely each crop is drawn, and how much each class weighs.

    ``chances`` sum to 1 over the crops; ``weights`` are such that a drawn crop weighs 1 on average.
    """

    chances: Floats
    weights: Floats
    natural: Floats  # the classes' shares as they are
    learnt: Floats  # as the network sees them, drawn and weighed

    @property
    def correction(self) -> Floats:
        """What to add to the network's log-probabilities, so that they hold for the natural shares."""
        return np.log(self.natural) - np.log(self.learnt)


def balance(
    labels: Sequence[int], classes: int, oversampling: float, class_weight: float
) -> Balance:
    """``labels``: each crop's class, 0 to ``classes`` - 1. A class without crops counts as if it had half of one."""
    counts = np.maximum(np.bincount(labels, minlength=classes).astype(float), 0.5)
    natural = counts / counts.sum()
    chances = np.power(natural, -oversampling)[np.asarray(labels)]
    chances /= chances.sum()
    drawn = np.power(natural, 1 - oversampling)
    drawn /= drawn.sum()
    weights = np.power(natural, -class_weight)
    weights /= (drawn * weights).sum()
    return Balance(chances, weights, natural, drawn * weights)
