"""The training crops: cut once, by the worker's code, on all cores, and stored as 8-bit PNG.

A study's crops are in a folder named after a hash of its labels and files. The folder gets that
name in the last step, so it is either complete or absent.
"""

import csv
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.errors import NotDicom, Permanent, WrongSetting
from lumbar.process_pool import process_pool
from lumbar.spine.anatomy import Condition, FindingKey, Level
from lumbar.spine.crops import CROP_MM, PREPROCESSING_VERSION, SIDE, crop
from lumbar.spine.slices import SliceHeader, Vector
from lumbar.training.annotations import AnnotatedFinding, AnnotatedStudy, locate_annotations
from lumbar.training.demographics import Demographics, demographics_of
from lumbar.training.rsna_dataset import Exclusion, Study
from lumbar.training.split import Part

# Pixels stored around a crop, an eighth of its side: room for rotation and shift.
MARGIN = 28
# Increase this when this module cuts different crops from the same files.
CROP_FILES_VERSION = "2"
FOLDER = f"crops-{PREPROCESSING_VERSION}.{CROP_FILES_VERSION}"
SPLIT, CROP_TABLE = "split.csv", "crops.csv"
# Minimum distance of an off-target crop from every finding of the role; closer crops show it.
OFF_TARGET_MM = 15.0
# Limits of an off-target crop's distance from its finding, within the slice and across slices.
IN_PLANE_MM, THROUGH_PLANE_MM = (18.0, 70.0), (12.0, 40.0)
OFF_TARGET_ATTEMPTS = 20

Rng = np.random.Generator


@dataclass(frozen=True)
class CropFile(Demographics):
    """One stored crop.

    ``file`` is relative to ``FOLDER``. ``rank`` is 0 for the annotated slice, 1 and up
    for its neighbours; a crop that is not ``on_target`` shows none of the conditions.
    """

    file: str
    study: str
    condition: str
    level: str
    severity: str
    on_target: bool
    rank: int

    @property
    def key(self) -> FindingKey:
        return FindingKey(Condition(self.condition), Level(self.level))


def extract_crops(
    studies: Sequence[Study],
    folder: Path,
    advance: Callable[[int], None],
    processes: int | None = None,
) -> tuple[list[CropFile], list[Exclusion]]:
    """The crops of all studies, in order, and what was excluded; stored crops are reused."""
    folder = folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    crops: list[CropFile] = []
    exclusions: list[Exclusion] = []
    workers = min(processes or os.cpu_count() or 1, len(studies))
    with process_pool(workers) as pool:
        for study_crops, excluded in pool.map(partial(_extract_study, folder), studies):
            crops += study_crops
            exclusions += excluded
            advance(1)
    return crops, exclusions


def read_crop(folder: Path, file: CropFile) -> NDArray[np.uint8]:
    """The pixels of a stored crop with its ``MARGIN``, (280, 280), 0–255.

    Raises:
        Permanent: the file is missing or cannot be read.
    """
    image = cv2.imread(str(folder / FOLDER / file.file), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise Permanent(
            f"the crop {file.file} in {folder / FOLDER} is missing; "
            "remove that folder and start again"
        )
    return np.asarray(image, dtype=np.uint8)


def _extract_study(folder: Path, study: Study) -> tuple[list[CropFile], list[Exclusion]]:
    """One study's crops, read from its folder if it exists."""
    done = folder / f"{study.name}-{_source_hash(study)}"
    if done.exists():
        return _read_table(done / CROP_TABLE)
    annotated = locate_annotations(study)
    if isinstance(annotated, Exclusion):
        return [], [annotated]
    staging = folder / f"{study.name}.staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    exclusions = list(annotated.exclusions)
    crops = list(_extract(staging, done.name, annotated, exclusions))
    _write_table(staging / CROP_TABLE, crops, exclusions)
    staging.rename(done)
    return crops, exclusions


def _source_hash(study: Study) -> str:
    """Hash of a study's labels and of its files' names, sizes and times, 12 hexadecimal digits."""
    files = sorted(
        (str(f.relative_to(study.folder)), f.stat()) for f in study.folder.rglob("*") if f.is_file()
    )
    source = (
        sorted(study.severities.items()),
        sorted(study.annotations.items()),
        sorted(study.series.items()),
        [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files],
    )
    # Crops and training states of earlier versions are named after this spelling: keep it.
    spelling = repr(source).replace("Annotation(series=", "Mark(series=")
    return hashlib.sha256(spelling.encode()).hexdigest()[:12]


def _extract(
    staging: Path, folder: str, annotated: AnnotatedStudy, exclusions: list[Exclusion]
) -> Iterator[CropFile]:
    study = annotated.study.name
    rng = np.random.default_rng(int(hashlib.sha256(study.encode()).hexdigest()[:8], 16))
    shared: dict[str, Any] = {"study": study, **asdict(demographics_of(annotated.header, study))}
    for finding in annotated.findings:
        name, role = finding.key.row_id("")[1:], finding.key.condition.role
        points = [(rank, s, *s.to_pixel(finding.point)) for rank, s in enumerate(finding.slices)]
        for rank, s, column, row in (*points, *_off_target(rng, finding, annotated)):
            try:
                image = crop(annotated.reader.read(s), s, column, row, CROP_MM[role], MARGIN)
            except NotDicom as error:
                if rank == 0:
                    reason = f"its annotated image cannot be read: {error}"
                    exclusions.append(Exclusion(study, name, reason))
                    break
                continue
            file = f"{name}-{rank if rank >= 0 else 'none'}.png"
            if not cv2.imwrite(str(staging / file), np.rint(image * 255).astype(np.uint8)):
                raise Permanent(f"{staging / file} cannot be written; is the disk full?")
            yield CropFile(
                file=f"{folder}/{file}",
                condition=finding.key.condition,
                level=finding.key.level,
                severity=finding.severity,
                on_target=rank >= 0,
                rank=max(rank, 0),
                **shared,
            )


def _off_target(
    rng: Rng, finding: AnnotatedFinding, annotated: AnnotatedStudy
) -> Iterator[tuple[int, SliceHeader, float, float]]:
    """At most one point, of rank -1, that shows none of the role's findings.

    It lies beside the finding on the annotated slice, or on a slice far from it.
    """
    role = finding.key.condition.role
    findings = [f.point for f in annotated.findings if f.key.condition.role is role]
    for _ in range(OFF_TARGET_ATTEMPTS):
        if rng.random() < 0.5:
            header, point = _in_plane(rng, finding)
            minimum = OFF_TARGET_MM
        else:
            far = [
                s
                for s in annotated.by_role[role]
                if THROUGH_PLANE_MM[0] <= abs(s.distance(finding.point)) <= THROUGH_PLANE_MM[1]
            ]
            if not far:
                continue
            header = far[int(rng.integers(len(far)))]
            point = header.to_patient(*header.to_pixel(finding.point))
            minimum = THROUGH_PLANE_MM[0]
        nearest = min(float(np.linalg.norm(point - other)) for other in findings)
        column, row = header.to_pixel(point)
        if nearest >= minimum and header.contains(column, row):
            yield -1, header, column, row
            return


def _in_plane(rng: Rng, finding: AnnotatedFinding) -> tuple[SliceHeader, Vector]:
    """A random point (mm, LPS) beside the finding on its annotated slice."""
    header = finding.slices[0]
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(*IN_PLANE_MM)
    direction = np.cos(angle) * header.along_row + np.sin(angle) * header.down_column
    return header, finding.point + distance * direction


def _write_table(table: Path, crops: Sequence[CropFile], exclusions: Sequence[Exclusion]) -> None:
    """Writes one file: the crops, an empty line, the exclusions."""
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f.name for f in fields(CropFile)])
        writer.writerows(list(asdict(crop_file).values()) for crop_file in crops)
        writer.writerow([])
        writer.writerows([e.study, e.finding, e.reason] for e in exclusions)


def _read_table(table: Path) -> tuple[list[CropFile], list[Exclusion]]:
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    names, end = rows[0], rows.index([])
    crops = []
    for row in rows[1:end]:
        text = dict(zip(names, row, strict=True))
        typed = {
            "rank": int(text["rank"]),
            "on_target": text["on_target"] == "True",
            "synthetic": text["synthetic"] == "True",
        }
        crops.append(CropFile(**(text | typed)))  # type: ignore[arg-type]
    return crops, [Exclusion(*row) for row in rows[end + 1 :]]


def stored_crops(work: Path, part: Part, limit: int) -> NDArray[np.float32]:
    """At most ``limit`` crops of a part of a training's data, evenly spaced: (n, 224, 224), 0–1.

    Raises:
        WrongSetting: the folder is not a training's work folder, or has no crops of that part.
    """
    split = work / SPLIT
    if not split.is_file():
        raise WrongSetting(f"{work} has no {SPLIT}; name a training's work folder")
    with split.open(newline="", encoding="utf-8") as file:
        studies = {row["study_id"] for row in csv.DictReader(file) if row["part"] == part}
    files = sorted(f for study in studies for f in (work / FOLDER).glob(f"{study}-*/*.png"))
    if not files:
        raise WrongSetting(f"{work} no longer has crops of the {part} part; train again")
    chosen = files[:: -(-len(files) // limit)]
    images = [np.asarray(cv2.imread(str(f), cv2.IMREAD_GRAYSCALE), np.uint8) for f in chosen]
    return np.stack([worker_crop(image) for image in images])


def noise_crops(count: int) -> NDArray[np.float32]:
    """Smooth noise, (n, 224, 224), 0–1, for use where there are no crops."""
    rng = np.random.default_rng(1)
    grains = [rng.random((int(rng.integers(4, 60)),) * 2, dtype=np.float32) for _ in range(count)]
    smooth = [np.clip(cv2.resize(grain, (SIDE, SIDE)), 0, 1) for grain in grains]
    return np.asarray(np.stack(smooth), dtype=np.float32)


def worker_crop(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A stored crop (280, 280), 0–255, without its margin, as (224, 224), 0–1.

    It is what the worker would cut, except for the rounding to 8 bits.
    """
    inner = np.ascontiguousarray(image[MARGIN:-MARGIN, MARGIN:-MARGIN])
    return np.asarray(inner / np.float32(255), dtype=np.float32)
