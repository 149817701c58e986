"""Reads a data set in the RSNA 2024 layout; unusable data are excluded with a reason.

``train_images/<study_id>/<series_id>/<instance_number>.dcm`` with ``train.csv`` (a severity, or
none, for each of 25 findings), ``train_series_descriptions.csv`` and
``train_label_coordinates.csv``. Nothing is guessed or repaired.
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
UNREADABLE = "the study cannot be read"  # begins the reason if none of a study's images can be
COORDINATE_COLUMNS = ("series_id", "instance_number", "condition", "level", "x", "y")
DESCRIPTION_COLUMNS = ("series_id", "series_description")
SEVERITIES = {severity.label.lower(): severity for severity in Severity}
ROLES = {role.label.lower(): role for role in Role}

Row = dict[str, str]


@dataclass(frozen=True)
class Exclusion:
    """A finding (``""``: a whole study) that is excluded from training, and the reason."""

    study: str
    finding: str
    reason: str

    @property
    def unreadable(self) -> bool:
        """Whether the study has images of which none can be read."""
        return self.reason.startswith(UNREADABLE)


@dataclass(frozen=True)
class Annotation:
    """The annotated point of a finding: 0-based pixels of the file, integers at pixel centres."""

    series: str
    instance: str
    x: float
    y: float


@dataclass(frozen=True)
class Study:
    """One study's rows of the tables; ``series`` has roles by the name of the series folder."""

    name: str
    folder: Path
    severities: Mapping[FindingKey, Severity]
    annotations: Mapping[FindingKey, Annotation]
    series: Mapping[str, Role]


@dataclass(frozen=True)
class DataSet:
    """The studies that have images and labels, in the order of ``train.csv``."""

    studies: tuple[Study, ...]
    exclusions: tuple[Exclusion, ...] = field(default=())


def read_data_set(data: Path) -> DataSet:
    """The studies of a data set, and the exclusions.

    Raises:
        WrongSetting: the folder is not in this layout, or no labelled study has images.
    """
    missing = [
        name for name in (LABELS, DESCRIPTIONS, COORDINATES, IMAGES) if not (data / name).exists()
    ]
    if missing:
        raise WrongSetting(f"{data} has no {missing[0]}; name a data set in the RSNA 2024 layout")
    coordinates = rows_by_study(data / COORDINATES, *COORDINATE_COLUMNS)
    series = rows_by_study(data / DESCRIPTIONS, *DESCRIPTION_COLUMNS)
    studies: list[Study] = []
    exclusions: list[Exclusion] = []
    names: set[str] = set()
    for row in _rows(data / LABELS, *(_column(key) for key in ALL_FINDINGS)):
        name = row["study_id"]
        if name in names:
            exclusions.append(Exclusion(name, "", "it is labelled twice; the first row counts"))
            continue
        names.add(name)
        folder = data / IMAGES / name
        if not folder.is_dir():
            exclusions.append(Exclusion(name, "", "it has no images"))
            continue
        severities = _severities(row, exclusions)
        annotations = _annotations(name, coordinates.get(name, ()), exclusions)
        exclusions += _unmatched(name, severities, annotations)
        roles = _series(name, series.get(name, ()), exclusions)
        studies.append(Study(name, folder, severities, annotations, roles))
    if not studies:
        raise WrongSetting(f"{data / LABELS} names no study that has images in {IMAGES}")
    return DataSet(tuple(studies), tuple(exclusions))


def rows_by_study(path: Path, *columns: str) -> dict[str, list[Row]]:
    """A table's rows by ``study_id``; empty if there is no such file.

    Raises:
        WrongSetting: the table lacks a column or is not CSV in UTF-8.
    """
    rows: dict[str, list[Row]] = {}
    for row in _rows(path, *columns) if path.is_file() else ():
        rows.setdefault(row["study_id"], []).append(row)
    return rows


def series_by_study(data: Path) -> dict[str, dict[str, Role]]:
    """The role of each series as described in the table; empty if there is no such table."""
    rows = rows_by_study(data / DESCRIPTIONS, *DESCRIPTION_COLUMNS)
    return {study: _series(study, study_rows, []) for study, study_rows in rows.items()}


def read_severities(path: Path) -> dict[str, dict[FindingKey, Severity]]:
    """Severities in a table like ``train.csv``, by study; empty or unknown ones are omitted."""
    return {row["study_id"]: _severities(row, []) for row in _rows(path)}


def key_of(condition: str, level: str) -> FindingKey:
    """The finding of a row such as "Left Neural Foraminal Narrowing" and "L1/L2".

    Raises:
        ValueError: there is no such finding (raised by the enumerations).
    """
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
                    f"{path} has no column {missing[0]}; name a table of the RSNA 2024 layout"
                )
            for row in table:
                yield {name: value or "" for name, value in row.items() if name is not None}
    except (UnicodeDecodeError, csv.Error) as error:
        raise WrongSetting(f"{path} cannot be read as a table in UTF-8; save it as such") from error


def _severities(row: Row, exclusions: list[Exclusion]) -> dict[FindingKey, Severity]:
    severities = {}
    for key in ALL_FINDINGS:
        value = row.get(_column(key), "").strip()
        if severity := SEVERITIES.get(value.lower()):
            severities[key] = severity
        else:
            reason = f"an unknown severity, {value!r}" if value else "no severity"
            exclusions.append(Exclusion(row["study_id"], _column(key), reason))
    return severities


def _annotations(
    study: str, rows: Iterable[Row], exclusions: list[Exclusion]
) -> dict[FindingKey, Annotation]:
    """Annotations by finding; if a finding is annotated twice, the first row counts."""
    annotations: dict[FindingKey, Annotation] = {}
    for row in rows:
        try:
            key = key_of(row["condition"], row["level"])
            annotation = Annotation(
                row["series_id"], row["instance_number"], float(row["x"]), float(row["y"])
            )
        except (KeyError, ValueError):
            exclusions.append(Exclusion(study, "", "a row of coordinates that cannot be read"))
            continue
        if key in annotations:
            reason = "annotated twice; the first row counts"
            exclusions.append(Exclusion(study, _column(key), reason))
        annotations.setdefault(key, annotation)
    return annotations


def _unmatched(
    study: str,
    severities: Mapping[FindingKey, Severity],
    annotations: Mapping[FindingKey, Annotation],
) -> Iterator[Exclusion]:
    for key in sorted(severities.keys() - annotations.keys()):
        yield Exclusion(study, _column(key), "a severity without coordinates")
    for key in sorted(annotations.keys() - severities.keys()):
        yield Exclusion(study, _column(key), "coordinates without a severity")


def _series(study: str, rows: Iterable[Row], exclusions: list[Exclusion]) -> dict[str, Role]:
    roles = {}
    for row in rows:
        if role := ROLES.get(row["series_description"].strip().lower()):
            roles[row["series_id"]] = role
        else:
            reason = f"a series described as {row['series_description']!r}"
            exclusions.append(Exclusion(study, "", reason))
    return roles


def _column(key: FindingKey) -> str:
    """The finding's column in ``train.csv``."""
    return key.row_id("")[1:]
