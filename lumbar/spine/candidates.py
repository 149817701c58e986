"""Where each of the 25 findings can be read: for every level the slices and the point to crop around.

Left and right follow from the canal's own x at that level, never from x = 0 or from slice numbers: LPS, +x is left.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey, Level, Role, Side
from lumbar.spine.roles import Roles, Stack
from lumbar.spine.slices import SliceHeader, Vector

PER_FINDING = 2  # slices offered to VGG16 for each finding
AXIAL_REACH_MM = 5.0  # an axial slice farther from the level is another level's
MIDLINE_REACH_MM = 6.0  # of the canal's x; farther aside the dural sac is cut, or missed
FORAMEN_REACH_MM = 6.0
# From the canal's centre at the disc: aside to a foramen, wider further down, then towards the front and up the canal.
FORAMEN_ASIDE_MM = {Level.L1_L2: 16.0, Level.L2_L3: 16.5, Level.L3_L4: 17.0, Level.L4_L5: 18.0, Level.L5_S1: 20.0}
FORAMEN_AHEAD_MM, FORAMEN_UP_MM = 4.5, 6.0
RECESS_ASIDE_MM, RECESS_AHEAD_MM = 9.5, 4.5


@dataclass(frozen=True)
class Candidate:
    """A slice and a point (0-based pixels, integers at pixel centres) on which a finding may be read."""

    key: FindingKey
    header: SliceHeader
    column: float
    row: float


def candidates(
    roles: Roles, canal: Mapping[Level, Vector], *, sac_seen: bool = True
) -> tuple[list[Candidate], dict[FindingKey, str]]:
    """Candidates in the order of the findings, and for each finding without one the reason.

    ``canal``: the canal's centre at each located disc, mm (LPS); without ``sac_seen`` it is not known well enough.
    """
    offered: list[Candidate] = []
    reasons: dict[FindingKey, str] = {}
    for key in ALL_FINDINGS:
        stacks = roles.stacks.get(key.condition.role, ())
        if not stacks:
            reasons[key] = f"no {key.condition.role.label} series was received"
        elif not sac_seen:
            reasons[key] = "the dural sac is not seen on the Sagittal T2/STIR slice, which lies beside the mid-line"
        elif key.level not in canal:
            reasons[key] = "the disc level was not found"
        else:
            point = _point(key, canal)
            near = _near(key, stacks, point)
            inside = [
                c for c in (Candidate(key, s, *s.to_pixel(point)) for s in near) if c.header.contains(c.column, c.row)
            ]
            offered += inside
            if not near:
                reasons[key] = f"no {key.condition.role.label} slice passes through it"
            elif not inside:
                reasons[key] = f"it lies outside the {key.condition.role.label} images"
    return offered, reasons


def _point(key: FindingKey, canal: Mapping[Level, Vector]) -> Vector:
    """Where the finding lies, in mm."""
    centre = canal[key.level]
    up, ahead = _along(key.level, canal)
    aside = np.array([1.0 if key.condition.side is Side.LEFT else -1.0, 0, 0])
    if key.condition.role is Role.SAGITTAL_T1:
        return centre + FORAMEN_ASIDE_MM[key.level] * aside + FORAMEN_AHEAD_MM * ahead + FORAMEN_UP_MM * up
    if key.condition.role is Role.AXIAL_T2:
        return centre + RECESS_ASIDE_MM * aside + RECESS_AHEAD_MM * ahead
    return centre


def _along(level: Level, canal: Mapping[Level, Vector]) -> tuple[Vector, Vector]:
    """Unit vectors up the canal and towards its front at a level, both in the mid-sagittal plane."""
    levels = [known for known in Level if known in canal]
    at = levels.index(level)
    above, below = canal[levels[max(at - 1, 0)]], canal[levels[min(at + 1, len(levels) - 1)]]
    up = np.array([0.0, *(above - below)[1:]])
    length = float(np.linalg.norm(up))
    up = up / length if length > 1 else np.array([0.0, 0.0, 1.0])
    return up, np.array([0.0, -up[2], up[1]])


def _near(key: FindingKey, stacks: tuple[Stack, ...], point: Vector) -> list[SliceHeader]:
    """The slices closest to the finding, the closest first; none that shows something else."""
    reach = {
        Role.SAGITTAL_T2: MIDLINE_REACH_MM,
        Role.SAGITTAL_T1: FORAMEN_REACH_MM,
        Role.AXIAL_T2: AXIAL_REACH_MM,
    }[key.condition.role]
    slices = [s for stack in stacks for s in stack.slices]
    return sorted(
        (s for s in slices if abs(s.distance(point)) <= reach),
        key=lambda s: (abs(s.distance(point)), s.sop_instance_uid),
    )[:PER_FINDING]
