"""Evaluates the level locator on a data set in the RSNA 2024 layout, phantoms or patients."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lumbar.dicom.discover import find_instances
from lumbar.dicom.slice_reader import SliceReader
from lumbar.errors import NotAnalysable, NotDicom
from lumbar.phantoms.dataset import PHANTOM_POINTS, PHANTOMS
from lumbar.spine.anatomy import Condition, FindingKey, Level, Role
from lumbar.spine.finding_points import find_points
from lumbar.spine.keypoint_input import KeypointDetector
from lumbar.spine.locate_levels import locate_levels
from lumbar.spine.roles import assign_roles
from lumbar.spine.slices import SliceHeader, Vector
from lumbar.training.default_timing import with_default_times
from lumbar.training.rsna_dataset import COORDINATES, rows_by_study, series_by_study
from lumbar.training.rsna_tables import AnnotatedPoint, annotated_points, study_folders


@dataclass(frozen=True)
class Truth:
    """The true points of a study, mm (LPS), and its kind.

    ``slices`` has the annotated slice of each point that is known only within that slice.
    """

    points: Mapping[FindingKey, Vector]
    slices: Mapping[FindingKey, SliceHeader]
    numbering: str = "usual"
    region: str = "lumbar"
    scanner: str = ""
    build: str = "usual"


@dataclass(frozen=True, eq=False)
class Outcome:
    """The locator's result for one study.

    ``errors`` are in mm, infinite where nothing was found. ``named``: whether a level's point is
    nearest to that level's true point; ``sides``: whether it is nearer to its own side.
    """

    study: str
    truth: Truth
    refused: str | None = None
    caveats: tuple[str, ...] = ()
    errors: Mapping[FindingKey, float] | None = None
    named: Mapping[Level, bool] | None = None
    sides: Mapping[FindingKey, bool] | None = None
    unreadable: bool = False  # none of its images can be read

    @property
    def flagged(self) -> bool:
        """Whether the study was refused or has a caveat, such as uncertain numbering."""
        return self.refused is not None or bool(self.caveats)


def evaluate_levels(
    data: Path, keypoints: KeypointDetector, advance: Callable[[int], None]
) -> list[Outcome]:
    """Compares the located points of every study with its annotations.

    ``advance`` is called with the number of studies, then with 1 after each.

    Raises:
        WrongSetting: the folder is not in the RSNA 2024 layout.
    """
    folders = study_folders(data)
    labels, exact, kinds = (
        rows_by_study(data / name) for name in (COORDINATES, PHANTOM_POINTS, PHANTOMS)
    )
    series = series_by_study(data)
    advance(len(folders))
    outcomes = []
    for folder in folders:
        study = folder.name
        rows = tuple(table.get(study, []) for table in (labels, exact, kinds))
        outcomes.append(_outcome(folder, rows, series.get(study, {}), keypoints))
        advance(1)
    return outcomes


def summary(outcomes: list[Outcome]) -> list[tuple[str, str, int]]:
    """The figures: name, value, number of cases."""
    usual = [
        o
        for o in outcomes
        if o.truth.region == "lumbar" and o.truth.numbering == "usual" and o.truth.points
    ]
    located = [o for o in usual if o.errors is not None]
    canal = _errors(located, Condition.SPINAL_CANAL_STENOSIS)
    named = [ok for o in located for ok in (o.named or {}).values()]
    sides = [ok for o in located for ok in (o.sides or {}).values()]
    wrong = [o for o in located if not all((o.named or {}).values())]
    correct = [o for o in usual if o not in wrong]
    transitional = [
        o for o in outcomes if o.truth.region == "lumbar" and o.truth.numbering != "usual"
    ]
    cut = [o for o in outcomes if o.truth.region == "cut"]
    elsewhere = [o for o in outcomes if o.truth.region not in ("lumbar", "cut")]
    rows = [
        (
            "studies of a usual lumbar spine that were located",
            _share([o.errors is not None for o in usual]),
            len(usual),
        ),
        ("level point error, median", _mm(canal, 50), len(canal)),
        ("level point error, 95th percentile", _mm(canal, 95), len(canal)),
        ("levels within 8 mm", _share([e <= 8 for e in canal]), len(canal)),
        ("levels named correctly", _share(named), len(named)),
        ("sides correct", _share(sides), len(sides)),
        (
            "false flags (caveat or refused, though correct)",
            _share([o.flagged for o in correct]),
            len(correct),
        ),
        ("wrongly named studies that are flagged", _share([o.flagged for o in wrong]), len(wrong)),
        (
            "transitional vertebrae that are flagged",
            _share([o.flagged for o in transitional]),
            len(transitional),
        ),
        (
            "wrong or transitional, flagged",
            _share([o.flagged for o in (*wrong, *transitional)]),
            len(wrong) + len(transitional),
        ),
        (
            "thorax, neck, pelvis: refused",
            _share([o.refused is not None for o in elsewhere]),
            len(elsewhere),
        ),
        ("the sacrum not in view: refused or flagged", _share([o.flagged for o in cut]), len(cut)),
    ]
    for part in ("foraminal", "subarticular"):
        errors = _errors(located, *(c for c in Condition if part in c))
        rows.append((f"{part} point error, median", _mm(errors, 50), len(errors)))
        rows.append((f"{part} point error, 95th percentile", _mm(errors, 95), len(errors)))
    return rows


def write_outcomes(path: Path, outcomes: list[Outcome]) -> None:
    """Writes a CSV file with one row per study: its kind, flags and largest level error."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            (
                *("study_id", "scanner", "numbering", "region", "build"),
                *("refused", "caveats", "named_right", "worst_mm"),
            )
        )
        for o in outcomes:
            canal = _errors([o], Condition.SPINAL_CANAL_STENOSIS)
            named = all(o.named.values()) if o.named else ""
            worst = f"{max(canal):.2f}" if canal else ""
            kind = (o.truth.scanner, o.truth.numbering, o.truth.region, o.truth.build)
            table.writerow((o.study, *kind, o.refused or "", "; ".join(o.caveats), named, worst))


def _outcome(
    folder: Path,
    rows: Sequence[list[dict[str, str]]],
    series: Mapping[str, Role],
    keypoints: KeypointDetector,
) -> Outcome:
    """``rows``: the study's annotations, exact points and kind, each empty if unknown."""
    labels, exact, kinds = rows
    kind = kinds[0] if kinds else {}
    about: dict[str, Any] = {
        name: kind[name] for name in ("numbering", "region", "scanner", "build") if name in kind
    }
    try:
        instances = with_default_times(find_instances(folder, folder)[0], series)
    except NotAnalysable as error:
        truth = Truth(*_points([], exact), **about)
        return Outcome(folder.name, truth, refused=str(error), unreadable=True)
    try:
        slices = SliceReader(instances)
        truth = Truth(*_points(annotated_points(folder, instances, labels), exact), **about)
        roles = assign_roles(slices.headers)
        levels = locate_levels(roles, slices.read, keypoints)
        points = find_points(levels, roles, slices.read, keypoints)
    except (NotAnalysable, NotDicom) as error:
        return Outcome(folder.name, Truth(*_points([], exact), **about), refused=str(error))
    if not levels.midline_known:
        return Outcome(
            folder.name, truth, refused="the canal is not visible on the sagittal images"
        )
    errors = {
        key: _distance(points.positions.get(key), point, truth.slices.get(key))
        for key, point in truth.points.items()
    }
    located = levels.canal
    canal = {key.level: point for key, point in truth.points.items() if key.condition.side is None}
    named = {
        level: level in located and _nearest(located[level], canal) is level for level in canal
    }
    sides = {
        key: bool(
            np.linalg.norm(points.positions[key] - point)
            < np.linalg.norm(points.positions[key] - truth.points[_mirrored(key)])
        )
        for key, point in truth.points.items()
        if key.condition.side is not None
        and key in points.positions
        and _mirrored(key) in truth.points
    }
    return Outcome(folder.name, truth, None, levels.caveats + points.caveats, errors, named, sides)


def _points(
    annotated: list[AnnotatedPoint], exact: list[dict[str, str]]
) -> tuple[dict[FindingKey, Vector], dict[FindingKey, SliceHeader]]:
    """True points in mm (LPS), and the slices of those that are only annotated."""
    if exact:
        points = {}
        for row in exact:
            key = FindingKey(Condition(row["condition"]), Level(row["level"]))
            points[key] = np.array([float(row[axis]) for axis in "xyz"])
        return points, {}
    # If a finding is annotated twice, the first row counts.
    first = {point.key: point for point in reversed(annotated)}
    points = {key: point.point for key, point in first.items()}
    return points, {key: point.header for key, point in first.items()}


def _distance(located: Vector | None, truth: Vector, annotated: SliceHeader | None) -> float:
    """In mm; within the annotated slice if the truth is known only there; infinite if not found."""
    if located is None:
        return float("inf")
    offset = located - truth
    if annotated is not None:
        offset = offset - (offset @ annotated.normal) * annotated.normal
    return float(np.linalg.norm(offset))


def _mirrored(key: FindingKey) -> FindingKey:
    """The same finding on the other side."""
    name = str(key.condition)
    other = (
        name.replace("left", "right") if name.startswith("left") else name.replace("right", "left")
    )
    return FindingKey(Condition(other), key.level)


def _nearest(point: Vector, canal: Mapping[Level, Vector]) -> Level:
    return min(canal, key=lambda level: float(np.linalg.norm(canal[level] - point)))


def _errors(outcomes: list[Outcome], *conditions: Condition) -> list[float]:
    """Point errors in mm, condition by condition."""
    return [
        error
        for condition in conditions
        for o in outcomes
        for key, error in (o.errors or {}).items()
        if key.condition is condition
    ]


def _share(values: list[bool]) -> str:
    return f"{100 * np.mean(values):.1f} %" if values else "–"


def _mm(values: list[float], percentile: float) -> str:
    return f"{np.percentile(values, percentile):.2f} mm" if values else "–"
