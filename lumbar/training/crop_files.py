"""The crops to learn from: cut by the worker's own code, kept as 8-bit PNG, made by all cores and made once.

A study's crops lie in a folder named by what they were cut from, its labels and its files; the folder's name is the
last thing that is changed, so it is whole or not there.
"""

import csv
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.errors import NotDicom, Permanent, WrongSetting
from lumbar.spine.anatomy import Condition, FindingKey, Level
from lumbar.spine.crops import CROP_MM, PREPROCESSING_VERSION, SIDE, crop
from lumbar.spine.slices import SliceHeader
from lumbar.training.annotations import MarkedFinding, MarkedStudy, mark
from lumbar.training.demographics import Person, person_of
from lumbar.training.rsna_dataset import Dropped, Study
from lumbar.training.split import Part

MARGIN = (
    28  # pixels around a crop that are kept too, an eighth of its side: room to turn and to shift
)
MADE_BY = "2"  # of this file: another version makes other crops
FOLDER = f"crops-{PREPROCESSING_VERSION}.{MADE_BY}"
SPLIT, CUTS = "split.csv", "crops.csv"
OFF_TARGET_MM = 15.0  # from every finding of the role: nearer than that, a crop still shows it
ASIDE_MM, FAR_MM = (
    (18.0, 70.0),
    (12.0, 40.0),
)  # of a crop off target: within its slice, and across the slices

Rng = np.random.Generator


@dataclass(frozen=True)
class Cut(Person):
    """One kept crop. ``rank`` 0 is the labelled slice, 1 and more its neighbours; ``on_target`` False shows none of the
    conditions."""

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


def cut_crops(
    studies: Sequence[Study],
    folder: Path,
    advance: Callable[[int], None],
    processes: int | None = None,
) -> tuple[list[Cut], list[Dropped]]:
    """Crops of all studies, in their order, and what could not be used. What is there already is not cut again."""
    folder = folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    cuts: list[Cut] = []
    dropped: list[Dropped] = []
    workers = min(processes or os.cpu_count() or 1, len(studies))
    with ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        for own, lost in pool.map(partial(_cut_study, folder), studies):
            cuts += own
            dropped += lost
            advance(1)
    return cuts, dropped


def read_cut(folder: Path, cut: Cut) -> NDArray[np.uint8]:
    """Its pixels with ``MARGIN`` around them."""
    image = cv2.imread(str(folder / FOLDER / cut.file), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise Permanent(
            f"the crop {cut.file} in {folder / FOLDER} is gone; remove that folder and begin again"
        )
    return np.asarray(image, dtype=np.uint8)


def _cut_study(folder: Path, study: Study) -> tuple[list[Cut], list[Dropped]]:
    """From the study's folder where there is one, else cut now."""
    done = folder / f"{study.name}-{_origin(study)}"
    if done.exists():
        return _read_tables(done / CUTS)
    marked = mark(study)
    if isinstance(marked, Dropped):
        return [], [marked]
    staging = folder / f"{study.name}.staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    dropped = list(marked.dropped)
    cuts = list(_cuts(staging, done.name, marked, dropped))
    _write_tables(staging / CUTS, cuts, dropped)
    staging.rename(done)
    return cuts, dropped


def _origin(study: Study) -> str:
    """Of what is said of a study and of its files, by their names, sizes and times."""
    files = sorted(
        (str(f.relative_to(study.folder)), f.stat()) for f in study.folder.rglob("*") if f.is_file()
    )
    said = (
        sorted(study.severities.items()),
        sorted(study.marks.items()),
        sorted(study.series.items()),
        [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files],
    )
    return hashlib.sha256(repr(said).encode()).hexdigest()[:12]


def _cuts(staging: Path, folder: str, marked: MarkedStudy, dropped: list[Dropped]) -> Iterator[Cut]:
    rng = np.random.default_rng(int(hashlib.sha256(marked.study.name.encode()).hexdigest()[:8], 16))
    about: dict[str, Any] = {
        "study": marked.study.name,
        **asdict(person_of(marked.header, marked.study.name)),
    }
    for finding in marked.findings:
        name, role = finding.key.row_id("")[1:], finding.key.condition.role
        places = [(rank, s, *s.to_pixel(finding.point)) for rank, s in enumerate(finding.slices)]
        for rank, s, column, row in (*places, *_off_target(rng, finding, marked)):
            try:
                seen = crop(marked.reader.read(s), s, column, row, CROP_MM[role], MARGIN)
            except NotDicom as error:
                if rank == 0:
                    dropped.append(
                        Dropped(
                            marked.study.name, name, f"its labelled image cannot be read: {error}"
                        )
                    )
                    break
                continue
            file = f"{name}-{rank if rank >= 0 else 'none'}.png"
            if not cv2.imwrite(str(staging / file), np.rint(seen * 255).astype(np.uint8)):
                raise Permanent(f"{staging / file} cannot be written; is the disk full?")
            yield Cut(
                file=f"{folder}/{file}",
                condition=finding.key.condition,
                level=finding.key.level,
                severity=finding.severity,
                on_target=rank >= 0,
                rank=max(rank, 0),
                **about,
            )


def _off_target(
    rng: Rng, finding: MarkedFinding, marked: MarkedStudy
) -> Iterator[tuple[int, SliceHeader, float, float]]:
    """At most one place that shows none of the role's findings: beside it on its slice, or on one far from it."""
    labelled, role = finding.slices[0], finding.key.condition.role
    points = [f.point for f in marked.findings if f.key.condition.role is role]
    for _ in range(20):
        if rng.random() < 0.5:
            angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(*ASIDE_MM)
            header = labelled
            place = finding.point + away * (
                np.cos(angle) * header.along_row + np.sin(angle) * header.down_column
            )
        else:
            far = [
                s
                for s in marked.by_role[role]
                if FAR_MM[0] <= abs(s.distance(finding.point)) <= FAR_MM[1]
            ]
            if not far:
                continue
            header = far[int(rng.integers(len(far)))]
            place = header.to_patient(*header.to_pixel(finding.point))
        near = min(float(np.linalg.norm(place - point)) for point in points)
        column, row = header.to_pixel(place)
        if near >= (OFF_TARGET_MM if header is labelled else FAR_MM[0]) and header.contains(
            column, row
        ):
            yield -1, header, column, row
            return


def _write_tables(table: Path, cuts: Sequence[Cut], dropped: Sequence[Dropped]) -> None:
    """One file: the crops, then what was dropped."""
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f.name for f in fields(Cut)])
        writer.writerows(list(asdict(cut).values()) for cut in cuts)
        writer.writerow([])
        writer.writerows([lost.study, lost.finding, lost.why] for lost in dropped)


def _read_tables(table: Path) -> tuple[list[Cut], list[Dropped]]:
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    names, end = rows[0], rows.index([])
    cuts = []
    for row in rows[1:end]:
        said = dict(zip(names, row, strict=True))
        whole = {
            "rank": int(said["rank"]),
            **{n: said[n] == "True" for n in ("on_target", "synthetic")},
        }
        cuts.append(Cut(**(said | whole)))  # type: ignore[arg-type]
    return cuts, [Dropped(*row) for row in rows[end + 1 :]]


def kept_crops(work: Path, part: Part, most: int) -> NDArray[np.float32]:
    """Crops of a part of a training, (n, 224, 224), 0–1, evenly from all. Raises WrongSetting where there are none."""
    split = work / SPLIT
    if not split.is_file():
        raise WrongSetting(f"{work} has no {SPLIT}; name a training's work folder")
    with split.open(newline="", encoding="utf-8") as file:
        studies = {row["study_id"] for row in csv.DictReader(file) if row["part"] == part}
    files = sorted(f for study in studies for f in (work / FOLDER).glob(f"{study}-*/*.png"))
    if not files:
        raise WrongSetting(f"{work} has no crops of the {part} part any more; train again")
    chosen = files[:: -(-len(files) // most)]
    return np.stack(
        [as_read(np.asarray(cv2.imread(str(f), cv2.IMREAD_GRAYSCALE), np.uint8)) for f in chosen]
    )


def noise_crops(count: int) -> NDArray[np.float32]:
    """Smooth noise, (n, 224, 224), 0–1, where no crops are at hand."""
    rng = np.random.default_rng(1)
    grains = [rng.random((int(rng.integers(4, 60)),) * 2, dtype=np.float32) for _ in range(count)]
    smooth = [np.clip(cv2.resize(grain, (SIDE, SIDE)), 0, 1) for grain in grains]
    return np.asarray(np.stack(smooth), dtype=np.float32)


def as_read(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A kept crop as the worker cuts it, but for the rounding to 8 bits."""
    inner = np.ascontiguousarray(image[MARGIN:-MARGIN, MARGIN:-MARGIN])
    return np.asarray(inner / np.float32(255), dtype=np.float32)
