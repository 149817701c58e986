"""Class balance: oversampling and class weights, and the prior correction that undoes both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Balance:
    """Sampling probability of each crop and weight of each class.

    ``sampling`` is (crops,) and sums to 1; ``weights`` is (classes,), scaled so that a sampled
    crop has weight 1 on average. ``natural`` and ``effective`` are (classes,) and sum to 1.
    """

    sampling: Floats
    weights: Floats
    # The classes' shares in the data.
    natural: Floats
    # The classes' shares in training, after sampling and weighting.
    effective: Floats

    @property
    def correction(self) -> Floats:
        """(classes,): added to log-probabilities, it makes the natural shares the prior."""
        return np.log(self.natural) - np.log(self.effective)


def balance(
    labels: Sequence[int], classes: int, oversampling: float, class_weight: float
) -> Balance:
    """The balance of crops with these class labels, each from 0 to ``classes`` - 1.

    ``oversampling`` and ``class_weight`` (0–1): see ``NetworkRecipe``. A class without crops counts
    as if it had half a crop.
    """
    counts = np.maximum(np.bincount(labels, minlength=classes).astype(float), 0.5)
    natural = counts / counts.sum()
    sampling = np.power(natural, -oversampling)[np.asarray(labels)]
    sampling /= sampling.sum()
    sampled = np.power(natural, 1 - oversampling)
    sampled /= sampled.sum()
    weights = np.power(natural, -class_weight)
    weights /= (sampled * weights).sum()
    return Balance(sampling, weights, natural, sampled * weights)
