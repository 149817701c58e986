"""The labelled points of a data set in the RSNA 2024 layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lumbar.dicom.discover import MRInstance
from lumbar.errors import WrongSetting
from lumbar.spine.anatomy import FindingKey
from lumbar.spine.slices import SliceHeader, Vector
from lumbar.training.rsna_dataset import COORDINATES, IMAGES, key_of


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
        raise WrongSetting(
            f"{data} has no {IMAGES}/ and {COORDINATES}; name a data set in the RSNA 2024 layout"
        )
    return sorted(folder for folder in images.iterdir() if folder.is_dir())


def labels_of(
    folder: Path, instances: Sequence[MRInstance], rows: Sequence[Mapping[str, str]]
) -> list[Label]:
    """A study's labels; one on a slice that is not there is left out."""
    files = {found.path.relative_to(folder).as_posix(): found.slices[0] for found in instances}
    labels = []
    for row in rows:
        header = files.get(f"{row['series_id']}/{row['instance_number']}.dcm")
        if header is not None:
            point = header.to_patient(float(row["x"]), float(row["y"]))
            labels.append(Label(key_of(row["condition"], row["level"]), header, point))
    return labels
