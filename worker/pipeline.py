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
from worker.series_weighting import with_weighting
from worker.views import View, best_views, cut_views, grade

Conditions = Mapping[FindingKey, tuple[float, ...]]

OFF_MIDLINE = "the dural sac is not seen on the sagittal images, which lie beside the mid-line"


@dataclass(frozen=True)
class Analysis:
    """The outcome for a study: always 25 findings, with notes on how it was read.

    ``choices`` say which series were read for what and how the levels were found; those of
    ``roles`` come first. ``caveats`` say why the wrong images may have been read, or the levels
    misnamed. ``views`` are the crops that were graded. ``refusal`` says why the study cannot be
    analysed.
    """

    study_instance_uid: str
    findings: tuple[Finding, ...]
    choices: tuple[str, ...]
    roles: Roles
    caveats: tuple[str, ...] = ()
    levels: Levels | None = None
    views: tuple[View, ...] = ()
    readings: tuple[Reading, ...] = ()  # of an axial slice whose level is not known
    refusal: str | None = None

    def require_assessed(self, *, readings_suffice: bool = False) -> None:
        """Refuses a result in which nothing is assessed: the reason is more use to a reader.

        Raises:
            NotAnalysable: no finding is assessed and, with ``readings_suffice``, there is no
                reading without a level either.
        """
        if readings_suffice and self.readings:
            return
        if (refusal := _nothing_assessed(self.findings)) is not None:
            raise NotAnalysable(refusal, self.choices)


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
    analysis = examine(instances, networks)
    if analysis.refusal is not None:
        raise NotAnalysable(analysis.refusal, analysis.choices)
    return analysis


def examine(instances: Sequence[MRInstance], networks: Networks) -> Analysis:
    """As ``analyse``, but a study that cannot be analysed has a ``refusal`` and what was found.

    Raises:
        NotAnalysable: the instances belong to several studies.
    """
    slices = SliceReader(instances)
    uid = slices.headers[0].study_instance_uid
    roles = assign_roles(with_weighting(slices, instances, networks.keypoints))
    notes = roles.choices + roles.notes
    try:
        if is_loose_axial(slices, roles):
            readings = read_loose_axial(slices, roles, networks)
            choices, caveats = roles.choices, roles.caveats
            return Analysis(uid, not_assessed(), choices, roles, caveats, readings=readings)
        located = locate(slices, roles, networks.keypoints)
    except NotAnalysable as error:
        refusal = str(error)
        refused = tuple(Finding(*key.parts, reason=refusal) for key in ALL_FINDINGS)
        return Analysis(uid, refused, notes, roles, refusal=refusal)
    best = best_views(located.views, networks)
    graded = grade(best, networks)
    findings = tuple(
        graded.get(key) or Finding(*key.parts, reason=located.reasons[key]) for key in ALL_FINDINGS
    )
    loose = len(set(slices.headers)) <= MAX_LOOSE_SLICES
    return Analysis(
        uid,
        findings,
        notes + located.levels.notes + _poorly_shown(findings),
        roles,
        roles.caveats + located.levels.caveats + located.points.caveats,
        located.levels,
        tuple(best),
        refusal=None if loose else _nothing_assessed(findings),
    )


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


def _nothing_assessed(findings: Sequence[Finding]) -> str | None:
    """Why a study of which no finding is assessed is refused; None if any is assessed."""
    if any(finding.assessed for finding in findings):
        return None
    return f"nothing could be assessed: {findings[0].reason}"


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
