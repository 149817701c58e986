"""The point at which each of the 25 findings lies, in patient millimetres.

A usual spine's measures give a first place from the canal's middle; where the keypoint network sees the foramen or
the lateral recess itself, near that place, its word counts. Left and right follow from the canal's own x at that
level, never from x = 0 or from slice numbers: LPS, +x is left.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lumbar.errors import NotDicom
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Role, Side
from lumbar.spine.keypoint_input import AXIAL, CELL, SAGITTAL, Framing, Heat, Picture, picture
from lumbar.spine.levels import SEEN, UNCERTAIN, KeypointReader, Levels, Read, leftwards, middle_of
from lumbar.spine.roles import Roles
from lumbar.spine.slices import SliceHeader, Vector

# From the canal's centre at the disc: aside to a foramen, wider further down, then towards the front and up the canal.
FORAMEN_ASIDE_MM = {
    Level.L1_L2: 16.0,
    Level.L2_L3: 16.5,
    Level.L3_L4: 17.0,
    Level.L4_L5: 18.0,
    Level.L5_S1: 20.0,
}
FORAMEN_AHEAD_MM, FORAMEN_UP_MM = 4.5, 6.0
RECESS_ASIDE_MM, RECESS_AHEAD_MM = 9.5, 4.5
FORAMEN_SD = (
    4.5  # mm across the slices over which a foramen fades from sight; as the network was taught
)
FORAMEN_SLICES_MM = 8.0  # from the first place: the slices on which a foramen is looked for
NEAR_MM = 11.0  # from the first place: where the network's word counts; half the way to the next foramen is 16
AXIAL_MM, PER_LEVEL = 5.0, 2  # the axial slices on which a recess is looked for
SAC_OFF_MM = 20.0  # from the canal's middle as found on sagittal slices: where an axial slice's sac is still the same
OTHER_LEVEL_MM, VOTES = (
    16.0,
    4,
)  # a foramen seen so far from where it should be names another level; how many may


@dataclass(frozen=True)
class Points:
    """``at`` has every finding whose level is known; ``seen`` those that the network itself saw.

    ``caveats`` as in ``Levels``.
    """

    at: Mapping[FindingKey, Vector]
    seen: frozenset[FindingKey]
    caveats: tuple[str, ...] = ()


def find_points(levels: Levels, roles: Roles, read: Read, keypoints: KeypointReader) -> Points:
    """The points of the findings at the levels that were found."""
    at = {key: usual_place(key, levels.canal) for key in ALL_FINDINGS if key.level in levels.canal}
    foramina, votes = _foramina(at, roles, read, keypoints)
    recesses, seen = _recesses(at, levels, roles, read, keypoints)
    caveats = (
        (f"{UNCERTAIN}: the foramina on Sagittal T1 count differently",) if votes >= VOTES else ()
    )
    return Points(at | foramina | recesses, frozenset((*foramina, *seen)), caveats)


def usual_place(key: FindingKey, canal: Mapping[Level, Vector]) -> Vector:
    """Where the finding lies in a spine of usual measures, mm."""
    centre = canal[key.level]
    up, ahead = _along(key.level, canal)
    aside = np.array([1.0 if key.condition.side is Side.LEFT else -1.0, 0, 0])
    if key.condition.role is Role.SAGITTAL_T1:
        return (
            centre
            + FORAMEN_ASIDE_MM[key.level] * aside
            + FORAMEN_AHEAD_MM * ahead
            + FORAMEN_UP_MM * up
        )
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


def _foramina(
    at: Mapping[FindingKey, Vector], roles: Roles, read: Read, keypoints: KeypointReader
) -> tuple[dict[FindingKey, Vector], int]:
    """Those seen on parasagittal T1 slices; and how many are seen where another level's should be."""
    wanted = {key: point for key, point in at.items() if key.condition.role is Role.SAGITTAL_T1}
    slices = [s for stack in roles.stacks.get(Role.SAGITTAL_T1, ()) for s in stack.slices]
    centre = np.mean(list(wanted.values()), axis=0)
    near = [
        s
        for s in slices
        if s.contains(*s.to_pixel(centre))
        and any(abs(s.distance(p)) <= FORAMEN_SLICES_MM for p in wanted.values())
    ]
    pictures = list(_pictures(((s, centre) for s in near), read, SAGITTAL))
    if not pictures:
        return {}, 0
    heats = keypoints.sagittal(np.stack([p.pixels for p in pictures]))
    found, votes = {}, 0
    for key, point in wanted.items():
        channel = SAGITTAL.points.index(f"foramen_{key.level}")
        beside = [
            i for i, p in enumerate(pictures) if abs(p.header.distance(point)) <= FORAMEN_SLICES_MM
        ]
        if not beside:
            continue
        maps = heats[beside, ..., channel]
        places = [
            _mass(heat, pictures[i].to_cell(point), SAGITTAL)
            for i, heat in zip(beside, maps, strict=True)
        ]
        presence = np.array([mass for mass, _ in places])
        best = int(presence.argmax())
        if presence[best] >= SEEN:
            to_left = leftwards(pictures[beside[best]].header)
            away = np.array([(pictures[i].header.centre - point) @ to_left for i in beside])
            place = np.average([where for _, where in places], axis=0, weights=presence)
            aside = float(np.clip(middle_of(away, presence, FORAMEN_SD), -FORAMEN_SD, FORAMEN_SD))
            found[key] = pictures[beside[best]].from_cell(place) + (aside - away[best]) * to_left
        votes += _elsewhere(maps, [pictures[i] for i in beside], point)
    return found, votes


def _elsewhere(maps: Heat, pictures: list[Picture], point: Vector) -> bool:
    """Whether a foramen is seen clearly, and as far from its place as another level's."""
    best = int(maps.sum(axis=(1, 2)).argmax())
    row, column = np.unravel_index(int(maps[best].argmax()), maps[best].shape)
    off = np.linalg.norm(pictures[best].from_cell(np.array([column, row], float))[1:] - point[1:])
    return bool(maps[best].sum() >= SEEN and off >= OTHER_LEVEL_MM)


def _recesses(
    at: Mapping[FindingKey, Vector],
    levels: Levels,
    roles: Roles,
    read: Read,
    keypoints: KeypointReader,
) -> tuple[dict[FindingKey, Vector], set[FindingKey]]:
    """Those of the levels whose sac or recesses show on the axial slices nearest to the disc; and which are seen.

    One that is not seen itself lies beside the sac that is.
    """
    slices = [s for stack in roles.stacks.get(Role.AXIAL_T2, ()) for s in stack.slices]
    asked: list[tuple[Level, SliceHeader]] = []
    for level, canal in levels.canal.items():
        near = sorted(
            (s for s in slices if abs(s.distance(canal)) <= AXIAL_MM),
            key=lambda s: abs(s.distance(canal)),
        )
        asked += [(level, s) for s in near[:PER_LEVEL]]
    pictures = {
        (level, s.sop_instance_uid, s.frame): seen
        for level, s in asked
        for seen in _pictures([(s, levels.canal[level])], read, AXIAL)
    }
    if not pictures:
        return {}, set()
    heats = keypoints.axial(np.stack([p.pixels for p in pictures.values()]))
    best: dict[FindingKey, tuple[float, Vector]] = {}
    for ((level, _, _), seen), heat in zip(pictures.items(), heats, strict=True):
        shift = _sac_off(seen, heat, levels.canal[level])
        beside = {key: point + shift for key, point in at.items()}
        for key, mass, point in recesses_on(seen, heat, level, beside):
            place = point if mass >= SEEN else beside[key]
            if key not in best or mass > best[key][0]:
                best[key] = mass, place
    return {key: place for key, (_, place) in best.items()}, {
        key for key, (mass, _) in best.items() if mass >= SEEN
    }


def _sac_off(seen: Picture, heat: Heat, canal: Vector) -> Vector:
    """From where the canal's middle was thought to be to where the sac is seen on the axial slice, mm (LPS)."""
    mass, sac = sac_on(seen, heat)
    off = sac - seen.from_cell(seen.to_cell(canal))
    return off if mass >= SEEN and np.linalg.norm(off) <= SAC_OFF_MM else np.zeros(3)


def recesses_on(
    seen: Picture, heat: Heat, level: Level, at: Mapping[FindingKey, Vector]
) -> Iterator[tuple[FindingKey, float, Vector]]:
    """Both recesses of a level on one axial slice: how probably each shows near its first place, and where."""
    for condition in Condition:
        key = FindingKey(condition, level)
        if condition.role is Role.AXIAL_T2 and condition.side is not None:
            channel = AXIAL.points.index(f"{condition.side}_recess")
            mass, place = _mass(heat[..., channel], seen.to_cell(at[key]), AXIAL)
            yield key, mass, seen.from_cell(place)


def sac_on(seen: Picture, heat: Heat) -> tuple[float, Vector]:
    """How probably the dural sac shows on an axial slice, and its middle in mm (LPS)."""
    own = heat[..., AXIAL.points.index("sac")]
    row, column = np.unravel_index(int(own.argmax()), own.shape)
    mass, place = _mass(own, np.array([column, row], float), AXIAL)
    return mass, seen.from_cell(place)


def _mass(heat: Heat, place: Vector, framing: Framing) -> tuple[float, Vector]:
    """How much of a map lies near a place (x, y, in cells), and the middle of that."""
    rows, columns = np.mgrid[: len(heat), : len(heat)]
    near = heat * (np.hypot(columns - place[0], rows - place[1]) * CELL * framing.mm <= NEAR_MM)
    mass = float(near.sum())
    if mass < 1e-6:
        return 0.0, place
    return mass, np.array([(near * columns).sum(), (near * rows).sum()]) / mass


def _pictures(
    wanted: Iterable[tuple[SliceHeader, Vector]], read: Read, framing: Framing
) -> Iterator[Picture]:
    """Those that can be read; a damaged one is passed over here and told of where it would be graded."""
    for header, centre in wanted:
        try:
            yield picture(read(header), header, centre, framing)
        except NotDicom:
            continue
