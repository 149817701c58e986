"""The slices on which each finding can be read: those of its role nearest to its point."""

from collections.abc import Mapping
from dataclasses import dataclass

from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey, Role
from lumbar.spine.roles import Roles, Stack
from lumbar.spine.slices import SliceHeader, Vector
from lumbar.spine.stacks import position_key

PER_FINDING = 2  # candidate slices classified by VGG16 for each finding
# The greatest distance of a slice from the point. Farther away, an axial slice belongs to another
# level, and a sagittal one does not show the canal or the foramen.
REACH_MM = {Role.SAGITTAL_T2: 6.0, Role.SAGITTAL_T1: 6.0, Role.AXIAL_T2: 5.0}


@dataclass(frozen=True)
class Candidate:
    """A slice that a finding may be read on, at a point (0-based, integers at pixel centres)."""

    key: FindingKey
    header: SliceHeader
    column: float
    row: float


def candidates(
    roles: Roles, points: Mapping[FindingKey, Vector]
) -> tuple[list[Candidate], dict[FindingKey, str]]:
    """Candidates in the order of the findings, the nearest slice first.

    The second result states why a finding has no candidate. ``points``: the position
    of each finding whose level was located, mm (LPS).
    """
    selected: list[Candidate] = []
    reasons: dict[FindingKey, str] = {}
    for key in ALL_FINDINGS:
        role = key.condition.role
        stacks = roles.stacks.get(role, ())
        if not stacks:
            reasons[key] = f"no {role.label} series was received"
        elif key not in points:
            reasons[key] = "the disc level was not found"
        else:
            point = points[key]
            near = [
                Candidate(key, header, *header.to_pixel(point))
                for header in _near(stacks, point, REACH_MM[role])
            ]
            inside = [c for c in near if c.header.contains(c.column, c.row)]
            selected += inside[:PER_FINDING]
            if not near:
                reasons[key] = f"no {role.label} slice passes through it"
            elif not inside:
                reasons[key] = f"it lies outside the {role.label} images"
    return selected, reasons


def _near(stacks: tuple[Stack, ...], point: Vector, reach: float) -> list[SliceHeader]:
    """The slices within ``reach`` mm of the point, the nearest first; in a tie, the lower."""
    slices = [s for stack in stacks for s in stack.slices if abs(s.distance(point)) <= reach]
    return sorted(slices, key=lambda s: (round(abs(s.distance(point)), 3), position_key(s)))
