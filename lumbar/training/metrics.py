"""How good graded findings are: the usual figures, the competition's loss, and how sure the figures themselves are.

Everything is of probabilities (n, 3) for normal/mild, moderate, severe, and labels 0 to 2.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
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
VIEWS = ALL_CLASSES["condition"]
FORAMINA = (Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Condition.RIGHT_NEURAL_FORAMINAL_NARROWING)
COMPETITION_WEIGHTS = (
    1.0,
    2.0,
    4.0,
)  # of normal/mild, moderate and severe in the competition's loss


def figures(probabilities: Floats, labels: Labels) -> dict[str, float]:
    """By name; precision, recall and F1 are macro averages over the severities that occur; NaN where undefined."""
    answers = probabilities.argmax(axis=1)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, answers, labels=np.unique(labels), average="macro", zero_division=0.0
    )
    return {
        **agreement(answers, labels),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "auc": _auc(probabilities, labels),
        "log_loss": log_loss(probabilities, labels),
        "calibration_error": expected_calibration_error(probabilities, labels),
        "majority_accuracy": float(np.bincount(labels).max() / len(labels)),
    }


def agreement(answers: Labels, labels: Labels) -> dict[str, float]:
    """Those figures that need no probabilities; also between a reader and the truth."""
    return {
        "accuracy": float((answers == labels).mean()),
        "balanced_accuracy": float(
            np.mean([(answers[labels == c] == c).mean() for c in np.unique(labels)])
        ),
        "quadratic_kappa": quadratic_kappa(answers, labels),
    }


def quadratic_kappa(answers: Labels, labels: Labels) -> float:
    """Cohen's kappa with squared weights; NaN where both are one and the same class throughout."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(
            metrics.cohen_kappa_score(labels, answers, labels=list(CLASSES), weights="quadratic")
        )


def _auc(probabilities: Floats, labels: Labels) -> float:
    """Macro average of one severity against the others, over those that both occur and do not."""
    areas = [
        float(metrics.roc_auc_score(labels == c, probabilities[:, c]))
        for c in CLASSES
        if 0 < (labels == c).mean() < 1
    ]
    return float(np.mean(areas)) if areas else float("nan")


def confusion(answers: Labels, labels: Labels) -> NDArray[np.int64]:
    """(3, 3) counts: rows the labels, columns the answers."""
    return np.asarray(metrics.confusion_matrix(labels, answers, labels=list(CLASSES)))


def views_right(probabilities: Floats, labels: Labels) -> NDArray[np.bool_]:
    """(n, 6) of ``CLASSES["condition"]`` and its indices, to (n,): whether the most probable view is the true one.

    A sagittal crop cannot show its side, which geometry tells: left and right foramen are summed and count as one.
    """
    left, right = (VIEWS.index(condition) for condition in FORAMINA)
    summed = probabilities.copy()
    summed[:, left] += summed[:, right]
    summed[:, right] = -1
    return np.asarray(summed.argmax(axis=1) == np.where(labels == right, left, labels))


@dataclass(frozen=True)
class Scored:
    """One finding's answer and label, as the competition scores it; ``group`` is canal, foraminal or subarticular."""

    study: str
    group: str
    probabilities: tuple[float, float, float]
    label: int


def competition_loss(scored: Sequence[Scored]) -> float:
    """RSNA 2024: the weighted log-loss of each group of conditions, and one of "any severe canal stenosis", averaged.

    A study's probability of any severe canal stenosis is the highest of its levels'; its weight is the highest of its
    canal labels'.
    """
    losses = []
    for group in sorted({s.group for s in scored}):
        own = [s for s in scored if s.group == group]
        weights = np.array([COMPETITION_WEIGHTS[s.label] for s in own])
        right = np.array([s.probabilities[s.label] for s in own])
        losses.append(float(np.average(-np.log(np.clip(right, 1e-15, 1)), weights=weights)))
    studies: dict[str, list[Scored]] = {}
    for s in scored:
        if s.group == "canal":
            studies.setdefault(s.study, []).append(s)
    if studies:
        severe = np.array([any(s.label == 2 for s in own) for own in studies.values()])
        said = np.clip(
            [max(s.probabilities[2] for s in own) for own in studies.values()], 1e-15, 1 - 1e-15
        )
        weights = np.array(
            [COMPETITION_WEIGHTS[max(s.label for s in own)] for own in studies.values()]
        )
        losses.append(
            float(np.average(-np.where(severe, np.log(said), np.log(1 - said)), weights=weights))
        )
    return float(np.mean(losses))


def intervals(
    measure: Callable[[NDArray[np.int64]], Mapping[str, float]],
    clusters: Sequence[str],
    seed: int = 1,
    rounds: int = 500,
) -> dict[str, tuple[float, float]]:
    """The middle 95 % of each figure over ``rounds`` bootstrap samples of whole patients; NaN where it has none.

    ``measure`` gets the indices of the findings drawn. ``clusters``: each finding's patient.
    """
    own: Mapping[str, NDArray[np.int64]] = {
        name: np.flatnonzero(np.asarray(clusters) == name) for name in dict.fromkeys(clusters)
    }
    names, rng = list(own), np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        drawn = rng.integers(len(names), size=len(names))
        values.append(measure(np.concatenate([own[names[i]] for i in drawn])))
    found = {}
    for name in values[0]:
        own_values = np.array([value[name] for value in values])
        counted = own_values[~np.isnan(own_values)]
        low, high = np.percentile(counted, (2.5, 97.5)) if len(counted) else (np.nan, np.nan)
        found[name] = (float(low), float(high))
    return found
