"""Probabilities that can be taken at their word: the priors put right, one temperature, and how far off they are.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017. Both are folded into the network's last layer, so that
whatever reads the weights, in whatever format, gets calibrated probabilities.
"""

import keras
import numpy as np
from numpy.typing import NDArray

from lumbar.networks.classifiers import LAST

Floats = NDArray[np.floating]
BINS = 10
_TEMPERATURES = np.exp(np.linspace(np.log(0.25), np.log(4), 400))


def corrected(probabilities: Floats, correction: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """(n, classes) probabilities, their logarithms added to and divided by the temperature; rows sum to 1."""
    logits = (np.log(np.maximum(probabilities.astype(float), 1e-12)) + correction) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    exponents = np.exp(logits)
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def log_loss(probabilities: Floats, labels: NDArray[np.integer]) -> float:
    """Mean surprise in nats at the true classes."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())


def fitted_temperature(probabilities: Floats, correction: Floats, labels: NDArray[np.integer]) -> float:
    """The temperature, .25 to 4, with the lowest loss after the correction."""
    return float(min(_TEMPERATURES, key=lambda t: log_loss(corrected(probabilities, correction, t), labels)))


def expected_calibration_error(probabilities: Floats, labels: NDArray[np.integer]) -> float:
    """Between the highest probability and how often it is right, 0–1, over ``BINS`` bins of equal width."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    shares = [(bins == b).mean() * abs(sure[bins == b].mean() - right[bins == b].mean()) for b in np.unique(bins)]
    return float(sum(shares))


def calibrate(network: keras.Model, correction: Floats, temperature: float) -> None:
    """Changes the network's last layer so that it gives what ``corrected`` makes of it."""
    layer = network.get_layer(LAST)
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel / temperature, (bias + correction) / temperature])
