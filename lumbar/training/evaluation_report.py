"""The report of an evaluation: figures for programs, Markdown and HTML for people, plots."""

import html
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import markdown
import numpy as np

from lumbar.spine.anatomy import Condition, Level
from lumbar.spine.provenance import RESEARCH_USE_ONLY, BundleIdentity
from lumbar.training.evaluate_bundle import (
    EvaluatedFinding,
    assessed_arrays,
    scored,
    write_submission,
)
from lumbar.training.metrics import (
    agreement,
    bootstrap_intervals,
    competition_loss,
    confusion,
    figures,
)
from lumbar.training.plots import draw_confusions, draw_reliability

PHANTOMS_ONLY = (
    "These are phantoms, synthetic images made by this project, labelled by simulated readers. "
    "The figures verify the pipeline; they are not clinical figures and must not be compared with "
    "clinical ones."
)
# Sections with intervals; for all findings together, every figure has an interval.
WITH_INTERVALS = ("group", "condition", "level")
STYLE = (
    "body{font-family:sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}"
    "td,th{border:1px solid #999;padding:.2rem .5rem;text-align:right}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}"
)
PLOTS = """
## Plots

![confusion](confusion.png)

![calibration](calibration.png)
"""
Figures = Mapping[str, Any]


def compute_figures(findings: Sequence[EvaluatedFinding]) -> dict[str, Any]:
    """All figures, overall and by group, condition, level, sex, age and scanner; shares are 0–1.

    ``ceiling`` compares the truth with the same readers' labels on the same findings,
    ``share_of_ceiling`` is the share of the ceiling that was reached, and ``against_truth``
    compares the predictions with the truth itself.
    """
    sections: dict[str, Callable[[EvaluatedFinding], str]] = {
        "group": lambda f: f.group,
        "condition": lambda f: f.key.condition,
        "level": lambda f: f.key.level,
        "condition and level": lambda f: f"{f.key.condition.label}, {f.key.level.label}",
        "sex": lambda f: f.person.sex,
        "age": lambda f: _decades(f.person.age),
        "scanner": lambda f: f.person.scanner,
    }
    overall = _figures(findings)
    probabilities, labels = assessed_arrays(findings)
    if len(labels):
        overall["intervals"] = bootstrap_intervals(
            lambda drawn: figures(probabilities[drawn], labels[drawn]), _patients(findings)
        )
    overall["competition_loss"] = competition_loss(scored(findings))
    by: dict[str, dict[str, Any]] = {}
    for name, section in sections.items():
        groups: dict[str, list[EvaluatedFinding]] = {}
        for finding in findings:
            groups.setdefault(section(finding), []).append(finding)
        groups.pop("", None)
        by[name] = {value: _figures(group) for value, group in sorted(groups.items())}
        for value, group in groups.items() if name in WITH_INTERVALS else ():
            _add_intervals(by[name][value], group)
    return {"overall": overall, "by": by}


def _add_intervals(row: dict[str, Any], findings: Sequence[EvaluatedFinding]) -> None:
    probabilities, labels = assessed_arrays(findings)
    if len(labels):
        predictions = probabilities.argmax(axis=1)
        row["intervals"] = bootstrap_intervals(
            lambda drawn: agreement(predictions[drawn], labels[drawn]), _patients(findings)
        )


def _patients(findings: Sequence[EvaluatedFinding]) -> list[str]:
    return [f.person.patient for f in findings if f.probabilities is not None]


def _figures(findings: Sequence[EvaluatedFinding]) -> dict[str, Any]:
    probabilities, labels = assessed_arrays(findings)
    row: dict[str, Any] = {"findings": len(findings), "assessed": len(labels) / len(findings)}
    if not len(labels):
        return row
    assessed = [f for f in findings if f.probabilities is not None]
    row |= figures(probabilities, labels)
    row["condition_accuracy"] = float(np.mean([f.view_correct for f in assessed]))
    truths = [f.truth for f in assessed]
    if None not in truths:
        truth, predictions = np.array(truths, int), probabilities.argmax(axis=1)
        row["against_truth"] = agreement(predictions, truth)
        row["ceiling"] = agreement(truth, labels)
        row["share_of_ceiling"] = {
            name: row[name] / best
            for name, best in row["ceiling"].items()
            if best > 0 and not np.isnan(best)
        }
    return row


def write_report(
    folder: Path,
    findings: Sequence[EvaluatedFinding],
    all_figures: Figures,
    bundle: BundleIdentity,
    data: str,
) -> None:
    """Writes ``report.md``, ``report.html``, their plots and ``submission.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    probabilities, labels = assessed_arrays(findings)
    if len(labels):
        _draw_confusions(findings, folder / "confusion.png")
        draw_reliability(probabilities, labels, folder / "calibration.png")
    write_submission(folder / "submission.csv", findings)
    text = "\n".join(_lines(findings, all_figures, bundle, data)) + "\n"
    (folder / "report.md").write_text(text, encoding="utf-8")
    body = markdown.markdown(text, extensions=["tables"])
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(str(bundle))}</title><style>{STYLE}</style>{body}</html>\n"
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _draw_confusions(findings: Sequence[EvaluatedFinding], path: Path) -> None:
    """One confusion matrix per group of conditions."""
    matrices = {}
    for group in sorted({f.group for f in findings}):
        probabilities, labels = assessed_arrays([f for f in findings if f.group == group])
        if len(labels):
            matrices[group] = confusion(probabilities.argmax(axis=1), labels)
    draw_confusions(matrices, path)


def _lines(
    findings: Sequence[EvaluatedFinding], all_figures: Figures, bundle: BundleIdentity, data: str
) -> list[str]:
    """The report in Markdown."""
    overall = all_figures["overall"]
    synthetic = any(f.person.synthetic for f in findings)
    loss = f"{overall['competition_loss']:.3f}"
    lines = [
        f"# {bundle} on {data}",
        "",
        "**" + " ".join(_notices(bundle, synthetic)) + "**",
        "",
        _method(findings, overall, bundle),
        "",
        *_table("all findings", {"all": overall}, synthetic),
        *_interval_lines(overall),
        "",
        f"Competition's weighted log-loss, including any severe canal stenosis: {loss} (1/3 per "
        "severity gives 0.999 on the competition's own labels).",
    ]
    for name, groups in all_figures["by"].items():
        if len(groups) > 1:
            labelled = {_label(value): row for value, row in groups.items()}
            lines += ["", f"## By {name}", "", *_table(name, labelled, synthetic)]
    return [*lines, *PLOTS.split("\n"), *_not_assessed(findings)]


def _notices(bundle: BundleIdentity, synthetic: bool) -> Iterable[str]:
    yield RESEARCH_USE_ONLY + "."
    if synthetic:
        yield PHANTOMS_ONLY
    if bundle.trained_on.warning:
        yield bundle.trained_on.warning + "."


def _method(findings: Sequence[EvaluatedFinding], overall: Figures, bundle: BundleIdentity) -> str:
    studies = len({f.study for f in findings})
    patients = len({f.person.patient for f in findings})
    return (
        f"Weights sha256 {bundle.weights_sha256}. {studies} studies of {patients} patients, "
        f"{len(findings)} labelled findings, {_percent(overall['assessed'])} of them assessed; the "
        "others count only in the competition's loss. Levels, points and views were found by the "
        "pipeline; for headers with neither repetition nor echo time, the weighting is taken from "
        "the table of series descriptions. The majority baseline always predicts the most frequent "
        "severity. Intervals are the middle 95 % of bootstrap samples of patients."
    )


def _interval_lines(overall: Figures) -> list[str]:
    if "intervals" not in overall:
        return []
    intervals = [
        f"{name.replace('_', ' ')} {low:.3f}–{high:.3f}"
        for name, (low, high) in overall["intervals"].items()
    ]
    return ["", f"95 % intervals: {', '.join(intervals)}."]


def _not_assessed(findings: Sequence[EvaluatedFinding]) -> list[str]:
    """A table of the reasons, the most frequent first."""
    reasons = Counter(f.reason or "?" for f in findings if f.probabilities is None)
    if not reasons:
        return []
    rows = [f"| {count} | {reason} |" for reason, count in reasons.most_common()]
    return ["## Not assessed", "", "| findings | reason |", "|---|---|", *rows]


def _table(first: str, rows: Mapping[str, Figures], synthetic: bool) -> Iterable[str]:
    columns: list[tuple[str, Callable[[Figures], str]]] = [
        ("findings", lambda f: str(f["findings"])),
        ("assessed", lambda f: _percent(f["assessed"])),
        ("view correct", lambda f: _percent(f["condition_accuracy"])),
        ("accuracy", partial(_with_interval, "accuracy")),
        ("majority", lambda f: _percent(f["majority_accuracy"])),
        ("balanced", partial(_with_interval, "balanced_accuracy")),
        ("precision", lambda f: _percent(f["precision"])),
        ("recall", lambda f: _percent(f["recall"])),
        ("F1", lambda f: _percent(f["f1"])),
        ("QWK", lambda f: f"{f['quadratic_kappa']:.3f}"),
        ("AUC", lambda f: f"{f['auc']:.3f}"),
        ("log-loss", lambda f: f"{f['log_loss']:.3f}"),
        ("ECE", lambda f: f"{f['calibration_error']:.3f}"),
    ]
    if synthetic:
        columns += [
            ("ceiling accuracy, balanced", partial(_accuracies, "ceiling")),
            ("share reached", partial(_accuracies, "share_of_ceiling")),
            ("against the truth", partial(_accuracies, "against_truth")),
        ]
    yield f"| {first} | " + " | ".join(name for name, _ in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, row in rows.items():
        # If no finding was assessed, only the first two columns have values.
        cells = [
            show(row) if i < 2 or "accuracy" in row else "–" for i, (_, show) in enumerate(columns)
        ]
        yield f"| {name} | " + " | ".join(cells) + " |"


def _with_interval(name: str, row: Figures) -> str:
    low, high = row.get("intervals", {}).get(name, (None, None))
    return _percent(row[name]) + (f" ({100 * low:.1f}–{100 * high:.1f})" if low is not None else "")


def _accuracies(name: str, row: Figures) -> str:
    values = row.get(name, {})
    return ", ".join(
        _percent(values[key]) if key in values else "–" for key in ("accuracy", "balanced_accuracy")
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _label(value: str) -> str:
    """The label of a condition or level; any other value unchanged."""
    if value in set(Condition):
        return Condition(value).label
    return Level(value).label if value in set(Level) else value


def _decades(age: str) -> str:
    return f"{int(age) // 20 * 20}–{int(age) // 20 * 20 + 19}" if age.isdigit() else ""
