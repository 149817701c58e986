"""A study's labelled findings on its images: the slices each can be learnt from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from lumbar.dicom.discover import find_instances
from lumbar.dicom.slice_reader import SliceReader
from lumbar.errors import NotAnalysable
from lumbar.spine.anatomy import FindingKey, Level, Role, Severity
from lumbar.spine.candidates import REACH_MM
from lumbar.spine.slices import SliceHeader, Vector
from lumbar.training.rsna_dataset import Dropped, Study

NEIGHBOURS = 2  # slices beside the labelled one, of those within reach
MISNAMED_MM = (
    12.0  # by which a mark lies nearer to the marks of another level than to those of its own
)


@dataclass(frozen=True)
class MarkedFinding:
    """A labelled finding; ``point`` is in mm (LPS), ``slices`` has the labelled one first, then its neighbours."""

    key: FindingKey
    severity: Severity
    point: Vector
    slices: tuple[SliceHeader, ...]


@dataclass(frozen=True)
class MarkedStudy:
    """``header`` is of any of its images; ``by_role`` has all slices of the series described so."""

    study: Study
    reader: SliceReader
    header: Dataset
    by_role: Mapping[Role, tuple[SliceHeader, ...]]
    findings: tuple[MarkedFinding, ...]
    dropped: tuple[Dropped, ...]


def mark(study: Study) -> MarkedStudy | Dropped:
    """Puts a study's labels onto its images; a series is read for what the table describes it as."""
    try:
        instances, refused = find_instances(study.folder, study.folder)
    except NotAnalysable as error:
        return Dropped(study.name, "", str(error))
    files = {f"{found.path.parent.name}/{found.path.stem}": found.slices[0] for found in instances}
    dropped = [Dropped(study.name, "", f"an image: {file.reason}") for file in refused]
    by_role = {
        role: tuple(
            header
            for found in instances
            if study.series.get(found.path.parent.name) is role
            for header in found.slices[:1]
        )
        for role in Role
    }
    findings: list[MarkedFinding] = []
    for key in sorted(study.severities.keys() & study.marks.keys()):
        placed = study.marks[key]
        header = files.get(f"{placed.series}/{placed.instance}")
        role = key.condition.role
        if header is None:
            why = "its labelled image is missing or cannot be read"
        elif study.series.get(placed.series) is not role:
            why = f"it is marked on a series that is no {role.label}"
        elif not header.contains(placed.x, placed.y):
            why = "its coordinates lie outside the image"
        else:
            point = header.to_patient(placed.x, placed.y)
            slices = (header, *_beside(header, point, by_role[role], role))
            findings.append(MarkedFinding(key, study.severities[key], point, slices))
            continue
        dropped.append(Dropped(study.name, key.row_id("")[1:], why))
    misnamed = _misnamed(findings)
    dropped += [
        Dropped(study.name, key.row_id("")[1:], f"it lies where {at.label} is")
        for key, at in misnamed.items()
    ]
    kept = tuple(finding for finding in findings if finding.key not in misnamed)
    return MarkedStudy(
        study, SliceReader(instances), instances[0].header, by_role, kept, tuple(dropped)
    )


def _beside(
    labelled: SliceHeader, point: Vector, slices: Iterable[SliceHeader], role: Role
) -> Sequence[SliceHeader]:
    """The nearest others on which the point is within reach, as the worker would be offered them."""
    near = [
        s
        for s in slices
        if s != labelled
        and abs(s.distance(point)) <= REACH_MM[role]
        and s.contains(*s.to_pixel(point))
    ]
    return sorted(near, key=lambda s: abs(s.distance(point)))[:NEIGHBOURS]


def _misnamed(findings: Sequence[MarkedFinding]) -> dict[FindingKey, Level]:
    """Those whose mark lies among the marks of another level, as L5/S1 is confused, and that level."""
    found = {}
    for finding in findings:
        others = [f for f in findings if f.key != finding.key]
        middles = {
            level: np.median([f.point for f in others if f.key.level is level], axis=0)
            for level in Level
            if any(f.key.level is level for f in others)
        }
        if finding.key.level not in middles:
            continue
        away = {
            level: float(np.linalg.norm((finding.point - middle)[1:]))
            for level, middle in middles.items()
        }
        nearest = min(away, key=lambda level: away[level])
        if away[finding.key.level] - away[nearest] > MISNAMED_MM:
            found[finding.key] = nearest
    return found
