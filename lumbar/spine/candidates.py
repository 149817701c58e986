"""On which slices each of the 25 findings can be read: those nearest to its point, in the series for its condition."""

from collections.abc import Mapping
from dataclasses import dataclass

from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey, Role
from lumbar.spine.roles import Roles, Stack
from lumbar.spine.slices import SliceHeader, Vector
from lumbar.spine.stacks import lying

PER_FINDING = 2  # slices offered to VGG16 for each finding
# An axial slice farther from the level is another level's; a sagittal one farther aside shows no canal or no foramen.
REACH_MM = {Role.SAGITTAL_T2: 6.0, Role.SAGITTAL_T1: 6.0, Role.AXIAL_T2: 5.0}


@dataclass(frozen=True)
class Candidate:
    """A slice and a point (0-based pixels, integers at pixel centres) on which a finding may be read."""

    key: FindingKey
    header: SliceHeader
    column: float
    row: float


def candidates(
    roles: Roles, points: Mapping[FindingKey, Vector]
) -> tuple[list[Candidate], dict[FindingKey, str]]:
    """Candidates in the order of the findings, the nearest first, and for each finding without one the reason.

    ``points``: where each finding at a located level lies, mm (LPS).
    """
    offered: list[Candidate] = []
    reasons: dict[FindingKey, str] = {}
    for key in ALL_FINDINGS:
        role = key.condition.role
        stacks = roles.stacks.get(role, ())
        if not stacks:
            reasons[key] = f"no {role.label} series was received"
        elif key not in points:
            reasons[key] = "the disc level was not found"
        else:
            near = [
                Candidate(key, s, *s.to_pixel(points[key]))
                for s in _near(stacks, points[key], REACH_MM[role])
            ]
            inside = [c for c in near if c.header.contains(c.column, c.row)]
            offered += inside[:PER_FINDING]
            if not near:
                reasons[key] = f"no {role.label} slice passes through it"
            elif not inside:
                reasons[key] = f"it lies outside the {role.label} images"
    return offered, reasons


def _near(stacks: tuple[Stack, ...], point: Vector, reach: float) -> list[SliceHeader]:
    """The slices within reach of the point, the closest first; of two equally close ones the lower."""
    slices = [s for stack in stacks for s in stack.slices if abs(s.distance(point)) <= reach]
    return sorted(slices, key=lambda s: (round(abs(s.distance(point)), 3), lying(s)))
