"""A study's annotated findings on its images, and the slices that each provides for training."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from lumbar.dicom.discover import MRInstance, find_instances
from lumbar.dicom.slice_reader import SliceReader
from lumbar.errors import NotAnalysable
from lumbar.spine.anatomy import FindingKey, Level, Role, Severity
from lumbar.spine.candidates import REACH_MM
from lumbar.spine.slices import SliceHeader, Vector
from lumbar.training.rsna_dataset import UNREADABLE, Exclusion, Study

# Maximum number of slices, within reach of the point, that are used besides the annotated one.
NEIGHBOURS = 2
# An annotation is excluded if it is closer to another level's annotations than to those of its own
# level by more than this.
MISLABELLED_MM = 12.0


@dataclass(frozen=True)
class AnnotatedFinding:
    """A labelled finding; ``point`` in mm (LPS), ``slices``: the annotated one, then neighbours."""

    key: FindingKey
    severity: Severity
    point: Vector
    slices: tuple[SliceHeader, ...]


@dataclass(frozen=True)
class AnnotatedStudy:
    """A study's usable findings; ``header`` is that of any image.

    ``by_role`` has all slices of the series that the table describes as that role.
    """

    study: Study
    reader: SliceReader
    header: Dataset
    by_role: Mapping[Role, tuple[SliceHeader, ...]]
    findings: tuple[AnnotatedFinding, ...]
    exclusions: tuple[Exclusion, ...]


def locate_annotations(study: Study) -> AnnotatedStudy | Exclusion:
    """A study's annotations in patient coordinates; the table states the role of each series."""
    try:
        instances, refused = find_instances(study.folder, study.folder)
    except NotAnalysable as error:
        return Exclusion(study.name, "", f"{UNREADABLE}: {error}")
    files = {f"{i.path.parent.name}/{i.path.stem}": i.slices[0] for i in instances}
    exclusions = [Exclusion(study.name, "", f"an image: {file.reason}") for file in refused]
    by_role = {role: _slices(instances, study.series, role) for role in Role}
    findings: list[AnnotatedFinding] = []
    for key in sorted(study.severities.keys() & study.annotations.keys()):
        finding = _locate(study, key, files, by_role[key.condition.role])
        if isinstance(finding, Exclusion):
            exclusions.append(finding)
        else:
            findings.append(finding)
    mislabelled = _mislabelled(findings)
    exclusions += [
        Exclusion(study.name, key.row_id("")[1:], f"it lies where {level.label} is")
        for key, level in mislabelled.items()
    ]
    usable = tuple(finding for finding in findings if finding.key not in mislabelled)
    return AnnotatedStudy(
        study, SliceReader(instances), instances[0].header, by_role, usable, tuple(exclusions)
    )


def _slices(
    instances: Iterable[MRInstance], series: Mapping[str, Role], role: Role
) -> tuple[SliceHeader, ...]:
    """The first slice of every instance in a series of that role."""
    return tuple(
        header
        for instance in instances
        if series.get(instance.path.parent.name) is role
        for header in instance.slices[:1]
    )


def _locate(
    study: Study,
    key: FindingKey,
    files: Mapping[str, SliceHeader],
    slices: Iterable[SliceHeader],
) -> AnnotatedFinding | Exclusion:
    """One finding; ``files``: by series folder and file stem; ``slices``: those of its role."""
    annotation, role = study.annotations[key], key.condition.role
    header = files.get(f"{annotation.series}/{annotation.instance}")
    if header is None:
        reason = "its annotated image is missing or cannot be read"
    elif study.series.get(annotation.series) is not role:
        reason = f"it is annotated on a series that is not {role.label}"
    elif not header.contains(annotation.x, annotation.y):
        reason = "its coordinates lie outside the image"
    else:
        point = header.to_patient(annotation.x, annotation.y)
        neighbours = _neighbours(header, point, slices, role)
        return AnnotatedFinding(key, study.severities[key], point, (header, *neighbours))
    return Exclusion(study.name, key.row_id("")[1:], reason)


def _neighbours(
    annotated: SliceHeader, point: Vector, slices: Iterable[SliceHeader], role: Role
) -> Sequence[SliceHeader]:
    """The nearest other slices within reach of the point, as the worker chooses candidates."""
    near = [
        s
        for s in slices
        if s != annotated
        and abs(s.distance(point)) <= REACH_MM[role]
        and s.contains(*s.to_pixel(point))
    ]
    return sorted(near, key=lambda s: abs(s.distance(point)))[:NEIGHBOURS]


def _mislabelled(findings: Sequence[AnnotatedFinding]) -> dict[FindingKey, Level]:
    """Findings annotated at the wrong level, as happens with L5/S1, and the right level."""
    levels = {}
    for finding in findings:
        centres = _level_centres([f for f in findings if f.key != finding.key])
        if finding.key.level not in centres:
            continue
        distances = {
            level: float(np.linalg.norm((finding.point - centre)[1:]))
            for level, centre in centres.items()
        }
        nearest = min(distances, key=lambda level: distances[level])
        if distances[finding.key.level] - distances[nearest] > MISLABELLED_MM:
            levels[finding.key] = nearest
    return levels


def _level_centres(findings: Iterable[AnnotatedFinding]) -> dict[Level, Vector]:
    """The median annotated point of each level, mm (LPS)."""
    points: dict[Level, list[Vector]] = {}
    for finding in findings:
        points.setdefault(finding.key.level, []).append(finding.point)
    return {level: np.median(points[level], axis=0) for level in Level if level in points}
