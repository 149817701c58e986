"""Crops of candidates: cut, the best view of each finding chosen, and graded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar.dicom.slice_reader import SliceReader
from lumbar.errors import NotDicom
from lumbar.networks import Networks
from lumbar.spine.anatomy import Condition, FindingKey, Role
from lumbar.spine.candidates import Candidate
from lumbar.spine.crops import CROP_MM, crop, is_blank
from lumbar.spine.findings import Finding, ImagePoint, Probabilities

BLANK = "the image is blank there"


@dataclass(frozen=True)
class View:
    """A candidate's crop, float32 (224, 224, 3), 0–1, and VGG16's probabilities for it.

    ``shows`` is the probability that it shows its condition; ``conditions`` are those of every
    condition, in order, and of none.
    """

    candidate: Candidate
    crop: NDArray[np.float32]
    shows: float = 0.0
    conditions: tuple[float, ...] = ()


def cut_views(
    candidates: Sequence[Candidate], slices: SliceReader
) -> tuple[list[View], dict[FindingKey, str]]:
    """The candidates' views, and the reason for each finding whose slice is damaged or blank."""
    views, unreadable = [], {}
    for candidate in candidates:
        header = candidate.header
        try:
            image = slices.read(header)
        except NotDicom as error:
            unreadable[candidate.key] = str(error)
            continue
        size_mm = CROP_MM[candidate.key.condition.role]
        pixels = crop(image, header, candidate.column, candidate.row, size_mm)
        if is_blank(pixels):
            unreadable[candidate.key] = BLANK
            continue
        views.append(View(candidate, pixels))
    return views, unreadable


def best_views(views: Sequence[View], networks: Networks) -> list[View]:
    """For each finding the view on which VGG16 is most certain to see its condition."""
    if not views:
        return []
    probabilities = networks.conditions(np.stack([view.crop for view in views]))
    best: dict[FindingKey, View] = {}
    for view, row in zip(views, probabilities, strict=True):
        key = view.candidate.key
        shows = float(sum(row[list(Condition).index(c)] for c in looks_like(key.condition)))
        if key not in best or shows > best[key].shows:
            best[key] = View(view.candidate, view.crop, shows, tuple(row.tolist()))
    return list(best.values())


def looks_like(condition: Condition) -> tuple[Condition, ...]:
    """The conditions that a crop cannot tell apart, whose probabilities are summed.

    A sagittal crop does not show its side.
    """
    if condition.role is Role.SAGITTAL_T1:
        return (
            Condition.LEFT_NEURAL_FORAMINAL_NARROWING,
            Condition.RIGHT_NEURAL_FORAMINAL_NARROWING,
        )
    return (condition,)


def grade(views: Sequence[View], networks: Networks) -> dict[FindingKey, Finding]:
    """The findings, with ResNet-50's severities for their views."""
    if not views:
        return {}
    severities = networks.severities(np.stack([view.crop for view in views]))
    return {
        view.candidate.key: _finding(view, (float(row[0]), float(row[1]), float(row[2])))
        for view, row in zip(views, severities, strict=True)
    }


def _finding(view: View, probabilities: Probabilities) -> Finding:
    candidate, header = view.candidate, view.candidate.header
    x, y, z = (float(value) for value in header.to_patient(candidate.column, candidate.row))
    point = ImagePoint(
        series_instance_uid=header.series_instance_uid,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        frame=header.frame,
        column=candidate.column,
        row=candidate.row,
        x=x,
        y=y,
        z=z,
    )
    return Finding(*candidate.key.parts, probabilities=probabilities, point=point, shows=view.shows)
