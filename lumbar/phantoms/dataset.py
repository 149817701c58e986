"""Data sets of phantoms in the layout of the RSNA 2024 lumbar-spine data set."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lumbar import VERSION
from lumbar.errors import WrongSetting
from lumbar.phantoms.chain import Build, Numbering
from lumbar.phantoms.dicom_files import Series
from lumbar.phantoms.planes import Region
from lumbar.phantoms.rsna_headers import rewrite_as_rsna
from lumbar.phantoms.scanner import HELD_OUT
from lumbar.phantoms.simulated_readers import simulate_reading
from lumbar.phantoms.study import Kind, Plan, draw_plan, write_plan
from lumbar.process_pool import process_pool
from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey, Severity

ORIGIN = "phantoms.json"
PHANTOMS, PHANTOM_POINTS, PHANTOM_TRUTH = "phantoms.csv", "phantom_points.csv", "phantom_truth.csv"
_ELSEWHERE = (Region.CUT, Region.THORAX, Region.NECK, Region.PELVIS)
_PER_SEED = 100_000
_SEED_LIMIT = 10**9

Row = tuple[object, ...]


@dataclass(frozen=True)
class _Rows:
    """One study's rows in each table."""

    labels: Row
    truth: Row
    descriptions: tuple[Row, ...]
    coordinates: tuple[Row, ...]
    phantom: Row
    points: tuple[Row, ...]
    submission: tuple[Row, ...]


def write_data_set(
    out: Path,
    studies: int,
    seed: int,
    *,
    held_out: bool = False,
    odd: bool = False,
    as_rsna: bool = False,
    processes: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Writes phantoms in the folders and tables of RSNA 2024.

    ``train_images/<study_id>/<series_id>/<instance_number>.dcm``, ``train.csv``,
    ``train_series_descriptions.csv``, ``train_label_coordinates.csv`` (0-based pixels of the slice
    nearest to the finding) and ``sample_submission.csv``. In addition ``phantoms.csv`` (scanner,
    numbering, region, build), ``phantom_points.csv`` (mm, LPS) and ``phantom_truth.csv``, the true
    severities; those in ``train.csv`` are a simulated reader's. ``phantoms.json`` is written last
    and has everything needed to make the data set again.

    With ``held_out``, scanners are of families never used for training, and half of the spines are
    outside the range of the training data. With ``odd``, some studies have transitional vertebrae;
    some show no lumbar spine, or not its lower end, and have no labels. With ``as_rsna``, the
    headers are like those files' too (``lumbar.phantoms.rsna_headers``). A study's id is also its
    seed for :func:`~lumbar.phantoms.study.write_study`. The same seed gives the same
    bytes with any number of ``processes`` (None: all cores). ``advance`` is called after every
    study.

    Raises:
        WrongSetting: the seed or the number of studies is out of range.
    """
    if not 0 <= seed < _SEED_LIMIT:
        raise WrongSetting(
            f"The seed of a data set must be from 0 to {_SEED_LIMIT - 1}; choose another one."
        )
    if not 1 <= studies < _PER_SEED:
        raise WrongSetting(
            f"A data set has from 1 to {_PER_SEED - 1} studies; choose another number."
        )
    study_ids = [seed * _PER_SEED + i for i in range(1, studies + 1)]
    workers = min(processes or os.cpu_count() or 1, studies)
    rows = []
    for row in _write_all(
        partial(_write_one, out / "train_images", held_out, odd, as_rsna), study_ids, workers
    ):
        rows.append(row)
        advance()
    findings = [key.row_id("")[1:] for key in _COLUMNS]
    _write_table(out / "train.csv", ("study_id", *findings), (r.labels for r in rows))
    _write_table(out / PHANTOM_TRUTH, ("study_id", *findings), (r.truth for r in rows))
    _write_table(
        out / "train_series_descriptions.csv",
        ("study_id", "series_id", "series_description"),
        (line for r in rows for line in r.descriptions),
    )
    _write_table(
        out / "train_label_coordinates.csv",
        ("study_id", "series_id", "instance_number", "condition", "level", "x", "y"),
        (line for r in rows for line in r.coordinates),
    )
    _write_table(
        out / PHANTOMS,
        ("study_id", "scanner", "numbering", "region", "build"),
        (r.phantom for r in rows),
    )
    _write_table(
        out / PHANTOM_POINTS,
        ("study_id", "condition", "level", "x", "y", "z"),
        (line for r in rows for line in r.points),
    )
    _write_table(
        out / "sample_submission.csv",
        ("row_id", "normal_mild", "moderate", "severe"),
        (line for r in rows for line in r.submission),
    )
    origin = {
        "seed": seed,
        "studies": studies,
        "held_out": held_out,
        "odd": odd,
        "as_rsna": as_rsna,
        "code_version": VERSION,
    }
    (out / ORIGIN).write_text(json.dumps(origin) + "\n", encoding="utf-8")


# train.csv has the canal first, then the foramina, then the recesses; left before right.
_COLUMNS = sorted(
    ALL_FINDINGS,
    key=lambda f: (
        f.condition.side is not None,
        "subarticular" in f.condition,
        "right" in f.condition,
        f.level,
    ),
)


def _write_all(
    write: Callable[[int], _Rows], study_ids: list[int], workers: int
) -> Iterator[_Rows]:
    if workers == 1:
        yield from map(write, study_ids)
        return
    with process_pool(workers) as pool:
        yield from pool.map(write, study_ids)


def draw_kind(study_id: int, held_out: bool, odd: bool) -> Kind:
    """The random kind of a study: scanner, numbering, region and build."""
    rng = np.random.default_rng((study_id, 3))
    scanner = HELD_OUT[int(rng.integers(len(HELD_OUT)))] if held_out else None
    chance = rng.random()
    numbering = Numbering(rng.choice(list(Numbering)[1:]))
    region = Region(rng.choice(_ELSEWHERE))
    build = Build.EXTREME if held_out and rng.random() < 0.5 else Build.USUAL
    if not odd or chance < 0.6:
        return Kind(scanner, build=build)
    return Kind(scanner, numbering=numbering) if chance < 0.8 else Kind(scanner, region=region)


def _write_one(images: Path, held_out: bool, odd: bool, as_rsna: bool, study_id: int) -> _Rows:
    kind = draw_kind(study_id, held_out, odd)
    plan = draw_plan(study_id, kind=kind)
    labelled = kind.region is Region.LUMBAR
    write_plan(plan, images / str(study_id), lambda number: str(_series_id(study_id, number)))
    if as_rsna:
        rewrite_as_rsna(images / str(study_id))
    roles = [role for _, role in plan.truth.series]
    reading = simulate_reading(np.random.default_rng((study_id, 4)), plan.patient.burdens)
    labelled_keys = _COLUMNS if labelled else []

    def columns(severities: Mapping[FindingKey, Severity]) -> Row:
        return (study_id, *(severities[key].label if labelled else "" for key in _COLUMNS))

    return _Rows(
        labels=columns(reading),
        truth=columns(plan.truth.severities),
        descriptions=tuple(
            (study_id, _series_id(study_id, series.number), role.label)
            for series, role in zip(plan.series, roles, strict=True)
        ),
        coordinates=tuple(_coordinates(plan, study_id, key) for key in labelled_keys),
        phantom=(study_id, plan.examination.scanner.name, kind.numbering, kind.region, kind.build),
        points=tuple(_point(plan, study_id, key) for key in labelled_keys),
        submission=tuple((key.row_id(str(study_id)), *("0.333333",) * 3) for key in ALL_FINDINGS),
    )


def _series_id(study_id: int, number: int) -> int:
    return study_id * 10 + number


def _point(plan: Plan, study_id: int, key: FindingKey) -> Row:
    x, y, z = plan.truth.points[key]
    return study_id, key.condition, key.level, f"{x:.3f}", f"{y:.3f}", f"{z:.3f}"


def _coordinates(plan: Plan, study_id: int, key: FindingKey) -> Row:
    role = key.condition.role
    series = next(s for s, (_, r) in zip(plan.series, plan.truth.series, strict=True) if r is role)
    instance, column, row = locate(series, plan.truth.points[key])
    return (
        study_id,
        _series_id(study_id, series.number),
        instance,
        key.condition.label.title(),
        key.level.label,
        f"{column:.3f}",
        f"{row:.3f}",
    )


def locate(series: Series, point: tuple[float, float, float]) -> tuple[int, float, float]:
    """InstanceNumber of the slice nearest to a point (mm, LPS), and the point's column and row."""
    candidates = []
    first = 1
    for stack in series.stacks:
        index, distance = stack.nearest(point)
        candidates.append((distance, first + index, stack))
        first += stack.count
    _, instance, stack = min(candidates, key=lambda candidate: candidate[0])
    return instance, *stack.to_pixel(point)


def _write_table(path: Path, header: Row, lines: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(lines)
