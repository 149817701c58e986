"""Probabilities that can be taken at their word: the priors put right, one temperature, an offset for each class.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017. All are folded into the network's last layer, so that
whatever reads the weights, in whatever format, gets calibrated probabilities.
"""

import keras
import numpy as np
from numpy.typing import NDArray

from lumbar.networks.classifiers import OUTPUT_LAYER

Floats = NDArray[np.floating]
BINS = 10
SHARPEST, FLATTEST = 4.0, 0.25  # of one over the temperature
OFFSETS_WITHIN = 0.5  # standard deviation that is expected of an offset: a rare class' is not fitted to a few crops
STEPS = 100


def corrected(
    probabilities: Floats, correction: Floats, temperature: float = 1.0
) -> NDArray[np.float64]:
    """(n, classes) probabilities, their logarithms added to and divided by the temperature; rows sum to 1."""
    logits = (np.log(np.maximum(probabilities.astype(float), 1e-12)) + correction) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    exponents = np.exp(logits)
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def log_loss(probabilities: Floats, labels: NDArray[np.integer]) -> float:
    """Mean surprise in nats at the true classes."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())


def fitted(
    probabilities: Floats, correction: Floats, labels: NDArray[np.integer], *, offsets: bool = True
) -> tuple[NDArray[np.float64], float]:
    """The correction with an offset added for each class, and the temperature, .25 to 4, that lose least together.

    Without ``offsets`` the correction stays as it is: of views, the shares of the classes are the data set's making.
    The priors' correction is where the fit begins; it is a logistic regression on the logarithms, by Newton's method.
    """
    logits = np.log(np.maximum(probabilities.astype(float), 1e-12)) + correction
    count, classes = logits.shape
    # what each unknown adds to each logit: one over the temperature, then an offset a class
    adds = np.concatenate(
        [logits[:, None, :], np.broadcast_to(np.eye(classes), (count, classes, classes))], axis=1
    )
    expected = np.concatenate([[1.0], np.zeros(classes)])
    strength = np.diag([1e-6, *[1 / OFFSETS_WITHIN**2 if offsets else 1e12] * classes])
    unknowns, truth = expected.copy(), np.eye(classes)[labels]
    for _ in range(STEPS):
        given = np.einsum("nuc,u->nc", adds, unknowns)
        given = np.exp(given - given.max(axis=1, keepdims=True))
        given /= given.sum(axis=1, keepdims=True)
        mean = np.einsum("nuc,nc->nu", adds, given)
        slope = np.einsum("nuc,nc->u", adds, given - truth) + strength @ (unknowns - expected)
        bend = np.einsum("nuc,nvc,nc->uv", adds, adds, given) - mean.T @ mean + strength
        step = np.linalg.solve(bend, slope)
        unknowns = unknowns - step
        unknowns[0] = np.clip(unknowns[0], FLATTEST, SHARPEST)
        if np.abs(step).max() < 1e-6:
            break
    return correction + unknowns[1:] / unknowns[0], float(1 / unknowns[0])


def expected_calibration_error(probabilities: Floats, labels: NDArray[np.integer]) -> float:
    """Between the highest probability and how often it is right, 0–1, over ``BINS`` bins of equal width."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    shares = [
        (bins == b).mean() * abs(sure[bins == b].mean() - right[bins == b].mean())
        for b in np.unique(bins)
    ]
    return float(sum(shares))


def calibrate(network: keras.Model, correction: Floats, temperature: float) -> None:
    """Changes the network's last layer so that it gives what ``corrected`` makes of it."""
    layer = network.get_layer(OUTPUT_LAYER)
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel / temperature, (bias + correction) / temperature])
