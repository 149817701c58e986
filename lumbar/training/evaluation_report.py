"""The report of an evaluation: figures for programs, Markdown and HTML for people, pictures beside them."""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import markdown
import numpy as np

from lumbar.spine.anatomy import Condition, Level
from lumbar.spine.provenance import RESEARCH_USE_ONLY, BundleIdentity
from lumbar.training.evaluate_bundle import Judged, arrays_of, scored, write_submission
from lumbar.training.metrics import agreement, competition_loss, confusion, figures, intervals
from lumbar.training.plots import draw_confusions, draw_reliability

PHANTOMS_ONLY = (
    "These are phantoms, synthetic images of our own making, graded by simulated readers. The figures check the "
    "pipeline; they are no clinical ones, and stand beside none."
)
WITH_INTERVALS = (
    "group",
    "condition",
    "level",
)  # sections; all findings together have them for every figure
Figures = dict[str, float]


def measured(judged: Sequence[Judged]) -> dict[str, Any]:
    """All figures, overall and by group, condition, level, sex, age and scanner; shares are 0–1.

    ``ceiling`` is of the latent truth against the same readers, over the same findings, and ``share_of_ceiling`` what
    of it was reached; ``against_truth`` scores the answers against the truth itself.
    """
    sections: dict[str, Callable[[Judged], str]] = {
        "group": lambda j: j.group,
        "condition": lambda j: j.key.condition,
        "level": lambda j: j.key.level,
        "condition and level": lambda j: f"{j.key.condition.label}, {j.key.level.label}",
        "sex": lambda j: j.person.sex,
        "age": lambda j: _decades(j.person.age),
        "scanner": lambda j: j.person.scanner,
    }
    overall: dict[str, Any] = _of(judged)
    probabilities, labels = arrays_of(judged)
    if len(labels):
        overall["intervals"] = intervals(
            lambda drawn: figures(probabilities[drawn], labels[drawn]), _patients(judged)
        )
    overall["competition_loss"] = competition_loss(scored(judged))
    by: dict[str, dict[str, Any]] = {}
    for name, section in sections.items():
        values = sorted({section(j) for j in judged} - {""})
        by[name] = {value: _of([j for j in judged if section(j) == value]) for value in values}
        for value in values if name in WITH_INTERVALS else ():
            _add_intervals(by[name][value], [j for j in judged if section(j) == value])
    return {"overall": overall, "by": by}


def _add_intervals(found: dict[str, Any], judged: Sequence[Judged]) -> None:
    probabilities, labels = arrays_of(judged)
    if len(labels):
        answers = probabilities.argmax(axis=1)
        found["intervals"] = intervals(
            lambda drawn: agreement(answers[drawn], labels[drawn]), _patients(judged)
        )


def _patients(judged: Sequence[Judged]) -> list[str]:
    return [j.person.patient for j in judged if j.probabilities is not None]


def _of(judged: Sequence[Judged]) -> dict[str, Any]:
    probabilities, labels = arrays_of(judged)
    found: dict[str, Any] = {"findings": len(judged), "assessed": len(labels) / len(judged)}
    if not len(labels):
        return found
    assessed = [j for j in judged if j.probabilities is not None]
    found |= figures(probabilities, labels)
    found["condition_accuracy"] = float(np.mean([j.shown for j in assessed]))
    truths = [j.truth for j in assessed]
    if None not in truths:
        truth, answers = np.array(truths, int), probabilities.argmax(axis=1)
        found["against_truth"] = agreement(answers, truth)
        found["ceiling"] = agreement(truth, labels)
        found["share_of_ceiling"] = {
            name: found[name] / best
            for name, best in found["ceiling"].items()
            if best > 0 and not np.isnan(best)
        }
    return found


def write_report(
    folder: Path,
    judged: Sequence[Judged],
    all_figures: Mapping[str, Any],
    bundle: BundleIdentity,
    data: str,
) -> None:
    """``report.md``, ``report.html``, their pictures and ``submission.csv``; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    probabilities, labels = arrays_of(judged)
    synthetic = any(j.person.synthetic for j in judged)
    if len(labels):
        groups = sorted({j.group for j in judged})
        pairs = {group: arrays_of([j for j in judged if j.group == group]) for group in groups}
        draw_confusions(
            {g: confusion(p.argmax(axis=1), t) for g, (p, t) in pairs.items()},
            folder / "confusion.png",
        )
        draw_reliability(probabilities, labels, folder / "calibration.png")
    write_submission(folder / "submission.csv", judged)
    text = _text(judged, all_figures, bundle, data, synthetic)
    (folder / "report.md").write_text(text, encoding="utf-8")
    body = markdown.markdown(text, extensions=["tables"])
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(str(bundle))}</title>'
        "<style>body{font-family:sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse}td,th{border:1px solid #999;padding:.2rem .5rem;text-align:right}"
        f"td:first-child,th:first-child{{text-align:left}}img{{max-width:100%}}</style>{body}</html>\n"
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _text(
    judged: Sequence[Judged],
    all_figures: Mapping[str, Any],
    bundle: BundleIdentity,
    data: str,
    synthetic: bool,
) -> str:
    overall = all_figures["overall"]
    notices = [RESEARCH_USE_ONLY + "."]
    notices += [PHANTOMS_ONLY] if synthetic else []
    notices += [bundle.trained_on.warning + "."] if bundle.trained_on.warning else []
    studies, patients = len({j.study for j in judged}), len({j.person.patient for j in judged})
    lines = [
        f"# {bundle} on {data}",
        "",
        "**" + " ".join(notices) + "**",
        "",
        f"Weights sha256 {bundle.weights_sha256}. {studies} studies of {patients} patients, {len(judged)} labelled "
        f"findings, {_percent(overall['assessed'])} of them assessed; the others are in no figure but the "
        "competition's loss. Levels, points and views were found by the pipeline; where headers tell neither "
        "repetition nor echo time, the table of descriptions told what a series shows. The majority baseline always "
        "answers the most frequent severity. Intervals are the middle 95 % over bootstrap samples of patients.",
        "",
        *_table("all findings", {"all": overall}, synthetic),
    ]
    if "intervals" in overall:
        told = (
            f"{name.replace('_', ' ')} {low:.3f}–{high:.3f}"
            for name, (low, high) in overall["intervals"].items()
        )
        lines += ["", f"95 % intervals: {', '.join(told)}."]
    loss = f"{overall['competition_loss']:.3f}"
    lines += [
        "",
        f"Competition's weighted log-loss, any severe canal stenosis included: {loss} (a third to each class gives "
        f"0.999 on the competition's own labels).",
    ]
    for name, own in all_figures["by"].items():
        if len(own) > 1:
            lines += [
                "",
                f"## By {name}",
                "",
                *_table(name, {_words(value): f for value, f in own.items()}, synthetic),
            ]
    lines += [
        "",
        "## Pictures",
        "",
        "![confusion](confusion.png)",
        "",
        "![calibration](calibration.png)",
        "",
    ]
    refused: dict[str, int] = {}
    for j in judged:
        if j.probabilities is None:
            refused[j.reason or "?"] = refused.get(j.reason or "?", 0) + 1
    if refused:
        lines += ["## Not assessed", "", "| findings | why |", "|---|---|"]
        lines += [
            f"| {count} | {why} |"
            for why, count in sorted(refused.items(), key=lambda item: -item[1])
        ]
    return "\n".join(lines) + "\n"


def _table(first: str, rows: Mapping[str, Mapping[str, Any]], synthetic: bool) -> Iterable[str]:
    columns: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("findings", lambda f: str(f["findings"])),
        ("assessed", lambda f: _percent(f["assessed"])),
        ("view right", lambda f: _percent(f["condition_accuracy"])),
        ("accuracy", partial(_between, "accuracy")),
        ("majority", lambda f: _percent(f["majority_accuracy"])),
        ("balanced", partial(_between, "balanced_accuracy")),
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
            ("ceiling accuracy, balanced", lambda f: _both(f, "ceiling")),
            ("share reached", lambda f: _both(f, "share_of_ceiling")),
            ("against the truth", lambda f: _both(f, "against_truth")),
        ]
    yield f"| {first} | " + " | ".join(name for name, _ in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, row in rows.items():
        cells = [
            show(row) if i < 2 or "accuracy" in row else "–" for i, (_, show) in enumerate(columns)
        ]
        yield f"| {name} | " + " | ".join(cells) + " |"


def _between(name: str, row: Mapping[str, Any]) -> str:
    """With its interval, where it has one."""
    low, high = row.get("intervals", {}).get(name, (None, None))
    return _percent(row[name]) + (f" ({100 * low:.1f}–{100 * high:.1f})" if low is not None else "")


def _both(row: Mapping[str, Any], name: str) -> str:
    own = row.get(name, {})
    return ", ".join(
        _percent(own[key]) if key in own else "–" for key in ("accuracy", "balanced_accuracy")
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _words(value: str) -> str:
    if value in set(Condition):
        return Condition(value).label
    return Level(value).label if value in set(Level) else value


def _decades(age: str) -> str:
    return f"{int(age) // 20 * 20}–{int(age) // 20 * 20 + 19}" if age.isdigit() else ""
