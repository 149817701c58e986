"""Calibrated probabilities: prior correction, one temperature, one offset per class.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017. All three are folded into the
network's last layer, so every reader of the weights, in any format, gets calibrated probabilities.
"""

import keras
import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import log_softmax, softmax

from lumbar.networks.classifiers import OUTPUT_LAYER

Floats = NDArray[np.floating]
BINS = 10
INVERSE_TEMPERATURE_BOUNDS = (0.25, 4.0)
INVERSE_TEMPERATURE_PENALTY = 1e-6
# Standard deviation of the offsets' Gaussian prior; it keeps a rare class from fitting a few crops.
OFFSET_SD = 0.5
MAX_ITERATIONS = 1000


def apply_calibration(
    probabilities: Floats, correction: Floats, temperature: float = 1.0
) -> NDArray[np.float64]:
    """Adds the correction to the log-probabilities, divides by the temperature and normalises.

    ``probabilities`` (n, classes), 0–1; ``correction`` (classes,); the rows of the result sum to 1.
    """
    return np.asarray(softmax((_logarithms(probabilities) + correction) / temperature, axis=1))


def log_loss(probabilities: Floats, labels: NDArray[np.integer]) -> float:
    """Mean cross-entropy in nats; probabilities (n, classes) are clipped to at least 1e-12."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())


def calibration_loss(
    parameters: Floats, logits: Floats, labels: NDArray[np.integer]
) -> tuple[float, NDArray[np.float64]]:
    """Penalised mean cross-entropy of ``logits`` (n, classes) in nats, and its gradient.

    ``parameters``: the inverse temperature, then an offset per class. A Gaussian prior keeps the
    offsets near 0 (``OFFSET_SD``) and, very weakly, the inverse temperature near 1.
    """
    inverse, offsets, count = parameters[0], parameters[1:], len(labels)
    scaled = inverse * logits + offsets
    residuals = softmax(scaled, axis=1)
    residuals[np.arange(count), labels] -= 1
    surprise = -log_softmax(scaled, axis=1)[np.arange(count), labels].sum()
    strength = np.array([INVERSE_TEMPERATURE_PENALTY, *[1 / OFFSET_SD**2] * len(offsets)])
    deviation = np.array([inverse - 1, *offsets])
    slope = np.array([(residuals * logits).sum(), *residuals.sum(axis=0)]) + strength * deviation
    return float(surprise + strength @ deviation**2 / 2) / count, slope / count


def fit_calibration(
    probabilities: Floats, correction: Floats, labels: NDArray[np.integer], *, offsets: bool = True
) -> tuple[NDArray[np.float64], float]:
    """The correction, with an offset added per class, and the temperature that minimise the loss.

    ``probabilities`` (n, classes), 0–1, uncorrected; ``correction`` (classes,): the prior
    correction, from which the fit starts. The temperature is from 0.25 to 4. Without ``offsets``
    the correction is unchanged: the class shares of the views are an artefact of the data set.
    """
    logits = _logarithms(probabilities) + correction
    classes = logits.shape[1]
    offset_bounds = (None, None) if offsets else (0.0, 0.0)
    fit = optimize.minimize(
        calibration_loss,
        np.array([1.0, *np.zeros(classes)]),
        (logits, labels),
        method="L-BFGS-B",
        jac=True,
        bounds=[INVERSE_TEMPERATURE_BOUNDS, *[offset_bounds] * classes],
        options={"ftol": 0.0, "gtol": 1e-9, "maxiter": MAX_ITERATIONS},
    )
    inverse = float(fit.x[0])
    return correction + fit.x[1:] / inverse, 1 / inverse


def expected_calibration_error(probabilities: Floats, labels: NDArray[np.integer]) -> float:
    """Expected calibration error (ECE) of the highest probability, 0–1, over ``BINS`` bins."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        (bins == b).mean() * abs(confidence[bins == b].mean() - correct[bins == b].mean())
        for b in np.unique(bins)
    ]
    return float(sum(gaps))


def calibrate_network(network: keras.Model, correction: Floats, temperature: float) -> None:
    """Folds the correction (classes,) and the temperature into the network's last layer."""
    layer = network.get_layer(OUTPUT_LAYER)
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel / temperature, (bias + correction) / temperature])


def _logarithms(probabilities: Floats) -> NDArray[np.float64]:
    return np.asarray(np.log(np.maximum(probabilities.astype(float), 1e-12)))
