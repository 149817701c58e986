"""Decides which series are read in which role, by geometry and timing.

Series descriptions, body parts, UIDs and numbers are unreliable.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lumbar.errors import NotAnalysable
from lumbar.spine.acquisitions import (
    MIN_SLICES,
    Acquisition,
    acquisition_per_series,
    find_acquisitions,
)
from lumbar.spine.anatomy import Plane, Role
from lumbar.spine.choices import Selection, choices_of, verdicts_of
from lumbar.spine.image_content import REFORMAT, kinds_of
from lumbar.spine.image_content import objection as content_objection
from lumbar.spine.same_place import ambiguities
from lumbar.spine.slices import SliceHeader
from lumbar.spine.stacks import Stack, identity_key, position_key
from lumbar.spine.weighting import Weighting, fat_suppressed, role_of, weighting

__all__ = [
    "MAX_LOOSE_SLICES",
    "MIN_SLICES",
    "Roles",
    "Stack",
    "Weighting",
    "assign_roles",
    "role_of",
    "weighting",
]

MAX_LOOSE_SLICES = 2  # studies of at most these get roles by plane and weighting alone
# Limits of the longer side, mm; axial series are often zoomed.
FIELD_OF_VIEW = {Plane.SAGITTAL: (180.0, 480.0), Plane.AXIAL: (120.0, 480.0)}


@dataclass(frozen=True)
class Roles:
    """The stacks to read in each role.

    A sagittal role has the best stack of each station (part of the body), the lowest first, so
    usually one; the axial role has all blocks, the largest first. ``choices`` state how each
    series was used, one line per series, numbered from 1 in the order of their UIDs. ``notes``
    state what is unusual about the relative position of the chosen stacks, and ``caveats`` why the
    wrong images may have been chosen. ``alternatives`` are the complete sagittal stacks that others
    of their role were preferred to, the best first.
    """

    stacks: Mapping[Role, tuple[Stack, ...]]
    choices: tuple[str, ...]
    notes: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    alternatives: Mapping[Role, tuple[Stack, ...]] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[Role, ...]:
        return tuple(role for role in Role if not self.stacks.get(role))


# Absurd positions in a header must not cause arithmetic warnings.
@np.errstate(over="ignore", invalid="ignore")
def assign_roles(slices: Sequence[SliceHeader]) -> Roles:
    """Assigns the series of one study; slices in any order, duplicates included.

    A study of at most ``MAX_LOOSE_SLICES`` slices gets its roles by ``role_of`` alone. A larger one
    must also have complete acquisitions of at least ``MIN_SLICES`` slices with a field of view that
    suits the spine.

    Raises:
        NotAnalysable: the slices belong to several studies.
    """
    if len({s.study_instance_uid for s in slices}) > 1:
        raise NotAnalysable("the slices belong to several studies; analyse one at a time")
    distinct = sorted(set(slices), key=identity_key)
    loose = len(distinct) <= MAX_LOOSE_SLICES
    verdicts: dict[Acquisition, str] = {}
    by_role: defaultdict[Role, list[Acquisition]] = defaultdict(list)
    suited: defaultdict[Role, list[SliceHeader]] = defaultdict(list)
    for (objection, _), family in _families(distinct, loose).items():
        role = role_of(family[0])
        if objection is not None or role is None:
            verdicts |= dict.fromkeys(acquisition_per_series(family), f"refused, {objection}")
        else:
            by_role[role] += find_acquisitions(family)
            suited[role] += family
    numbers = series_numbers(distinct)
    stacks: dict[Role, tuple[Stack, ...]] = {}
    alternatives: dict[Role, tuple[Stack, ...]] = {}
    caveats: list[str] = []
    for role in Role:
        selection = _select(role, by_role[role], loose)
        verdicts |= verdicts_of(role, selection, numbers)
        caveats += ambiguities(selection.read, suited[role], numbers)
        if selection.read:
            stacks[role] = _stacks_of(role, selection.read)
        if role is not Role.AXIAL_T2:
            others = sorted(selection.not_read, key=_preference)
            alternatives[role] = _stacks_of(role, others)
    choices = choices_of(verdicts, numbers)
    return Roles(stacks, choices, tuple(_notes(stacks)), tuple(caveats), alternatives)


def series_numbers(slices: Sequence[SliceHeader]) -> dict[str, int]:
    """By SeriesInstanceUID: the number, from 1, that ``choices`` use for it."""
    uids = dict.fromkeys(s.series_instance_uid for s in sorted(slices, key=identity_key))
    return {uid: n for n, uid in enumerate(uids, 1)}


def _families(
    slices: Sequence[SliceHeader], loose: bool
) -> Mapping[tuple[str | None, tuple[object, ...]], list[SliceHeader]]:
    """Slices by the objection to them, if any, and by what is constant within an acquisition.

    These constants are the frame of reference, the plane and the contrast.
    """
    localizers = _localizers(slices)
    frames = _frames_of_reference(slices)
    families: defaultdict[tuple[str | None, tuple[object, ...]], list[SliceHeader]]
    families = defaultdict(list)
    for header in slices:
        kinds = kinds_of(header) - {"magnitude"}
        contrast = weighting(header), fat_suppressed(header), header.contrast_agent, kinds
        localizer = (header.series_instance_uid, header.plane) in localizers
        objection = _objection(header, localizer, loose)
        families[objection, (frames[header.series_instance_uid], header.plane, *contrast)].append(
            header
        )
    return families


def _frames_of_reference(slices: Sequence[SliceHeader]) -> Mapping[str, str]:
    """By series: its frame of reference; empty if it states none, or several.

    It is an attribute of the series (PS3.3 C.7.4.1); one that differs from file to file says
    nothing.
    """
    stated: defaultdict[str, set[str]] = defaultdict(set)
    for header in slices:
        stated[header.series_instance_uid].add(header.frame_of_reference_uid)
    return {series: uids.pop() if len(uids) == 1 else "" for series, uids in stated.items()}


def _localizers(slices: Sequence[SliceHeader]) -> set[tuple[str, Plane]]:
    """Localizers: (series, plane) with too few slices, where the series has several planes."""
    by_series: defaultdict[str, defaultdict[Plane, list[SliceHeader]]]
    by_series = defaultdict(lambda: defaultdict(list))
    for header in slices:
        by_series[header.series_instance_uid][header.plane].append(header)
    return {
        (uid, plane)
        for uid, by_plane in by_series.items()
        # A steep L5/S1 block of an axial series may be closer to the coronal plane.
        if len(by_plane) > 1 and set(by_plane) != {Plane.AXIAL, Plane.CORONAL}
        for plane, members in by_plane.items()
        if len(Acquisition.from_slices(members)) < MIN_SLICES
    }


def _objection(header: SliceHeader, localizer: bool, loose: bool) -> str | None:
    """Why a slice cannot be read, or None; if ``loose``, it needs only a role."""
    content = content_objection(header)
    unsuitable = content or (
        f"{weighting(header)} in this plane is not read" if role_of(header) is None else None
    )
    if loose:
        return unsuitable
    longer_side = max(header.rows * header.spacing[0], header.columns * header.spacing[1])
    low, high = FIELD_OF_VIEW.get(header.plane, (0.0, np.inf))
    objections = [
        (localizer or "LOCALIZER" in header.image_type, "a localizer"),
        (content is not None, content),
        # PS3.3 C.7.6.1.1.2: not from the examination itself. DERIVED\PRIMARY is read: filters,
        # distortion correction and lossy compression are derivations, too.
        ("SECONDARY" in header.image_type[:2], REFORMAT),
        (unsuitable is not None, unsuitable),
        (
            not low <= longer_side <= high,
            f"the field of view is not within {low:.0f} to {high:.0f} mm",
        ),
    ]
    return next((reason for applies, reason in objections if applies), None)


def _select(role: Role, acquisitions: list[Acquisition], loose: bool) -> Selection:
    complete = [a for a in acquisitions if loose or len(a) >= MIN_SLICES]
    incomplete = [a for a in acquisitions if a not in complete]
    if role is Role.AXIAL_T2:
        read, not_read = _all_positions(complete)
    else:
        read, not_read = _best_of_each_station(complete)
    return Selection(read, not_read, incomplete)


def _best_of_each_station(
    acquisitions: list[Acquisition],
) -> tuple[list[Acquisition], list[Acquisition]]:
    """Sagittal acquisitions to read, the lowest first, and the others."""
    read: list[Acquisition] = []
    for acquisition in sorted(acquisitions, key=_preference):
        if not any(acquisition.same_station(better) for better in read):
            read.append(acquisition)
    read.sort(key=lambda a: a.stacks[0].extent[0])
    return read, [a for a in acquisitions if a not in read]


def _all_positions(acquisitions: list[Acquisition]) -> tuple[list[Acquisition], list[Acquisition]]:
    """Axial acquisitions to read, and slices at positions that a better one already shows."""
    read: list[Acquisition] = []
    not_read: list[Acquisition] = []
    for acquisition in sorted(acquisitions, key=_preference):
        pairs = list(zip(acquisition.shown_by(read), acquisition.slices, strict=True))
        added = [header for repeated, header in pairs if not repeated]
        repeats = [header for repeated, header in pairs if repeated]
        if added:
            read.append(Acquisition.from_slices(added))
        if repeats:
            not_read.append(Acquisition.from_slices(repeats))
    return read, not_read


def _stacks_of(role: Role, acquisitions: list[Acquisition]) -> tuple[Stack, ...]:
    stacks = [stack for acquisition in acquisitions for stack in acquisition.stacks]
    if role is Role.AXIAL_T2:
        stacks.sort(key=lambda s: (-len(s.slices), position_key(s.slices[0])))
    return tuple(stacks)


def _preference(acquisition: Acquisition) -> tuple[object, ...]:
    """Preferred: no fat suppression, no contrast agent, most slices, smallest pixels.

    Then the lower one, the one with the shorter echo time, and the first echo or time.
    """
    first = acquisition.first
    return (
        acquisition.stacks[0].fat_suppressed,
        first.contrast_agent,
        -len(acquisition),
        round(first.spacing[0] * first.spacing[1], 4),
        round(float(first.centre[2]), 1),
        first.echo_time or 0.0,
        first.echo_number,
        first.temporal_position,
        position_key(first),
    )


def _notes(stacks: Mapping[Role, tuple[Stack, ...]]) -> Iterator[str]:
    """Notes on stacks outside the sagittal stacks used for the levels, or in another frame."""
    reference = next(
        (role for role in (Role.SAGITTAL_T2, Role.SAGITTAL_T1) if role in stacks), None
    )
    for role in stacks:
        if reference is None or role is reference:
            continue
        pairs = [(stack, _nearest_station(stacks[reference], stack)) for stack in stacks[role]]
        outside = [stack for stack, station in pairs if not station.overlaps(stack)]
        if outside:
            count = sum(len(stack.slices) for stack in outside)
            yield f"{count} {role.label} slices lie entirely outside the {reference.label} images"
        if any(_frames_differ(*pair) for pair in pairs if pair[0] not in outside):
            names = f"{role.label} and {reference.label}"
            yield f"{names} state different frames of reference; they overlap and are read together"


def _frames_differ(stack: Stack, other: Stack) -> bool:
    """Whether both state a frame of reference, and the two differ."""
    frames = {s.slices[0].frame_of_reference_uid for s in (stack, other)} - {""}
    return len(frames) > 1


def _nearest_station(stations: Sequence[Stack], stack: Stack) -> Stack:
    return min(stations, key=lambda station: abs(station.extent[0] - stack.extent[0]))
