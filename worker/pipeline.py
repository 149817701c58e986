"""Analyses one study, from its instances to 25 findings; uses neither queue nor database."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lumbar.dicom.discover import MRInstance
from lumbar.dicom.slice_reader import SliceReader
from lumbar.errors import NotAnalysable
from lumbar.networks import Networks
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey
from lumbar.spine.candidates import candidates
from lumbar.spine.finding_points import Points, find_points
from lumbar.spine.findings import MIN_VIEW_PROBABILITY, Finding
from lumbar.spine.keypoint_input import KeypointDetector
from lumbar.spine.levels import Levels
from lumbar.spine.locate_levels import locate_levels
from lumbar.spine.roles import MAX_LOOSE_SLICES, Roles, assign_roles
from worker.loose_slice import Reading, is_loose_axial, not_assessed, read_loose_axial
from worker.views import View, best_views, cut_views, grade

Conditions = Mapping[FindingKey, tuple[float, ...]]

OFF_MIDLINE = "the dural sac is not seen on the sagittal images, which lie beside the mid-line"


@dataclass(frozen=True)
class Analysis:
    """The outcome for a study: always 25 findings, with notes on how it was read.

    ``choices`` say which series were read for what and how the levels were found. ``caveats`` say
    why the wrong images may have been read, or the levels misnamed. ``views`` are the crops that
    were graded.
    """

    study_instance_uid: str
    findings: tuple[Finding, ...]
    choices: tuple[str, ...]
    caveats: tuple[str, ...] = ()
    levels: Levels | None = None
    views: tuple[View, ...] = ()
    readings: tuple[Reading, ...] = ()  # of an axial slice whose level is not known

    def require_assessed(self, *, readings_suffice: bool = False) -> None:
        """Refuses a result in which nothing is assessed: the reason is more use to a reader.

        Raises:
            NotAnalysable: no finding is assessed and, with ``readings_suffice``, there is no
                reading without a level either.
        """
        if readings_suffice and self.readings:
            return
        if not any(finding.assessed for finding in self.findings):
            raise NotAnalysable(
                f"nothing could be assessed: {self.findings[0].reason}", self.choices
            )


@dataclass(frozen=True)
class LocatedStudy:
    """A study up to its crops, before they are classified.

    ``reasons`` explains every finding that has no view.
    """

    slices: SliceReader
    roles: Roles
    levels: Levels
    points: Points
    views: tuple[View, ...]
    reasons: Mapping[FindingKey, str]


def analyse(instances: Sequence[MRInstance], networks: Networks) -> Analysis:
    """Analyses one study.

    Raises:
        NotAnalysable: nothing can be assessed; the message gives the reason.
    """
    slices = SliceReader(instances)
    roles = assign_roles(slices.headers)
    notes = roles.choices + roles.notes
    try:
        if is_loose_axial(slices, roles):
            readings = read_loose_axial(slices, roles, networks)
            uid = slices.headers[0].study_instance_uid
            return Analysis(uid, not_assessed(), roles.choices, roles.caveats, readings=readings)
        located = locate(slices, roles, networks.keypoints)
    except NotAnalysable as error:
        raise NotAnalysable(str(error), notes) from error
    best = best_views(located.views, networks)
    graded = grade(best, networks)
    findings = tuple(
        graded.get(key) or Finding(*key.parts, reason=located.reasons[key]) for key in ALL_FINDINGS
    )
    analysis = Analysis(
        slices.headers[0].study_instance_uid,
        findings,
        notes + located.levels.notes + _poorly_shown(findings),
        roles.caveats + located.levels.caveats + located.points.caveats,
        located.levels,
        tuple(best),
    )
    if len(set(slices.headers)) > MAX_LOOSE_SLICES:
        analysis.require_assessed()
    return analysis


def locate(slices: SliceReader, roles: Roles, keypoints: KeypointDetector) -> LocatedStudy:
    """Locates levels and points, and cuts the crops.

    Raises:
        NotAnalysable: no lumbar spine is found.
    """
    levels = locate_levels(roles, slices.read, keypoints)
    points = find_points(levels, roles, slices.read, keypoints)
    chosen, no_candidate = candidates(roles, points.positions if levels.midline_known else {})
    if not levels.midline_known:
        no_candidate = {
            key: OFF_MIDLINE if "not found" in why else why for key, why in no_candidate.items()
        }
    views, unreadable = cut_views(chosen, slices)
    return LocatedStudy(slices, roles, levels, points, tuple(views), unreadable | no_candidate)


def read_with(
    networks: Networks,
) -> Callable[[Sequence[MRInstance]], tuple[tuple[Finding, ...], Conditions]]:
    """``analyse`` for an evaluation: the findings, and VGG16's probabilities for their views."""

    def read(instances: Sequence[MRInstance]) -> tuple[tuple[Finding, ...], Conditions]:
        analysis = analyse(instances, networks)
        return analysis.findings, {view.candidate.key: view.conditions for view in analysis.views}

    return read


def _poorly_shown(findings: Sequence[Finding]) -> tuple[str, ...]:
    """A note on the findings whose view VGG16 does not recognise: they are less reliable."""
    assessed = [finding for finding in findings if finding.shows is not None]
    poor = [f for f in assessed if f.shows is not None and f.shows < MIN_VIEW_PROBABILITY]
    if poor and len(poor) == len(assessed):
        return ("VGG16 recognises the view of no finding",)
    poorly_shown = []
    for condition in Condition:
        levels = ", ".join(f.level.label for f in poor if f.condition is condition)
        if levels:
            poorly_shown.append(f"{condition.label.lower()} at {levels}")
    return (
        (f"VGG16 does not recognise the view of {'; '.join(poorly_shown)}",) if poorly_shown else ()
    )
