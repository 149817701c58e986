"""The story: a study's instances in, 25 findings out. It reads files; it knows no queue and no table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar.dicom.folder import Found
from lumbar.dicom.reader import SliceReader
from lumbar.errors import NotAnalysable, NotDicom
from lumbar.networks import CropReader
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Role
from lumbar.spine.candidates import Candidate, candidates
from lumbar.spine.crops import CROP_MM, crop
from lumbar.spine.findings import Finding, Place, Probabilities
from lumbar.spine.levels import locate_levels
from lumbar.spine.roles import ALONE, Roles, assign_roles
from lumbar.spine.sac import find_sac


@dataclass(frozen=True)
class Reading:
    """A condition graded where no level can be told; values as in ``Finding``."""

    condition: Condition
    probabilities: Probabilities
    shows: float
    place: Place


@dataclass(frozen=True)
class Analysis:
    """What was made of a study: always 25 findings; and in words which series were read for what, and the levels."""

    study_instance_uid: str
    findings: tuple[Finding, ...]
    choices: tuple[str, ...]
    readings: tuple[Reading, ...] = ()  # of a loose axial slice, whose level cannot be told


@dataclass(frozen=True)
class View:
    """A candidate as the networks see it; ``shows`` is VGG16's probability that it shows its condition."""

    candidate: Candidate
    crop: NDArray[np.float32]
    shows: float = 0.0


def analyse(instances: Sequence[Found], networks: CropReader) -> Analysis:
    """Reads one study.

    Raises:
        NotAnalysable: with the reason; no finding could honestly be given.
    """
    slices = SliceReader(instances)
    roles = assign_roles(slices.headers)
    if is_loose_axial(slices, roles):
        return read_without_level(slices, roles, networks)
    levels = locate_levels(roles, slices.read)
    offered, no_candidate = candidates(roles, levels.canal, sac_seen=levels.sac_seen)
    views, unreadable = cut(offered, slices)
    best = best_views(views, networks)
    graded = grade(best, networks)
    reasons = unreadable | no_candidate
    if not graded and len(slices.headers) > ALONE:
        raise NotAnalysable("nothing could be assessed: " + next(iter(reasons.values())))
    findings = tuple(graded.get(key) or Finding(*key.parts, reason=reasons[key]) for key in ALL_FINDINGS)
    return Analysis(slices.headers[0].study_instance_uid, findings, roles.choices + levels.notes)


def cut(offered: Sequence[Candidate], slices: SliceReader) -> tuple[list[View], dict[FindingKey, str]]:
    """The candidates' crops, and for damaged slices the reason by finding; the others go on."""
    views, unreadable = [], {}
    for candidate in offered:
        try:
            image = slices.read(candidate.header)
        except NotDicom as error:
            unreadable[candidate.key] = str(error)
            continue
        size_mm = CROP_MM[candidate.key.condition.role]
        views.append(View(candidate, crop(image, candidate.header, candidate.column, candidate.row, size_mm)))
    return views, unreadable


def best_views(views: Sequence[View], networks: CropReader) -> list[View]:
    """For each finding the view on which VGG16 is surest to see its condition."""
    if not views:
        return []
    best: dict[FindingKey, View] = {}
    for view, probabilities in zip(views, networks.conditions(np.stack([v.crop for v in views])), strict=True):
        key = view.candidate.key
        shows = float(sum(probabilities[list(Condition).index(c)] for c in seen_alike(key.condition)))
        if key not in best or shows > best[key].shows:
            best[key] = View(view.candidate, view.crop, shows)
    return list(best.values())


def seen_alike(condition: Condition) -> tuple[Condition, ...]:
    """The conditions a crop cannot tell apart: a sagittal one does not show its side, so left and right are summed."""
    if condition.role is Role.SAGITTAL_T1:
        return (Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Condition.RIGHT_NEURAL_FORAMINAL_NARROWING)
    return (condition,)


def grade(views: Sequence[View], networks: CropReader) -> dict[FindingKey, Finding]:
    """ResNet-50's severities of the chosen views."""
    if not views:
        return {}
    severities = networks.severities(np.stack([view.crop for view in views]))
    return {
        view.candidate.key: _finding(view, (float(row[0]), float(row[1]), float(row[2])))
        for view, row in zip(views, severities, strict=True)
    }


def is_loose_axial(slices: SliceReader, roles: Roles) -> bool:
    """A file or two analysed alone, axial: both recesses show, but nothing tells the level."""
    return len(slices.headers) <= ALONE and set(roles.stacks) == {Role.AXIAL_T2}


def read_without_level(slices: SliceReader, roles: Roles, networks: CropReader) -> Analysis:
    """What a loose axial slice allows: both recesses of its level, whichever that is."""
    header = roles.stacks[Role.AXIAL_T2][0].slices[0]
    try:
        sac = find_sac(slices.read(header), header)
    except NotDicom as error:
        raise NotAnalysable(f"the only slice cannot be read: {error}") from error
    if sac is None:
        raise NotAnalysable("no dural sac stands out in the only slice, and no other series tells where to look")
    # Any level serves as a name here: it is dropped from the readings.
    offered, _ = candidates(roles, {Level.L3_L4: sac})
    views, _ = cut(offered, slices)
    graded = grade(best_views(views, networks), networks)
    readings = tuple(
        Reading(finding.condition, finding.probabilities, finding.shows, finding.place)
        for finding in graded.values()
        if finding.probabilities and finding.place and finding.shows is not None
    )
    reasons = {
        Role.AXIAL_T2: "one axial slice does not tell its level",
        Role.SAGITTAL_T1: "no Sagittal T1 series was received",
        Role.SAGITTAL_T2: "no Sagittal T2/STIR series was received",
    }
    findings = tuple(Finding(*key.parts, reason=reasons[key.condition.role]) for key in ALL_FINDINGS)
    return Analysis(header.study_instance_uid, findings, roles.choices, readings)


def _finding(view: View, probabilities: Probabilities) -> Finding:
    candidate, header = view.candidate, view.candidate.header
    x, y, z = (float(value) for value in header.to_patient(candidate.column, candidate.row))
    place = Place(
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
    return Finding(*candidate.key.parts, probabilities=probabilities, place=place, shows=view.shows)
