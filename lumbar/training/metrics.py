"""Figures of graded findings, the competition's loss, and bootstrap intervals.

Probabilities are (n, 3) for normal/mild, moderate and severe, labels and predictions (n,), 0 to 2.
"""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.exceptions import UndefinedMetricWarning

from lumbar.networks.classifiers import CLASSES as ALL_CLASSES
from lumbar.spine.anatomy import Condition, Severity
from lumbar.training.calibration import expected_calibration_error, log_loss

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
CLASSES = tuple(range(len(Severity)))
SEVERE = 2
VIEWS = ALL_CLASSES["condition"]
FORAMINA = (Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Condition.RIGHT_NEURAL_FORAMINAL_NARROWING)
# Weights of normal/mild, moderate and severe in the competition's loss.
COMPETITION_WEIGHTS = (1.0, 2.0, 4.0)
# The competition's lower limit of a probability.
CLIP = 1e-15


def figures(probabilities: Floats, labels: Labels) -> dict[str, float]:
    """Figures by name; NaN where undefined.

    Precision, recall and F1 are macro averages over the severities that occur in the labels.
    """
    predictions = probabilities.argmax(axis=1)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, predictions, labels=np.unique(labels), average="macro", zero_division=0.0
    )
    return {
        **agreement(predictions, labels),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "auc": _auc(probabilities, labels),
        "log_loss": log_loss(probabilities, labels),
        "calibration_error": expected_calibration_error(probabilities, labels),
        "majority_accuracy": float(np.bincount(labels).max() / len(labels)),
    }


def agreement(predictions: Labels, labels: Labels) -> dict[str, float]:
    """The figures that need no probabilities; also used to compare a reader with the truth."""
    return {
        "accuracy": float(metrics.accuracy_score(labels, predictions)),
        "balanced_accuracy": balanced_accuracy(predictions, labels),
        "quadratic_kappa": quadratic_kappa(predictions, labels),
    }


def balanced_accuracy(predictions: Labels, labels: Labels) -> float:
    """Mean recall, 0–1, of the severities that occur in the labels."""
    with warnings.catch_warnings():
        # A predicted severity may not occur in the labels.
        warnings.simplefilter("ignore", UserWarning)
        return float(metrics.balanced_accuracy_score(labels, predictions))


def quadratic_kappa(predictions: Labels, labels: Labels) -> float:
    """Cohen's kappa with quadratic weights; NaN if both consist of the same single class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        kappa = metrics.cohen_kappa_score(
            labels, predictions, labels=list(CLASSES), weights="quadratic"
        )
    return float(kappa)


def _auc(probabilities: Floats, labels: Labels) -> float:
    """Mean one-versus-rest AUC of the severities that occur, if at least two do."""
    areas = [
        float(metrics.roc_auc_score(labels == c, probabilities[:, c]))
        for c in CLASSES
        if 0 < (labels == c).mean() < 1
    ]
    return float(np.mean(areas)) if areas else float("nan")


def confusion(predictions: Labels, labels: Labels) -> NDArray[np.int64]:
    """(3, 3) counts: rows are the labels, columns the predictions."""
    return np.asarray(metrics.confusion_matrix(labels, predictions, labels=list(CLASSES)))


def correct_views(probabilities: Floats, labels: Labels) -> NDArray[np.bool_]:
    """(n,): whether the most probable view is the true one.

    ``probabilities`` is (n, 6), of ``CLASSES["condition"]``, and ``labels`` has indices of it. A
    sagittal crop cannot show its side, which follows from geometry: the probabilities of the left
    and right foramen are summed and count as one view.
    """
    left, right = (VIEWS.index(condition) for condition in FORAMINA)
    summed = probabilities.copy()
    summed[:, left] += summed[:, right]
    summed[:, right] = -1
    return np.asarray(summed.argmax(axis=1) == np.where(labels == right, left, labels))


@dataclass(frozen=True)
class ScoredFinding:
    """One finding as the competition scores it; ``group``: canal, foraminal or subarticular."""

    study: str
    group: str
    probabilities: tuple[float, float, float]
    label: int


def competition_loss(findings: Sequence[ScoredFinding]) -> float:
    """RSNA 2024: the mean of each condition group's weighted log-loss and of "any severe canal".

    A study's probability of any severe canal stenosis is the highest of its levels; its weight is
    that of its most severe canal label.
    """
    losses = []
    for group in sorted({f.group for f in findings}):
        members = [f for f in findings if f.group == group]
        weights = np.array([COMPETITION_WEIGHTS[f.label] for f in members])
        true = np.array([f.probabilities[f.label] for f in members])
        losses.append(float(np.average(-np.log(np.clip(true, CLIP, 1)), weights=weights)))
    canals: dict[str, list[ScoredFinding]] = {}
    for finding in findings:
        if finding.group == "canal":
            canals.setdefault(finding.study, []).append(finding)
    if canals:
        losses.append(_any_severe_loss(canals.values()))
    return float(np.mean(losses))


def _any_severe_loss(studies: Collection[Sequence[ScoredFinding]]) -> float:
    """The weighted binary log-loss of "any severe canal stenosis" over studies' canal findings."""
    worst = np.array([max(map(_label, study)) for study in studies])
    probability = np.clip([max(map(_severe, study)) for study in studies], CLIP, 1 - CLIP)
    surprise = -np.where(worst == SEVERE, np.log(probability), np.log(1 - probability))
    return float(np.average(surprise, weights=np.array(COMPETITION_WEIGHTS)[worst]))


def _label(finding: ScoredFinding) -> int:
    return finding.label


def _severe(finding: ScoredFinding) -> float:
    return finding.probabilities[SEVERE]


def bootstrap_intervals(
    measure: Callable[[NDArray[np.int64]], Mapping[str, float]],
    clusters: Sequence[str],
    seed: int = 1,
    rounds: int = 500,
) -> dict[str, tuple[float, float]]:
    """95 % percentile interval of each figure over bootstrap samples of whole patients.

    ``measure`` gets the indices of the findings drawn; ``clusters`` has each finding's patient. NaN
    where the figure is undefined in every sample.
    """
    members: Mapping[str, NDArray[np.int64]] = {
        name: np.flatnonzero(np.asarray(clusters) == name) for name in dict.fromkeys(clusters)
    }
    names, rng = list(members), np.random.default_rng(seed)
    samples = []
    for _ in range(rounds):
        drawn = rng.integers(len(names), size=len(names))
        samples.append(measure(np.concatenate([members[names[i]] for i in drawn])))
    intervals = {}
    for name in samples[0]:
        values = np.array([sample[name] for sample in samples])
        defined = values[~np.isnan(values)]
        low, high = np.percentile(defined, (2.5, 97.5)) if len(defined) else (np.nan, np.nan)
        intervals[name] = (float(low), float(high))
    return intervals
