"""A data set in the layout of RSNA 2024, read as it is. What cannot be used is told of, with the reason, never guessed.

``train_images/<study_id>/<series_id>/<instance_number>.dcm`` with ``train.csv`` (a severity or nothing for each of 25
findings), ``train_series_descriptions.csv`` and ``train_label_coordinates.csv``.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lumbar.errors import WrongSetting
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Role, Severity

LABELS, DESCRIPTIONS, COORDINATES = (
    "train.csv",
    "train_series_descriptions.csv",
    "train_label_coordinates.csv",
)
IMAGES = "train_images"
PLACED = ("series_id", "instance_number", "condition", "level", "x", "y")  # columns of COORDINATES
DESCRIBED = ("series_id", "series_description")  # and of DESCRIPTIONS
SEVERITIES = {severity.label.lower(): severity for severity in Severity}
ROLES = {role.label.lower(): role for role in Role}

Row = dict[str, str]


@dataclass(frozen=True)
class Dropped:
    """What is not learnt from: a finding (or ``""``: a whole study) and why."""

    study: str
    finding: str
    why: str


@dataclass(frozen=True)
class Mark:
    """Where a finding was marked: ``x`` and ``y`` are 0-based pixels of the file, integers at pixel centres."""

    series: str
    instance: str
    x: float
    y: float


@dataclass(frozen=True)
class Study:
    """What the tables say of one study; ``series`` by their folders' names."""

    name: str
    folder: Path
    severities: Mapping[FindingKey, Severity]
    marks: Mapping[FindingKey, Mark]
    series: Mapping[str, Role]


@dataclass(frozen=True)
class DataSet:
    """The studies that have images and labels, in the order of ``train.csv``."""

    studies: tuple[Study, ...]
    dropped: tuple[Dropped, ...] = field(default=())


def read_data_set(data: Path) -> DataSet:
    """The tables of a data set. Raises WrongSetting where it is not in this layout."""
    missing = [
        name for name in (LABELS, DESCRIPTIONS, COORDINATES, IMAGES) if not (data / name).exists()
    ]
    if missing:
        raise WrongSetting(f"{data} has no {missing[0]}; name a data set in the RSNA 2024 layout")
    marks, series = (
        rows_by_study(data / COORDINATES, *PLACED),
        rows_by_study(data / DESCRIPTIONS, *DESCRIBED),
    )
    studies: list[Study] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    for row in _rows(data / LABELS, *(_name(key) for key in ALL_FINDINGS)):
        name = row["study_id"]
        if name in seen:
            dropped.append(Dropped(name, "", "it is labelled twice; its first row counts"))
            continue
        seen.add(name)
        folder = data / IMAGES / name
        if not folder.is_dir():
            dropped.append(Dropped(name, "", "it has no images"))
            continue
        severities = _severities(row, dropped)
        marked = _marks(name, marks.get(name, ()), dropped)
        for key in severities.keys() - marked.keys():
            dropped.append(Dropped(name, _name(key), "a severity without coordinates"))
        for key in marked.keys() - severities.keys():
            dropped.append(Dropped(name, _name(key), "coordinates without a severity"))
        studies.append(
            Study(name, folder, severities, marked, _series(name, series.get(name, ()), dropped))
        )
    if not studies:
        raise WrongSetting(f"{data / LABELS} names no study that has images in {IMAGES}")
    return DataSet(tuple(studies), tuple(dropped))


def rows_by_study(path: Path, *columns: str) -> dict[str, list[Row]]:
    """A table's rows by ``study_id``; none where there is no such file. Raises WrongSetting where a column lacks."""
    rows: dict[str, list[Row]] = {}
    for row in _rows(path, *columns) if path.is_file() else ():
        rows.setdefault(row["study_id"], []).append(row)
    return rows


def series_by_study(data: Path) -> dict[str, dict[str, Role]]:
    """What the table of descriptions says each series is read for; nothing where there is no such table."""
    rows = rows_by_study(data / DESCRIPTIONS, *DESCRIBED)
    return {study: _series(study, own, []) for study, own in rows.items()}


def severities_of(path: Path) -> dict[str, dict[FindingKey, Severity]]:
    """By study the severities of a table like ``train.csv``; what is empty or unknown is left out."""
    return {row["study_id"]: _severities(row, []) for row in _rows(path)}


def key_of(condition: str, level: str) -> FindingKey:
    """Of "Left Neural Foraminal Narrowing" and "L1/L2". Raises ValueError where there is no such finding."""
    return FindingKey(
        Condition(condition.strip().lower().replace(" ", "_")),
        Level(level.strip().lower().replace("/", "_")),
    )


def _rows(path: Path, *columns: str) -> Iterator[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            missing = [
                name for name in ("study_id", *columns) if name not in (table.fieldnames or ())
            ]
            if missing:
                raise WrongSetting(
                    f"{path} has no column {missing[0]}; it is no table of the RSNA 2024 layout"
                )
            for row in table:
                yield {name: value or "" for name, value in row.items() if name is not None}
    except (UnicodeDecodeError, csv.Error) as error:
        raise WrongSetting(f"{path} cannot be read as a table in UTF-8; save it as such") from error


def _severities(row: Row, dropped: list[Dropped]) -> dict[FindingKey, Severity]:
    found = {}
    for key in ALL_FINDINGS:
        value = row.get(_name(key), "").strip()
        if severity := SEVERITIES.get(value.lower()):
            found[key] = severity
        else:
            why = f"an unknown severity, {value!r}" if value else "no severity"
            dropped.append(Dropped(row["study_id"], _name(key), why))
    return found


def _marks(study: str, rows: Iterable[Row], dropped: list[Dropped]) -> dict[FindingKey, Mark]:
    """By finding; of one that is marked twice the first row counts."""
    found: dict[FindingKey, Mark] = {}
    for row in rows:
        try:
            key = key_of(row["condition"], row["level"])
            mark = Mark(row["series_id"], row["instance_number"], float(row["x"]), float(row["y"]))
        except (KeyError, ValueError):
            dropped.append(Dropped(study, "", "a row of coordinates that cannot be read"))
            continue
        if key in found:
            dropped.append(Dropped(study, _name(key), "marked twice; its first row counts"))
        found.setdefault(key, mark)
    return found


def _series(study: str, rows: Iterable[Row], dropped: list[Dropped]) -> dict[str, Role]:
    found = {}
    for row in rows:
        if role := ROLES.get(row["series_description"].strip().lower()):
            found[row["series_id"]] = role
        else:
            dropped.append(
                Dropped(study, "", f"a series described as {row['series_description']!r}")
            )
    return found


def _name(key: FindingKey) -> str:
    """The column of ``train.csv``."""
    return key.row_id("")[1:]
