"""The story: a study's instances in, 25 findings out. It reads files; it knows no queue and no table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar.dicom.discover import MRInstance
from lumbar.dicom.slice_reader import SliceReader
from lumbar.errors import NotAnalysable, NotDicom
from lumbar.networks import Networks
from lumbar.reports.picture import Cell, Marked, draw
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Role, Severity
from lumbar.spine.candidates import Candidate, candidates
from lumbar.spine.crops import CROP_MM, crop
from lumbar.spine.finding_points import (
    Points,
    expected_position,
    find_points,
    locate_recesses,
    locate_sac,
)
from lumbar.spine.findings import MIN_VIEW_PROBABILITY, Finding, ImagePoint, Probabilities
from lumbar.spine.keypoint_input import AXIAL, KeypointDetector, picture
from lumbar.spine.levels import MIN_PRESENCE, Levels, locate_levels
from lumbar.spine.roles import MAX_LOOSE_SLICES, Roles, assign_roles, series_numbers
from lumbar.spine.slices import SliceHeader, Vector

Conditions = Mapping[FindingKey, tuple[float, ...]]

BESIDE = "the dural sac is not seen on the sagittal images, which lie beside the mid-line"


@dataclass(frozen=True)
class Reading:
    """A condition graded where no level can be told; values as in ``Finding``."""

    condition: Condition
    probabilities: Probabilities
    shows: float
    point: ImagePoint

    def __str__(self) -> str:
        figures = ", ".join(
            f"{s.label} {p:.2f}" for s, p in zip(Severity, self.probabilities, strict=True)
        )
        return f"Without a level: {self.condition.label}: {figures}"


@dataclass(frozen=True)
class View:
    """A candidate as the networks see it; ``shows`` is VGG16's probability that it shows its condition, ``conditions``
    those of every condition, in order, and of none."""

    candidate: Candidate
    crop: NDArray[np.float32]
    shows: float = 0.0
    conditions: tuple[float, ...] = ()


@dataclass(frozen=True)
class Analysis:
    """What was made of a study: always 25 findings; and in words which series were read for what, and the levels.

    ``caveats`` are for which nobody can vouch for the levels' names; ``views`` are the crops that were graded.
    """

    study_instance_uid: str
    findings: tuple[Finding, ...]
    choices: tuple[str, ...]
    caveats: tuple[str, ...] = ()
    levels: Levels | None = None
    views: tuple[View, ...] = ()
    readings: tuple[Reading, ...] = ()  # of a loose axial slice, whose level cannot be told


@dataclass(frozen=True)
class Located:
    """A study up to its crops, before any of them is classified; ``reasons`` for every finding that has none."""

    slices: SliceReader
    roles: Roles
    levels: Levels
    points: Points
    views: tuple[View, ...]
    reasons: Mapping[FindingKey, str]


def analyse(instances: Sequence[MRInstance], networks: Networks) -> Analysis:
    """Reads one study.

    Raises:
        NotAnalysable: with the reason; no finding could honestly be given.
    """
    slices = SliceReader(instances)
    roles = assign_roles(slices.headers)
    told = roles.choices + roles.notes
    try:
        if is_loose_axial(slices, roles):
            return read_without_level(slices, roles, networks)
        located = locate(slices, roles, networks.keypoints)
        best = best_views(located.views, networks)
        graded = grade(best, networks)
        if not graded and len(set(slices.headers)) > MAX_LOOSE_SLICES:
            raise NotAnalysable(
                "nothing could be assessed: " + next(iter(located.reasons.values()))
            )
    except NotAnalysable as error:
        raise NotAnalysable(str(error), told) from error
    findings = tuple(
        graded.get(key) or Finding(*key.parts, reason=located.reasons[key]) for key in ALL_FINDINGS
    )
    return Analysis(
        slices.headers[0].study_instance_uid,
        findings,
        told + located.levels.notes + _poorly_shown(findings),
        located.levels.caveats + located.points.caveats,
        located.levels,
        tuple(best),
    )


def read_with(
    networks: Networks,
) -> Callable[[Sequence[MRInstance]], tuple[tuple[Finding, ...], Conditions]]:
    """``analyse``, as an evaluation asks for it: the findings, and VGG16's word on the views that were graded."""

    def read(instances: Sequence[MRInstance]) -> tuple[tuple[Finding, ...], Conditions]:
        analysis = analyse(instances, networks)
        return analysis.findings, {view.candidate.key: view.conditions for view in analysis.views}

    return read


def picture_of(
    analysis: Analysis, instances: Sequence[MRInstance], notices: Sequence[str]
) -> bytes:
    """A PNG by which a person can check the analysis in one look."""
    slices = SliceReader(instances)
    series = series_numbers(slices.headers)
    crops = {view.candidate.key: view for view in analysis.views}
    cells = []
    for finding in analysis.findings:
        view = crops.get(finding.key)
        source = ""
        if view is not None:
            header = view.candidate.header
            source = f"series {series[header.series_instance_uid]}, image {header.instance_number}"
        cells.append(Cell(finding, view.crop if view else None, source))
    lines = (
        *(f"Caution: {caveat}" for caveat in analysis.caveats),
        *map(str, analysis.readings),
        *analysis.choices,
    )
    return draw(_marked(analysis, slices), cells, lines, notices)


def _marked(analysis: Analysis, slices: SliceReader) -> Marked | None:
    """The slice that shows the levels; or the loose one, whose level cannot be told."""
    if analysis.levels is not None:
        header, canal = analysis.levels.source, analysis.levels.canal
        marks = {level.label: point for level, point in canal.items()}
        return Marked("Disc levels as they were named", slices.read(header), header, marks)
    for reading in analysis.readings:
        read_on = (reading.point.sop_instance_uid, reading.point.frame)
        header = next(s for s in slices.headers if (s.sop_instance_uid, s.frame) == read_on)
        marks = {
            str(r.condition.side).capitalize(): np.array([r.point.x, r.point.y, r.point.z])
            for r in analysis.readings
        }
        return Marked("A slice whose level is not known", slices.read(header), header, marks)
    return None


def locate(slices: SliceReader, roles: Roles, keypoints: KeypointDetector) -> Located:
    """Levels, points and crops. Raises NotAnalysable where no lumbar spine is found."""
    levels = locate_levels(roles, slices.read, keypoints)
    points = find_points(levels, roles, slices.read, keypoints)
    offered, no_candidate = candidates(roles, points.positions if levels.midline_known else {})
    if not levels.midline_known:
        no_candidate = {
            key: BESIDE if "not found" in why else why for key, why in no_candidate.items()
        }
    views, unreadable = cut(offered, slices)
    return Located(slices, roles, levels, points, tuple(views), unreadable | no_candidate)


def _poorly_shown(findings: Sequence[Finding]) -> tuple[str, ...]:
    """VGG16 recognises no view of the condition where one should be: the grade there is worth less."""
    assessed = [f for f in findings if f.shows is not None]
    poor = [f for f in assessed if f.shows is not None and f.shows < MIN_VIEW_PROBABILITY]
    if poor and len(poor) == len(assessed):
        return ("VGG16 recognises the view of no finding",)
    levels = {c: ", ".join(f.level.label for f in poor if f.condition is c) for c in Condition}
    told = [f"{condition.label.lower()} at {at}" for condition, at in levels.items() if at]
    return (f"VGG16 does not recognise the view of {'; '.join(told)}",) if told else ()


def cut(
    offered: Sequence[Candidate], slices: SliceReader
) -> tuple[list[View], dict[FindingKey, str]]:
    """The candidates' crops, and for damaged slices the reason by finding; the others go on."""
    views, unreadable = [], {}
    for candidate in offered:
        try:
            image = slices.read(candidate.header)
        except NotDicom as error:
            unreadable[candidate.key] = str(error)
            continue
        size_mm = CROP_MM[candidate.key.condition.role]
        views.append(
            View(candidate, crop(image, candidate.header, candidate.column, candidate.row, size_mm))
        )
    return views, unreadable


def best_views(views: Sequence[View], networks: Networks) -> list[View]:
    """For each finding the view on which VGG16 is surest to see its condition."""
    if not views:
        return []
    best: dict[FindingKey, View] = {}
    for view, probabilities in zip(
        views, networks.conditions(np.stack([v.crop for v in views])), strict=True
    ):
        key = view.candidate.key
        shows = float(
            sum(probabilities[list(Condition).index(c)] for c in seen_alike(key.condition))
        )
        if key not in best or shows > best[key].shows:
            best[key] = View(view.candidate, view.crop, shows, tuple(probabilities.tolist()))
    return list(best.values())


def seen_alike(condition: Condition) -> tuple[Condition, ...]:
    """The conditions a crop cannot tell apart: a sagittal one does not show its side, so left and right are summed."""
    if condition.role is Role.SAGITTAL_T1:
        return (
            Condition.LEFT_NEURAL_FORAMINAL_NARROWING,
            Condition.RIGHT_NEURAL_FORAMINAL_NARROWING,
        )
    return (condition,)


def grade(views: Sequence[View], networks: Networks) -> dict[FindingKey, Finding]:
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
    return len(set(slices.headers)) <= MAX_LOOSE_SLICES and set(roles.stacks) == {Role.AXIAL_T2}


def read_without_level(slices: SliceReader, roles: Roles, networks: Networks) -> Analysis:
    """What a loose axial slice allows: both recesses of its level, whichever that is."""
    header, points = _loose_recesses(slices, roles, networks.keypoints)
    offered = [Candidate(key, header, *header.to_pixel(point)) for key, point in points.items()]
    views, _ = cut(offered, slices)
    graded = grade(best_views(views, networks), networks)
    readings = tuple(
        Reading(finding.condition, finding.probabilities, finding.shows, finding.point)
        for finding in graded.values()
        if finding.probabilities and finding.point and finding.shows is not None
    )
    why = {
        Role.AXIAL_T2: "one axial slice does not tell its level",
        Role.SAGITTAL_T1: "no Sagittal T1 series was received",
        Role.SAGITTAL_T2: "no Sagittal T2/STIR series was received",
    }
    findings = tuple(Finding(*key.parts, reason=why[key.condition.role]) for key in ALL_FINDINGS)
    return Analysis(header.study_instance_uid, findings, roles.choices, readings=readings)


def _loose_recesses(
    slices: SliceReader, roles: Roles, keypoints: KeypointDetector
) -> tuple[SliceHeader, dict[FindingKey, Vector]]:
    """The first of the slices on which the sac and a recess are seen, and where, mm (LPS). Raises NotAnalysable."""
    level, refusals = (
        Level.L3_L4,
        [],
    )  # any level serves as a name here: it is dropped from the readings
    for header in (header for stack in roles.stacks[Role.AXIAL_T2] for header in stack.slices):
        try:
            seen = picture(slices.read(header), header, header.centre, AXIAL)
        except NotDicom as error:
            refusals.append(f"the slice cannot be read: {error}")
            continue
        (heat,) = keypoints.axial(seen.pixels[np.newaxis])
        shown, sac = locate_sac(seen, heat)
        usual = {
            key: expected_position(key, {level: sac}) for key in ALL_FINDINGS if key.level is level
        }
        recesses = list(locate_recesses(seen, heat, level, usual))
        if shown >= MIN_PRESENCE and max(mass for _, mass, _ in recesses) >= MIN_PRESENCE:
            return header, {
                key: point if mass >= MIN_PRESENCE else usual[key] for key, mass, point in recesses
            }
        refusals.append("no lumbar dural sac with its recesses is seen in the slice")
    raise NotAnalysable(f"{refusals[0]}, and no other series tells where to look")


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
