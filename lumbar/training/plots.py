"""Plots of trainings and evaluations, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lumbar.spine.anatomy import Condition, Severity
from lumbar.training.crop_files import CropFile

COLOURS = ("#4c9f70", "#e0a030", "#c0392b")  # normal/mild, moderate, severe


def draw_history(rows: Sequence[Mapping[str, float]], title: str, path: Path) -> None:
    """Training and validation loss and accuracy per epoch, from ``train_classifier``'s history."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = range(1, len(rows) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [row[name] for row in rows], label="training (balanced, augmented)")
        axes.plot(epochs, [row[f"validation_{name}"] for row in rows], label="validation")
        axes.set(xlabel="epoch", ylabel=name, title=f"{title}: {name}")
        axes.legend()
    figure.savefig(path, dpi=110)


def draw_counts(crops: Sequence[CropFile], path: Path) -> None:
    """The number of findings by condition and severity; ``crops``: one per finding."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(Condition))
    for severity, colour in zip(Severity, COLOURS, strict=True):
        graded = [crop.condition for crop in crops if crop.severity == severity]
        counts = np.array([graded.count(condition) for condition in Condition])
        bars = axes.barh(
            [c.label for c in Condition], counts, left=left, color=colour, label=severity.label
        )
        axes.bar_label(bars, [str(n) if n else "" for n in counts], label_type="center", fontsize=8)
        left += counts
    axes.set(xlabel="findings", title="Labelled findings")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
    figure.savefig(path, dpi=110)


def draw_confusions(matrices: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Confusion matrices by title: counts, shaded by their share of the row."""
    figure = Figure(figsize=(3.4 * len(matrices), 3.4), layout="constrained")
    names = [severity.label for severity in Severity]
    for axes, (title, matrix) in zip(
        np.atleast_1d(figure.subplots(1, len(matrices))), matrices.items(), strict=True
    ):
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(matrix):
            dark = shares[row, column] > 0.5
            axes.text(
                column,
                row,
                int(count),
                ha="center",
                va="center",
                color="white" if dark else "black",
            )
        axes.set(title=title, xlabel="prediction", ylabel="label")
        axes.set_xticks(range(len(names)), names, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7, rotation=90, va="center")
    figure.savefig(path, dpi=110)


def draw_reliability(probabilities: NDArray[Any], labels: NDArray[Any], path: Path) -> None:
    """Reliability diagram: accuracy of the most probable severity against its probability.

    ``probabilities`` (n, 3), ``labels`` (n,).
    """
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0.3, 1, 8)
    bins = np.clip(np.digitize(confidence, edges) - 1, 0, len(edges) - 2)
    occupied = np.unique(bins)
    axes.plot([0.3, 1], [0.3, 1], color="grey", linestyle=":")
    axes.plot(
        [confidence[bins == b].mean() for b in occupied],
        [correct[bins == b].mean() for b in occupied],
        marker="o",
    )
    axes.set(
        xlabel="predicted probability",
        ylabel="accuracy",
        title="Calibration",
        xlim=(0.3, 1),
        ylim=(0, 1),
    )
    figure.savefig(path, dpi=110)
