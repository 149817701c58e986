"""Locates the five lumbar disc levels on one stack, and states how certain their numbering is.

The keypoint network examines the middle slices of a sagittal stack of any weighting. Its maps of
all slices are combined into one sequence of discs (``lumbar.spine.label_discs``), numbered upwards
from the sacrum.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lumbar.errors import NotAnalysable
from lumbar.spine.anatomy import Level, Role
from lumbar.spine.findings import NUMBERING_UNCERTAIN
from lumbar.spine.keypoint_input import (
    BORDER,
    BORDER_ANTERIOR_MM,
    BORDER_CAUDAL_MM,
    DISCS,
    KeypointDetector,
    ReadSlice,
    picture,
)
from lumbar.spine.label_discs import DiscSequence, best_sequence
from lumbar.spine.roles import MAX_LOOSE_SLICES
from lumbar.spine.sagittal_maps import SagittalMaps, SliceMaps, fit_centre, leftwards
from lumbar.spine.slices import SliceHeader, Vector

BORDER_SLICES = 5  # on which the lumbosacral border is classified
MIDLINE_PRESENCE = 0.35  # minimum mean presence of the canal on slices that show the mid-line
MIN_PRESENCE = 0.5  # minimum presence of a point that counts as visible
CERTAIN_MARGIN = 1.0  # minimum lead of the sequence's score over every other numbering
# Minimum probability at which the border counts as transitional; chosen on phantoms
# (docs/model-card.md).
TRANSITIONAL = 0.72
CANAL_SD_MM = 6.0  # standard deviation of the canal's presence across slices, as in training
SACRUM_MM = 32.0  # image height needed below L5/S1 to see that it is the lowest disc
MIN_LEVELS = 3  # levels visible in a study of the lumbar spine
NOT_FOUND = "no lumbar spine was found on the {} images"
L5_S1 = DISCS.index(Level.L5_S1)


@dataclass(frozen=True)
class Levels:
    """``canal``: the middle of the dural sac at each visible disc, mm (LPS), cranial to caudal.

    ``source`` is the slice nearest to it. ``notes`` state how the levels were found, ``caveats``
    what makes the numbering uncertain. ``confidence`` (0–1) is not a probability. If no slice shows
    the canal itself, ``midline_known`` is False, and nothing may be graded. ``presence`` (0–1) is
    how clearly each disc is seen on the slice that shows it best.
    """

    canal: Mapping[Level, Vector]
    source: SliceHeader
    notes: tuple[str, ...]
    caveats: tuple[str, ...]
    confidence: float
    midline_known: bool = True
    role: Role = Role.SAGITTAL_T2  # of the series that they were located on
    presence: Mapping[Level, float] = field(default_factory=dict)

    @property
    def numbering_uncertain(self) -> bool:
        return bool(self.caveats)


def levels_on(
    role: Role, maps: SagittalMaps, read: ReadSlice, keypoints: KeypointDetector
) -> Levels:
    """The levels on one stack, whose ``maps`` ``examine`` has made.

    Raises:
        NotAnalysable: it shows no lumbar spine.
    """
    sequence = best_sequence(maps.combined())
    if sequence is None:
        raise NotAnalysable(NOT_FOUND.format(role.label))
    discs = {Level(DISCS[k]): k for k in sequence.positions if DISCS[k] in list(Level)}
    presence = maps.presence(sequence.positions)
    loose = len(maps.slices) <= MAX_LOOSE_SLICES
    _check_visible(role, discs, presence, loose)
    midline_known = maps.canal_visibility() >= MIDLINE_PRESENCE
    offsets = _canal_offsets(
        maps, maps.canal_presence(sequence.positions) if midline_known else presence
    )
    canal = {
        level: _to_patient(maps.middle, sequence.positions[k], offsets[k])
        for level, k in sorted(discs.items())
    }
    transitional = 0.0
    if midline_known:
        nearest = maps.nearest(offsets[L5_S1])[:BORDER_SLICES]
        transitional = _transitional(nearest, canal[Level.L5_S1], read, keypoints)
    below = _image_below(maps.middle.header, canal[Level.L5_S1])
    return Levels(
        canal=canal,
        source=maps.nearest(float(np.mean(list(offsets.values()))))[0].header,
        notes=tuple(_notes(role, canal, loose, midline_known, maps.unreadable)),
        caveats=tuple(_caveats(transitional, below, sequence, loose)),
        confidence=_confidence([presence[k] for k in discs.values()], sequence.margin),
        midline_known=midline_known,
        role=role,
        presence={level: float(presence[k].max()) for level, k in sorted(discs.items())},
    )


def _check_visible(
    role: Role, discs: Mapping[Level, int], presence: Mapping[int, Vector], loose: bool
) -> None:
    not_found = NOT_FOUND.format(role.label)
    if presence[L5_S1].max() < (MIN_PRESENCE / 2 if loose else MIN_PRESENCE):
        raise NotAnalysable(f"{not_found}: no sacrum is visible to count from")
    clear = sum(presence[k].max() >= MIN_PRESENCE / 2 for k in discs.values())
    if clear < MIN_LEVELS:
        raise NotAnalysable(f"{not_found}: only {clear} lumbar levels are clearly visible")


def _canal_offsets(maps: SagittalMaps, presence: Mapping[int, Vector]) -> dict[int, float]:
    """By disc: the offset of the canal's middle, mm to the left of the stack's middle slice.

    Interpolated between its neighbours for a disc that is hardly visible.
    """
    discs = sorted(presence)
    if len(maps.slices) <= MAX_LOOSE_SLICES:
        totals = sum(presence[k] for k in discs)
        return dict.fromkeys(discs, float(maps.offsets[np.argmax(totals)]))
    clear = [k for k in discs if presence[k].max() >= MIN_PRESENCE / 2] or discs
    centres = [fit_centre(maps.offsets, presence[k], CANAL_SD_MM) for k in clear]
    return dict(zip(discs, np.interp(discs, clear, centres).tolist(), strict=True))


def _to_patient(middle: SliceMaps, position: Vector, offset: float) -> Vector:
    """The point in mm (LPS) of a position in cells, at an offset from the middle slice."""
    across = (offset - middle.offset) * leftwards(middle.header)
    return middle.picture.from_cell(position) + across


def _transitional(
    nearest: list[SliceMaps], l5_s1: Vector, read: ReadSlice, keypoints: KeypointDetector
) -> float:
    """The probability that the vertebra at the lumbosacral border is transitional."""
    centre = l5_s1 + np.array([0.0, -BORDER_ANTERIOR_MM, -BORDER_CAUDAL_MM])
    headers = [s.header for s in nearest]  # all of these have been read before, without errors
    pictures = [picture(read(header), header, centre, BORDER).pixels for header in headers]
    return float(np.mean(keypoints.border(np.stack(pictures))))


def _image_below(header: SliceHeader, point: Vector) -> float:
    """How far the image extends below a point, mm."""
    corners = [
        header.to_patient(column, row)
        for column in (0, header.columns - 1)
        for row in (0, header.rows - 1)
    ]
    return float(point[2] - min(corner[2] for corner in corners))


def _confidence(presence: list[Vector], margin: float) -> float:
    visible = float(np.mean([by_slice.max() for by_slice in presence]))
    return max(0.0, visible * min(1.0, margin / CERTAIN_MARGIN))


def _caveats(transitional: float, below: float, sequence: DiscSequence, loose: bool) -> list[str]:
    reasons = []
    if below < SACRUM_MM:
        reasons.append(
            f"the images end {max(below, 0):.0f} mm below the lowest disc, and show no sacrum"
        )
    if transitional >= TRANSITIONAL:
        reasons.append(f"the border to the sacrum looks transitional ({transitional:.2f})")
    if sequence.margin < CERTAIN_MARGIN:
        reasons.append("another numbering fits almost as well")
    if loose:
        reasons.append("it rests on too few slices")
    return [f"{NUMBERING_UNCERTAIN}: {reason}" for reason in reasons]


def _notes(
    role: Role, canal: Mapping[Level, Vector], loose: bool, midline_known: bool, unreadable: int
) -> list[str]:
    notes = [
        f"disc levels located on {role.label}, "
        "counted upwards from L5/S1 as the lowest disc above the sacrum"
    ]
    missing = [level.label for level in Level if level not in canal]
    if missing:
        notes.append(f"not visible: {', '.join(missing)}")
    if unreadable:
        noun = "slice" if unreadable == 1 else "slices"
        notes.append(f"{unreadable} {role.label} {noun} could not be read")
    if not midline_known:
        notes.append(
            f"the dural sac is not seen on the {role.label} images; "
            "the points lie beside the mid-line"
        )
    elif loose:
        notes.append(
            "too few slices to locate the mid-line; it is assumed to lie on the slice itself"
        )
    return notes
