"""The labelled points of a data set in the RSNA 2024 layout."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lumbar.dicom.folder import Found
from lumbar.errors import WrongSetting
from lumbar.spine.anatomy import Condition, FindingKey, Level
from lumbar.spine.slices import SliceHeader, Vector

COORDINATES = "train_label_coordinates.csv"
IMAGES = "train_images"


@dataclass(frozen=True)
class Label:
    """A finding marked on a slice; ``point`` is in mm (LPS)."""

    key: FindingKey
    header: SliceHeader
    point: Vector


def study_folders(data: Path) -> list[Path]:
    """Raises WrongSetting where it is not such a data set."""
    images = data / IMAGES
    if not images.is_dir() or not (data / COORDINATES).is_file():
        raise WrongSetting(f"{data} has no {IMAGES}/ and {COORDINATES}; name a data set in the RSNA 2024 layout")
    return sorted(folder for folder in images.iterdir() if folder.is_dir())


def rows_by_study(path: Path) -> dict[str, list[dict[str, str]]]:
    """A table's rows by ``study_id``; none where there is no such file."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows: dict[str, list[dict[str, str]]] = {}
        for row in csv.DictReader(file):
            rows.setdefault(row["study_id"], []).append(row)
        return rows


def labels_of(folder: Path, instances: Sequence[Found], rows: Sequence[Mapping[str, str]]) -> list[Label]:
    """A study's labels; one on a slice that is not there is left out."""
    files = {found.path.relative_to(folder).as_posix(): found.slices[0] for found in instances}
    labels = []
    for row in rows:
        header = files.get(f"{row['series_id']}/{row['instance_number']}.dcm")
        if header is not None:
            point = header.to_patient(float(row["x"]), float(row["y"]))
            labels.append(Label(_key(row["condition"], row["level"]), header, point))
    return labels


def _key(condition: str, level: str) -> FindingKey:
    """Of "Left Neural Foraminal Narrowing" and "L1/L2"."""
    return FindingKey(
        Condition(condition.strip().lower().replace(" ", "_")), Level(level.strip().lower().replace("/", "_"))
    )
