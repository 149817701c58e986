"""Locates the levels of a study: on which of its sagittal series, and whether these agree."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lumbar.errors import NotAnalysable
from lumbar.spine.anatomy import Role
from lumbar.spine.findings import NUMBERING_UNCERTAIN
from lumbar.spine.keypoint_input import KeypointDetector, ReadSlice
from lumbar.spine.levels import Levels, levels_on
from lumbar.spine.roles import Roles
from lumbar.spine.sagittal_maps import examine
from lumbar.spine.slices import Vector
from lumbar.spine.stacks import Stack

SAME_STATION_MM = 100.0  # maximum distance of the middles of two stacks of one body part
# Half the distance of two discs: the same names farther apart are those of different discs.
MAX_DISAGREEMENT_MM = 15.0


def locate_levels(roles: Roles, read: ReadSlice, keypoints: KeypointDetector) -> Levels:
    """The levels of a study, on the sagittal stack that names them with the fewest caveats.

    The lowest stack that shows a lumbar spine is examined in each role, T2/STIR and T1. Where the
    two disagree, or one of the same place is refused, that is a caveat. Series that another of
    their role was preferred to are tried only if all the preferred ones are refused.

    Raises:
        NotAnalysable: there is no sagittal series, none shows a lumbar spine, or none of the slices
            can be read.
    """
    located: list[Levels] = []
    refusals: list[_Refusal] = []
    for stacks in (roles.stacks, roles.alternatives):
        for role in (Role.SAGITTAL_T2, Role.SAGITTAL_T1):
            levels, refused = _first_located(role, stacks.get(role, ()), read, keypoints)
            located += levels
            refusals += refused
        if located:
            best = min(located, key=lambda levels: len(levels.caveats))  # the first if equal
            doubts = [*_disagreements(best, located), *_refused_here(best, refusals)]
            return replace(best, caveats=best.caveats + tuple(doubts))
    if not refusals:
        raise NotAnalysable(
            "no sagittal T1 or T2/STIR series was received; the disc levels are located on these"
        )
    raise NotAnalysable(refusals[0].reason)


@dataclass(frozen=True)
class _Refusal:
    """A stack on which no lumbar spine was found; ``middle`` in mm (LPS)."""

    role: Role
    middle: Vector
    reason: str


def _first_located(
    role: Role, stacks: Sequence[Stack], read: ReadSlice, keypoints: KeypointDetector
) -> tuple[list[Levels], list[_Refusal]]:
    """The levels on the first stack that shows them, at most one; and the refusals before it."""
    refusals: list[_Refusal] = []
    for stack in stacks:
        try:
            return [levels_on(role, examine(stack, read, keypoints), read, keypoints)], refusals
        except NotAnalysable as error:
            middle = stack.slices[len(stack.slices) // 2].centre
            refusals.append(_Refusal(role, middle, str(error)))
    return [], refusals


def _disagreements(best: Levels, located: Sequence[Levels]) -> Iterator[str]:
    """A caveat for each other stack of the same place on which the discs have other names."""
    for other in located:
        shared = sorted(best.canal.keys() & other.canal.keys())
        distances = [float(np.linalg.norm(best.canal[k] - other.canal[k])) for k in shared]
        if shared and MAX_DISAGREEMENT_MM < np.median(distances) < SAME_STATION_MM:
            yield f"{NUMBERING_UNCERTAIN}: the {other.role.label} images are numbered differently"


def _refused_here(best: Levels, refusals: Sequence[_Refusal]) -> Iterator[str]:
    """A caveat for each role whose images of the same place were refused."""
    middle = np.mean(list(best.canal.values()), axis=0)
    for role in {refusal.role: None for refusal in refusals}:
        here = [r for r in refusals if r.role is role and _near(r.middle, middle)]
        if here and role is not best.role:
            yield f"{NUMBERING_UNCERTAIN}: it rests on {best.role.label} alone; {here[0].reason}"


def _near(point: Vector, other: Vector) -> bool:
    return bool(np.linalg.norm(point - other) < SAME_STATION_MM)
