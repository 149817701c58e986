"""Axial slices without a sagittal series: both recesses show, but nothing shows the level."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lumbar.dicom.slice_reader import SliceReader
from lumbar.errors import NotAnalysable, NotDicom
from lumbar.networks import Networks
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Role, Severity
from lumbar.spine.candidates import Candidate
from lumbar.spine.finding_points import expected_position, locate_recesses, locate_sac
from lumbar.spine.findings import Finding, ImagePoint, Probabilities
from lumbar.spine.keypoint_input import AXIAL, KeypointDetector, picture
from lumbar.spine.levels import MIN_PRESENCE
from lumbar.spine.roles import MAX_LOOSE_SLICES, Roles
from lumbar.spine.slices import SliceHeader, Vector
from worker.views import best_views, cut_views, grade

PLACEHOLDER = Level.L3_L4  # keys need a level; it is dropped from the readings

NOT_ASSESSED = {
    Role.AXIAL_T2: "one axial slice does not show its level",
    Role.SAGITTAL_T1: "no Sagittal T1 series was received",
    Role.SAGITTAL_T2: "no Sagittal T2/STIR series was received",
}


@dataclass(frozen=True)
class Reading:
    """A condition graded on a slice where no level is known; values as in ``Finding``."""

    header: SliceHeader
    condition: Condition
    probabilities: Probabilities
    shows: float
    point: ImagePoint

    def __str__(self) -> str:
        severities = zip(Severity, self.probabilities, strict=True)
        figures = ", ".join(f"{severity.label} {p:.2f}" for severity, p in severities)
        return f"Without a level: {self.condition.label}: {figures}"


def is_loose_axial(slices: SliceReader, roles: Roles) -> bool:
    """Whether the input is at most ``MAX_LOOSE_SLICES`` slices, all of them axial T2."""
    return len(set(slices.headers)) <= MAX_LOOSE_SLICES and set(roles.stacks) == {Role.AXIAL_T2}


def read_loose_axial(slices: SliceReader, roles: Roles, networks: Networks) -> tuple[Reading, ...]:
    """Grades both recesses on the slice, whichever level it shows.

    Raises:
        NotAnalysable: no lumbar dural sac with its recesses is seen, or neither recess can be read.
    """
    header, points = _recesses(slices, roles, networks.keypoints)
    candidates = [Candidate(key, header, *header.to_pixel(point)) for key, point in points.items()]
    views, unreadable = cut_views(candidates, slices)
    if not views:
        raise NotAnalysable(next(iter(unreadable.values())))
    return tuple(
        Reading(header, finding.condition, finding.probabilities, finding.shows, finding.point)
        for finding in grade(best_views(views, networks), networks).values()
        if finding.probabilities and finding.point and finding.shows is not None
    )


def not_assessed() -> tuple[Finding, ...]:
    """All 25 findings of such an input: none has a level."""
    return tuple(
        Finding(*key.parts, reason=NOT_ASSESSED[key.condition.role]) for key in ALL_FINDINGS
    )


def _recesses(
    slices: SliceReader, roles: Roles, keypoints: KeypointDetector
) -> tuple[SliceHeader, Mapping[FindingKey, Vector]]:
    """The first slice on which the sac and a recess are seen, and the recesses' points, mm (LPS).

    Raises:
        NotAnalysable: they are seen on no slice.
    """
    refusals = []
    for header in (header for stack in roles.stacks[Role.AXIAL_T2] for header in stack.slices):
        try:
            view = picture(slices.read(header), header, header.centre, AXIAL)
        except NotDicom as error:
            refusals.append(f"the slice cannot be read: {error}")
            continue
        (heat,) = keypoints.axial(view.pixels[np.newaxis])
        presence, sac = locate_sac(view, heat)
        keys = [key for key in ALL_FINDINGS if key.level is PLACEHOLDER]
        usual = {key: expected_position(key, {PLACEHOLDER: sac}) for key in keys}
        recesses = list(locate_recesses(view, heat, PLACEHOLDER, usual))
        if presence >= MIN_PRESENCE and max(mass for _, mass, _ in recesses) >= MIN_PRESENCE:
            return header, {
                key: point if mass >= MIN_PRESENCE else usual[key] for key, mass, point in recesses
            }
        refusals.append("no lumbar dural sac with its recesses is seen in the slice")
    raise NotAnalysable(f"{refusals[0]}, and no other series shows where to look")
