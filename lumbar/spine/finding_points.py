"""The position of each of the 25 findings, in patient millimetres.

The dimensions of a typical spine give an expected position relative to the middle of the canal.
Where the keypoint network detects the foramen or lateral recess itself near that position, the
detected point is used. Left and right are relative to the canal's x at that level, never to x = 0
or to slice numbers: LPS, +x is left.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lumbar.errors import NotDicom
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Role, Side
from lumbar.spine.findings import NUMBERING_UNCERTAIN
from lumbar.spine.keypoint_input import (
    AXIAL,
    CELL_PIXELS,
    SAGITTAL,
    Framing,
    Heat,
    KeypointDetector,
    Picture,
    ReadSlice,
    picture,
)
from lumbar.spine.levels import MIN_PRESENCE, Levels
from lumbar.spine.roles import Roles
from lumbar.spine.sagittal_maps import fit_centre, leftwards
from lumbar.spine.slices import SliceHeader, Vector

# Distances from the middle of the canal at the disc to a foramen (farther lateral at lower levels)
# and to a recess.
FORAMEN_LATERAL_MM = {
    Level.L1_L2: 16.0,
    Level.L2_L3: 16.5,
    Level.L3_L4: 17.0,
    Level.L4_L5: 18.0,
    Level.L5_S1: 20.0,
}
FORAMEN_ANTERIOR_MM, FORAMEN_CRANIAL_MM = 4.5, 6.0
RECESS_LATERAL_MM, RECESS_ANTERIOR_MM = 9.5, 4.5
FORAMEN_SD_MM = 4.5  # standard deviation of a foramen's presence across slices, as in training
FORAMEN_SLICES_MM = 8.0  # slices within this of the expected position are examined for a foramen
# Detections farther than this from the expected position are ignored. Half the distance to the next
# foramen is 16 mm.
NEAR_MM = 11.0
# Axial slices examined for a recess: maximum distance from the canal's middle, number per level.
AXIAL_SLICES_MM, SLICES_PER_LEVEL = 5.0, 2
# Between the sac on an axial slice and the canal's middle located on sagittal slices: at a greater
# distance, another structure was detected as the sac.
MAX_SAC_SHIFT_MM = 20.0
# A foramen detected at least this far from its expected position suggests another numbering; at
# least this many such foramina make the numbering uncertain.
OTHER_LEVEL_MM, MIN_VOTES = 16.0, 4


@dataclass(frozen=True)
class Points:
    """``positions`` of every finding whose level is known, mm (LPS).

    ``detected`` are the findings whose point the network detected. ``caveats`` as in ``Levels``.
    """

    positions: Mapping[FindingKey, Vector]
    detected: frozenset[FindingKey]
    caveats: tuple[str, ...] = ()


def find_points(
    levels: Levels, roles: Roles, read: ReadSlice, keypoints: KeypointDetector
) -> Points:
    """The points of the findings at the located levels."""
    expected = {
        key: expected_position(key, levels.canal)
        for key in ALL_FINDINGS
        if key.level in levels.canal
    }
    foramina, votes = _detect_foramina(expected, roles, read, keypoints)
    recesses, detected = _detect_recesses(expected, levels, roles, read, keypoints)
    caveats: tuple[str, ...] = ()
    if votes >= MIN_VOTES:
        caveats = (f"{NUMBERING_UNCERTAIN}: the foramina on Sagittal T1 suggest another numbering",)
    return Points(expected | foramina | recesses, frozenset((*foramina, *detected)), caveats)


def expected_position(key: FindingKey, canal: Mapping[Level, Vector]) -> Vector:
    """The position of a finding in a spine of typical dimensions, mm (LPS)."""
    centre = canal[key.level]
    cranial, anterior = _canal_axes(key.level, canal)
    lateral = np.array([1.0 if key.condition.side is Side.LEFT else -1.0, 0, 0])
    if key.condition.role is Role.SAGITTAL_T1:
        return (
            centre
            + FORAMEN_LATERAL_MM[key.level] * lateral
            + FORAMEN_ANTERIOR_MM * anterior
            + FORAMEN_CRANIAL_MM * cranial
        )
    if key.condition.role is Role.AXIAL_T2:
        return centre + RECESS_LATERAL_MM * lateral + RECESS_ANTERIOR_MM * anterior
    return centre


def _canal_axes(level: Level, canal: Mapping[Level, Vector]) -> tuple[Vector, Vector]:
    """Unit vectors up the canal and to its front at a level, both in the mid-sagittal plane."""
    levels = [other for other in Level if other in canal]
    index = levels.index(level)
    above, below = canal[levels[max(index - 1, 0)]], canal[levels[min(index + 1, len(levels) - 1)]]
    cranial = np.array([0.0, *(above - below)[1:]])
    length = float(np.linalg.norm(cranial))
    cranial = cranial / length if length > 1 else np.array([0.0, 0.0, 1.0])
    return cranial, np.array([0.0, -cranial[2], cranial[1]])


def _detect_foramina(
    expected: Mapping[FindingKey, Vector],
    roles: Roles,
    read: ReadSlice,
    keypoints: KeypointDetector,
) -> tuple[dict[FindingKey, Vector], int]:
    """The foramina detected on parasagittal T1 slices, and the votes for another numbering.

    A vote is a foramen that lies where another level's should.
    """
    foramina = {
        key: point for key, point in expected.items() if key.condition.role is Role.SAGITTAL_T1
    }
    centre = np.mean(list(foramina.values()), axis=0)
    slices = _foramen_slices(roles, centre, foramina.values())
    pictures = list(_pictures(((header, centre) for header in slices), read, SAGITTAL))
    if not pictures:
        return {}, 0
    heats = keypoints.sagittal(np.stack([p.pixels for p in pictures]))
    detected: dict[FindingKey, Vector] = {}
    votes = 0
    for key, point in foramina.items():
        near = [
            i for i, p in enumerate(pictures) if abs(p.header.distance(point)) <= FORAMEN_SLICES_MM
        ]
        if not near:
            continue
        maps = heats[near, ..., SAGITTAL.points.index(f"foramen_{key.level}")]
        near_pictures = [pictures[i] for i in near]
        position = _foramen_position(maps, near_pictures, point)
        if position is not None:
            detected[key] = position
        votes += _at_other_level(maps, near_pictures, point)
    return detected, votes


def _foramen_slices(roles: Roles, centre: Vector, points: Iterable[Vector]) -> list[SliceHeader]:
    """The T1 slices of the lumbar station that are near any of the points."""
    points = list(points)
    slices = [header for stack in roles.stacks.get(Role.SAGITTAL_T1, ()) for header in stack.slices]
    return [
        header
        for header in slices
        if header.contains(*header.to_pixel(centre)) and _within_reach(header, points)
    ]


def _within_reach(header: SliceHeader, points: Iterable[Vector]) -> bool:
    return any(abs(header.distance(point)) <= FORAMEN_SLICES_MM for point in points)


def _foramen_position(maps: Heat, pictures: list[Picture], expected: Vector) -> Vector | None:
    """A foramen's position in mm (LPS); None if no slice shows it near the expected position.

    ``maps``: (slices, cells, cells), of this foramen.
    """
    near = [
        _mass_near(heat, view.to_cell(expected), SAGITTAL)
        for view, heat in zip(pictures, maps, strict=True)
    ]
    presence = np.array([mass for mass, _ in near])
    best = int(presence.argmax())
    if presence[best] < MIN_PRESENCE:
        return None
    left = leftwards(pictures[best].header)
    offsets = np.array([(view.header.centre - expected) @ left for view in pictures])
    cell = np.average([centre for _, centre in near], axis=0, weights=presence)
    offset = fit_centre(offsets, presence, FORAMEN_SD_MM)
    offset = float(np.clip(offset, -FORAMEN_SD_MM, FORAMEN_SD_MM))
    across: Vector = (offset - offsets[best]) * left
    return pictures[best].from_cell(cell) + across


def _at_other_level(maps: Heat, pictures: list[Picture], expected: Vector) -> bool:
    """Whether a foramen is clearly visible, but as far away as that of another level."""
    best = int(maps.sum(axis=(1, 2)).argmax())
    row, column = np.unravel_index(int(maps[best].argmax()), maps[best].shape)
    peak = pictures[best].from_cell(np.array([column, row], float))
    distance = np.linalg.norm(peak[1:] - expected[1:])
    return bool(maps[best].sum() >= MIN_PRESENCE and distance >= OTHER_LEVEL_MM)


def _detect_recesses(
    expected: Mapping[FindingKey, Vector],
    levels: Levels,
    roles: Roles,
    read: ReadSlice,
    keypoints: KeypointDetector,
) -> tuple[dict[FindingKey, Vector], set[FindingKey]]:
    """The recesses on the axial slices nearest to each disc, and which of them were detected.

    A recess that was not detected is positioned relative to the detected sac.
    """
    pictures = {
        (level, header): view
        for level, header in _recess_slices(levels, roles)
        for view in _pictures([(header, levels.canal[level])], read, AXIAL)
    }
    if not pictures:
        return {}, set()
    heats = keypoints.axial(np.stack([p.pixels for p in pictures.values()]))
    best: dict[FindingKey, tuple[float, Vector]] = {}
    for ((level, _), view), heat in zip(pictures.items(), heats, strict=True):
        shift = _sac_shift(view, heat, levels.canal[level])
        shifted = {key: point + shift for key, point in expected.items()}
        for key, mass, point in locate_recesses(view, heat, level, shifted):
            position = point if mass >= MIN_PRESENCE else shifted[key]
            if key not in best or mass > best[key][0]:
                best[key] = mass, position
    positions = {key: position for key, (_, position) in best.items()}
    return positions, {key for key, (mass, _) in best.items() if mass >= MIN_PRESENCE}


def _recess_slices(levels: Levels, roles: Roles) -> Iterator[tuple[Level, SliceHeader]]:
    """For each level, the axial slices nearest to the middle of the canal."""
    slices = [header for stack in roles.stacks.get(Role.AXIAL_T2, ()) for header in stack.slices]
    for level, canal in levels.canal.items():
        distances = [(abs(header.distance(canal)), header) for header in slices]
        near = [pair for pair in distances if pair[0] <= AXIAL_SLICES_MM]
        for _, header in sorted(near, key=lambda pair: pair[0])[:SLICES_PER_LEVEL]:
            yield level, header


def _sac_shift(view: Picture, heat: Heat, canal: Vector) -> Vector:
    """The vector from the located middle of the canal to the detected sac on an axial slice, mm.

    Zero if the sac was not detected, or is implausibly far away. Axes: LPS.
    """
    mass, sac = locate_sac(view, heat)
    shift = sac - view.from_cell(view.to_cell(canal))
    plausible = mass >= MIN_PRESENCE and np.linalg.norm(shift) <= MAX_SAC_SHIFT_MM
    return shift if plausible else np.zeros(3)


def locate_recesses(
    view: Picture, heat: Heat, level: Level, expected: Mapping[FindingKey, Vector]
) -> Iterator[tuple[FindingKey, float, Vector]]:
    """Both recesses of a level on one axial slice.

    For each: its key, the probability (0–1) that it is visible near the expected position, and its
    position in mm (LPS). ``heat`` is (cells, cells, ``AXIAL.points``).
    """
    for condition in Condition:
        key = FindingKey(condition, level)
        if condition.role is Role.AXIAL_T2 and condition.side is not None:
            channel = AXIAL.points.index(f"{condition.side}_recess")
            mass, cell = _mass_near(heat[..., channel], view.to_cell(expected[key]), AXIAL)
            yield key, mass, view.from_cell(cell)


def locate_sac(view: Picture, heat: Heat) -> tuple[float, Vector]:
    """The probability (0–1) that an axial slice shows the dural sac, and its middle in mm (LPS)."""
    sac = heat[..., AXIAL.points.index("sac")]
    row, column = np.unravel_index(int(sac.argmax()), sac.shape)
    mass, cell = _mass_near(sac, np.array([column, row], float), AXIAL)
    return mass, view.from_cell(cell)


def _mass_near(heat: Heat, cell: Vector, framing: Framing) -> tuple[float, Vector]:
    """How much of a map lies near a position (x, y, in cells), and the centre of that mass."""
    rows, columns = np.mgrid[: len(heat), : len(heat)]
    distance = np.hypot(columns - cell[0], rows - cell[1]) * CELL_PIXELS * framing.mm
    near = heat * (distance <= NEAR_MM)
    mass = float(near.sum())
    if mass < 1e-6:
        return 0.0, cell
    return mass, np.array([(near * columns).sum(), (near * rows).sum()]) / mass


def _pictures(
    slices: Iterable[tuple[SliceHeader, Vector]], read: ReadSlice, framing: Framing
) -> Iterator[Picture]:
    """The pictures of the readable slices; damaged slices are reported when they are graded."""
    for header, centre in slices:
        try:
            yield picture(read(header), header, centre, framing)
        except NotDicom:
            continue
