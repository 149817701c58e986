"""Where the five lumbar disc levels are, and how surely they are named.

The keypoint network sees the slices in the middle of a sagittal series, of whatever weighting; what it says of all
discs and slices is put together into one row of discs (``lumbar.spine.label_discs``), counted upwards from the sacrum.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lumbar.errors import NotAnalysable, NotDicom
from lumbar.spine.anatomy import Level, Role
from lumbar.spine.keypoint_input import (
    BORDER,
    BORDER_AHEAD_MM,
    BORDER_DOWN_MM,
    DISCS,
    SAGITTAL,
    Heat,
    Picture,
    picture,
)
from lumbar.spine.label_discs import BLOB, Row, best_row
from lumbar.spine.roles import MAX_LOOSE_SLICES, Roles, Stack
from lumbar.spine.slices import SliceHeader, Vector

Read = Callable[[SliceHeader], NDArray[np.float32]]

BORDER_SLICES = 5  # on which the border to the sacrum is looked at
CENTRAL = 5  # slices looked at first
MIDLINE = 0.35  # presence of the canal, over the levels, from which the slices show it
SEEN = 0.5  # presence from which a disc counts as seen
CERTAIN_MARGIN = 1.0  # of the row's score ahead of every other numbering
TRANSITIONAL = 0.72  # probability from which the border is called transitional; chosen on phantoms (docs/model-card.md)
LUMBAR = slice(DISCS.index(Level.L1_L2), DISCS.index(Level.L5_S1) + 1)
FORAMEN_AHEAD_CELLS, FORAMEN_UP_CELLS = 1.4, 1.9  # of the canal's middle at the disc
CANAL_SD = (
    6.0  # mm across the slices over which the canal fades from sight; as the network was taught
)
SACRUM_MM = 32.0  # of the image below L5/S1 that must be there, to see that it is the lowest disc
SAME_PLACE_MM = (
    100.0  # between the middles of two fields of view that show the same part of the body
)
FEWEST = 3  # lumbar levels, for a study to be one of the lumbar spine
NOT_FOUND = "no lumbar spine was found on the {} images"
UNCERTAIN = "the numbering is uncertain"


class KeypointReader(Protocol):
    """What is asked of the keypoint network; ``lumbar.networks.locator.Locator`` in earnest."""

    def sagittal(self, pictures: NDArray[np.float32]) -> Heat:
        """(n, 192, 192) to (n, 96, 96, 13) probabilities of ``SAGITTAL.points``."""
        ...

    def border(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 80, 80) to (n,) probabilities that the lumbosacral border is transitional."""
        ...

    def axial(self, pictures: NDArray[np.float32]) -> Heat:
        """(n, 128, 128) to (n, 64, 64, 3) probabilities of ``AXIAL.points``."""
        ...


@dataclass(frozen=True)
class Levels:
    """``canal`` is the middle of the dural sac at the height of each disc seen, mm (LPS), cranial to caudal.

    ``source`` is the slice nearest to it; ``notes`` say in words how the levels were found and what is in caveat;
    ``caveats`` are those that make the numbering uncertain. ``confidence`` (0–1) is no probability. Where no
    slice shows the canal itself, ``midline_known`` is False, and nothing may be graded.
    """

    canal: Mapping[Level, Vector]
    source: SliceHeader
    notes: tuple[str, ...]
    caveats: tuple[str, ...]
    confidence: float
    midline_known: bool = True

    @property
    def numbering_uncertain(self) -> bool:
        return bool(self.caveats)


@dataclass(frozen=True)
class _Seen:
    """A slice, how far it lies to the patient's left of the series' middle slice (mm), what the network says of it.

    ``canal`` are the maps of the canal at each disc; ``heat`` has the foramina too, which tell the same levels.
    """

    picture: Picture
    away: float
    heat: Heat
    canal: Heat

    @property
    def shown(self) -> Vector:
        """How present the canal is at each disc."""
        return np.asarray(self.canal.sum(axis=(0, 1)), dtype=float)


def locate_levels(roles: Roles, read: Read, keypoints: KeypointReader) -> Levels:
    """The levels of the study whose slices ``read`` gives, (rows, columns) of any range.

    Every sagittal stack that may show the lumbar spine is tried, the T2/STIR before the T1 and the lowest first.
    Raises NotAnalysable where there is no sagittal series, no lumbar spine on any, or no slice of it can be read.
    """
    refusals: list[NotAnalysable] = []
    judged: list[Vector] = []  # the middles of stacks that could be read
    for role in (Role.SAGITTAL_T2, Role.SAGITTAL_T1):
        for stack in roles.stacks.get(role, ()):
            middle = stack.slices[len(stack.slices) // 2].centre
            if role is Role.SAGITTAL_T1 and any(
                np.linalg.norm(middle - place) < SAME_PLACE_MM for place in judged
            ):
                continue  # another contrast of what was no lumbar spine
            try:
                seen, failed = _look(stack, read, keypoints)
                judged.append(middle)
                return _located(role, seen, failed, read, keypoints)
            except NotAnalysable as refusal:
                refusals.append(refusal)
    if not refusals:
        raise NotAnalysable(
            "no sagittal T1 or T2/STIR series was received, on which the disc levels are found"
        )
    raise refusals[0]


def _located(
    role: Role, seen: list[_Seen], failed: int, read: Read, keypoints: KeypointReader
) -> Levels:
    row = best_row(_together(seen))
    lowest = DISCS.index(Level.L5_S1)
    if row is None:
        raise NotAnalysable(NOT_FOUND.format(role.label))
    presence = {k: _presence([s.heat for s in seen], k, place) for k, place in row.places.items()}
    midline_known = float(np.max([s.shown[LUMBAR] for s in seen], axis=0).mean()) >= MIDLINE
    alone = len(seen) <= MAX_LOOSE_SLICES
    if presence[lowest].max() < (SEEN / 2 if alone else SEEN):
        raise NotAnalysable(
            NOT_FOUND.format(role.label) + ": no sacrum is seen from which to count"
        )
    named = {Level(DISCS[k]): k for k in row.places if DISCS[k] in list(Level)}
    clear = sum(presence[k].max() >= SEEN / 2 for k in named.values())
    if clear < FEWEST:
        raise NotAnalysable(
            NOT_FOUND.format(role.label) + f": only {clear} lumbar levels are seen clearly"
        )
    canal_there = {
        k: _presence([s.canal for s in seen], k, place) for k, place in row.places.items()
    }
    across = _across(seen, canal_there if midline_known else presence, sorted(row.places))
    middle = seen[int(np.argmin([abs(s.away) for s in seen]))]
    canal = {level: _point(middle, row.places[k], across[k]) for level, k in sorted(named.items())}
    transitional = 0.0
    if midline_known:
        transitional = _transitional(seen, canal[Level.L5_S1], across[lowest], read, keypoints)
    below = _below(middle.picture.header, canal[Level.L5_S1])
    caveats = tuple(_caveats(transitional, below, row, alone))
    centre = float(np.mean(list(across.values())))
    source = min(seen, key=lambda s: abs(s.away - centre)).picture.header
    confidence = float(np.mean([presence[k].max() for k in named.values()])) * min(
        1.0, row.margin / CERTAIN_MARGIN
    )
    notes = tuple(_notes(role, canal, alone, midline_known, failed))
    return Levels(canal, source, notes, caveats, max(0.0, confidence), midline_known)


def _look(stack: Stack, read: Read, keypoints: KeypointReader) -> tuple[list[_Seen], int]:
    """The middle slices, and more to that side on which the canal seems to lie; only these are read.

    Gives those that could be read, from the right or the left onwards, and how many could not.
    """
    slices = stack.slices
    middle = len(slices) // 2
    centre = slices[middle].centre
    order = sorted(range(len(slices)), key=lambda i: (abs(i - middle), i))
    to_left = leftwards(slices[middle])
    seen: dict[int, _Seen] = {}
    failed: dict[int, str] = {}
    wanted = order[:CENTRAL]
    while wanted:
        pictures = {}
        for i in wanted:
            try:
                pictures[i] = picture(read(slices[i]), slices[i], centre, SAGITTAL)
            except NotDicom as error:
                failed[i] = str(error)
        asked = [p.pixels for p in pictures.values()]
        for i, heat in zip(
            pictures, keypoints.sagittal(np.stack(asked)) if asked else (), strict=True
        ):
            away = float((slices[i].centre - centre) @ to_left)
            seen[i] = _Seen(pictures[i], away, _with_foramina(heat), heat[..., : len(DISCS)])
        wanted = _more(seen, failed, len(slices))
    if not seen:
        raise NotAnalysable(
            f"no slice of the sagittal series could be read: {next(iter(failed.values()))}"
        )
    return [seen[i] for i in sorted(seen)], len(failed)


def leftwards(header: SliceHeader) -> Vector:
    """The unit vector across a sagittal slice, to the patient's left."""
    return header.normal * (1 if header.normal[0] >= 0 else -1)


def _more(seen: Mapping[int, _Seen], failed: Mapping[int, str], count: int) -> list[int]:
    """The next slices beyond an end at which the canal is seen best at some level, or where none could be read."""
    known = sorted({*seen, *failed})
    ends = {known[0]: range(known[0] - 2, known[0]), known[-1]: range(known[-1] + 1, known[-1] + 3)}
    shown = {i: s.shown[LUMBAR] for i, s in seen.items()}
    best = (
        {max(shown, key=lambda i: shown[i][level]) for level in range(len(Level))}
        if shown
        else set(ends)
    )
    return [
        i
        for end, beyond in ends.items()
        if end in best or end in failed
        for i in beyond
        if 0 <= i < count
    ]


def _with_foramina(heat: Heat) -> Heat:
    """The discs' maps; where a slice shows the foramen instead of the canal, that tells the level too."""
    discs = heat[..., : len(DISCS)].copy()
    shift = np.array([[1, 0, FORAMEN_AHEAD_CELLS], [0, 1, FORAMEN_UP_CELLS]], np.float32)
    for n, level in enumerate(Level):
        foramen = cv2.warpAffine(
            np.ascontiguousarray(heat[..., len(DISCS) + n]), shift, discs.shape[1::-1]
        )
        own = discs[..., DISCS.index(level)]
        own += foramen * max(0.0, 1 - float(own.sum()))
    return discs


def _together(seen: list[_Seen]) -> Heat:
    """One set of maps: the slices' mean, weighted by where the disc shows, as present as on the best of them."""
    heats = np.stack([s.heat for s in seen])
    presence = heats.sum(axis=(1, 2))
    return np.asarray(
        heats.sum(axis=0) * (presence.max(axis=0) / (presence.sum(axis=0) + 1e-6)), dtype=np.float32
    )


def _presence(maps: list[Heat], disc: int, place: Vector) -> Vector:
    """By slice: how much of the disc's map lies at its place."""
    x, y = np.round(place).astype(int)
    reach = BLOB // 2 + 1
    part = (slice(max(y - reach, 0), y + reach + 1), slice(max(x - reach, 0), x + reach + 1), disc)
    return np.array([float(heat[part].sum()) for heat in maps])


def _across(
    seen: list[_Seen], presence: Mapping[int, Vector], discs: list[int]
) -> dict[int, float]:
    """How far the middle of the canal lies to the left of the middle slice, mm; between its neighbours where it is
    hardly seen."""
    away = np.array([s.away for s in seen])
    if len(seen) <= MAX_LOOSE_SLICES:
        return dict.fromkeys(
            discs,
            float(away[np.argmax([sum(presence[k][i] for k in discs) for i in range(len(seen))])]),
        )
    clear = [k for k in discs if presence[k].max() >= SEEN / 2] or discs
    found = [middle_of(away, presence[k], CANAL_SD) for k in clear]
    return dict(zip(discs, np.interp(discs, clear, found).tolist(), strict=True))


def middle_of(away: Vector, presence: Vector, sd: float) -> float:
    """Where slices at so many mm show it best, if it fades to both sides as a Gaussian of ``sd`` mm."""
    trial = np.arange(away.min() - 4, away.max() + 4.01, 0.25)
    shape = np.exp(-np.square((away[None] - trial[:, None]) / sd) / 2)
    height = np.clip((shape @ presence) / (np.square(shape).sum(axis=1) + 1e-9), 0.2, 1.0)
    return float(trial[np.square(height[:, None] * shape - presence).sum(axis=1).argmin()])


def _point(middle: _Seen, place: Vector, across: float) -> Vector:
    """A place in cells of the maps, in mm (LPS)."""
    return middle.picture.from_cell(place) + (across - middle.away) * leftwards(
        middle.picture.header
    )


def _transitional(
    seen: list[_Seen], lowest: Vector, across: float, read: Read, keypoints: KeypointReader
) -> float:
    """How probably the vertebra at the border to the sacrum is neither quite lumbar nor quite sacral."""
    centre = lowest + np.array([0.0, -BORDER_AHEAD_MM, -BORDER_DOWN_MM])
    nearest = sorted(seen, key=lambda s: abs(s.away - across))[:BORDER_SLICES]
    headers = [s.picture.header for s in nearest]
    pictures = [
        picture(read(header), header, centre, BORDER).pixels for header in headers
    ]  # read before: kept
    return float(np.mean(keypoints.border(np.stack(pictures))))


def _below(header: SliceHeader, point: Vector) -> float:
    """How many mm of the image lie below a point."""
    edges = [
        header.to_patient(column, row)
        for column in (0, header.columns - 1)
        for row in (0, header.rows - 1)
    ]
    return float(point[2] - min(edge[2] for edge in edges))


def _caveats(transitional: float, below: float, row: Row, alone: bool) -> list[str]:
    caveats = []
    if below < SACRUM_MM:
        caveats.append(
            f"{UNCERTAIN}: the images end {max(below, 0):.0f} mm below the lowest disc, and show no sacrum"
        )
    if transitional >= TRANSITIONAL:
        caveats.append(
            f"{UNCERTAIN}: the border to the sacrum looks transitional ({transitional:.2f})"
        )
    if row.margin < CERTAIN_MARGIN:
        caveats.append(f"{UNCERTAIN}: another one fits almost as well")
    if alone:
        caveats.append(f"{UNCERTAIN}: it rests on too few slices")
    return caveats


def _notes(
    role: Role, canal: Mapping[Level, Vector], alone: bool, midline_known: bool, failed: int
) -> list[str]:
    notes = [
        f"disc levels found on {role.label}, counted upwards from L5/S1 as the lowest disc above the sacrum"
    ]
    outside = [level.label for level in Level if level not in canal]
    if outside:
        notes.append(f"not seen: {', '.join(outside)}")
    if failed:
        notes.append(
            f"{failed} {role.label} {'slice' if failed == 1 else 'slices'} could not be read"
        )
    if not midline_known:
        notes.append(
            f"the dural sac is not seen on the {role.label} images; the points lie beside the mid-line"
        )
    elif alone:
        notes.append("too few slices to know the mid-line; it is taken to be on the slice itself")
    return notes
