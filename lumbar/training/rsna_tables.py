"""The annotated points of a data set in the RSNA 2024 layout, in patient coordinates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lumbar.dicom.discover import MRInstance
from lumbar.errors import WrongSetting
from lumbar.spine.anatomy import FindingKey
from lumbar.spine.slices import SliceHeader, Vector
from lumbar.training.rsna_dataset import COORDINATES, IMAGES, key_of


@dataclass(frozen=True)
class AnnotatedPoint:
    """A finding annotated on a slice; ``point`` is in mm (LPS)."""

    key: FindingKey
    header: SliceHeader
    point: Vector


def study_folders(data: Path) -> list[Path]:
    """The study folders of a data set, sorted.

    Raises:
        WrongSetting: the folder is not in the RSNA 2024 layout.
    """
    images = data / IMAGES
    if not images.is_dir() or not (data / COORDINATES).is_file():
        raise WrongSetting(
            f"{data} has no {IMAGES}/ and {COORDINATES}; name a data set in the RSNA 2024 layout"
        )
    return sorted(folder for folder in images.iterdir() if folder.is_dir())


def annotated_points(
    folder: Path, instances: Sequence[MRInstance], rows: Sequence[Mapping[str, str]]
) -> list[AnnotatedPoint]:
    """A study's annotated points; those on missing slices are omitted."""
    files = {
        instance.path.relative_to(folder).as_posix(): instance.slices[0] for instance in instances
    }
    points = []
    for row in rows:
        header = files.get(f"{row['series_id']}/{row['instance_number']}.dcm")
        if header is not None:
            point = header.to_patient(float(row["x"]), float(row["y"]))
            points.append(AnnotatedPoint(key_of(row["condition"], row["level"]), header, point))
    return points
