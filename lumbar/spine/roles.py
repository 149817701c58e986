"""Which series is read for what, by geometry and timing: descriptions, body parts, UIDs and numbers lie."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lumbar.errors import NotAnalysable
from lumbar.spine.acquisitions import MIN_SLICES, Acquisition, acquisitions
from lumbar.spine.anatomy import Plane, Role
from lumbar.spine.slices import SliceHeader
from lumbar.spine.stacks import Stack, identity, lying
from lumbar.spine.weighting import Weighting, dixon, fat_suppressed, role_of, weighting

__all__ = [
    "ALONE",
    "MIN_SLICES",
    "Roles",
    "Stack",
    "Weighting",
    "assign_roles",
    "role_of",
    "weighting",
]

ALONE = 2  # a study of so few slices is read by plane and weighting alone
FIELD_OF_VIEW = {
    Plane.SAGITTAL: (180.0, 400.0),
    Plane.AXIAL: (120.0, 400.0),
}  # mm, the longer side; axial is zoomed

LISTED = 6  # of many things, before the rest are only counted


@dataclass(frozen=True)
class Roles:
    """The stacks to read for each role: of a sagittal one the best of each station, that is of each part of the body,
    the lowest first, so one in a usual study; of the axial one the largest first.

    ``choices`` tells in words what became of every series, one line each, numbered from 1 in the order of their UIDs.
    ``notes`` tell what is odd about how the stacks read lie to each other.
    """

    stacks: Mapping[Role, tuple[Stack, ...]]
    choices: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[Role, ...]:
        return tuple(role for role in Role if not self.stacks.get(role))


@np.errstate(
    over="ignore", invalid="ignore"
)  # absurd positions are no reason to complain of arithmetic
def assign_roles(slices: Sequence[SliceHeader]) -> Roles:
    """Reads the slices of one study, in any order, duplicates included.

    A study of at most ``ALONE`` slices gets its roles by plane and weighting alone; a larger one must also show whole
    acquisitions of at least ``MIN_SLICES`` slices and the spine's field of view. Raises NotAnalysable for several
    studies.
    """
    if len({s.study_instance_uid for s in slices}) > 1:
        raise NotAnalysable("the slices belong to several studies; analyse one at a time")
    distinct = sorted(set(slices), key=identity)
    alone = len(distinct) <= ALONE
    verdicts: dict[Acquisition, str] = {}
    offered: defaultdict[Role, list[Acquisition]] = defaultdict(list)
    for (objection, _), family in _families(distinct, alone).items():
        role = role_of(family[0])
        if objection is not None or role is None:
            verdicts |= dict.fromkeys(_by_series(family), f"refused, {objection}")
        else:
            offered[role] += acquisitions(family)
    series = series_numbers(distinct)
    stacks: dict[Role, tuple[Stack, ...]] = {}
    for role in Role:
        whole = [a for a in offered[role] if alone or len(a) >= MIN_SLICES]
        read, left = _read_all(whole) if role is Role.AXIAL_T2 else _best_of_each_station(whole)
        verdicts |= _verdicts(
            role, read, left, [a for a in offered[role] if a not in whole], series
        )
        found = [stack for a in read for stack in a.stacks]
        if role is Role.AXIAL_T2:
            found.sort(key=lambda s: (-len(s.slices), lying(s.slices[0])))
        if found:
            stacks[role] = tuple(found)
    return Roles(stacks, _choices(verdicts, series), tuple(_notes(stacks)))


def series_numbers(slices: Sequence[SliceHeader]) -> dict[str, int]:
    """By SeriesInstanceUID the number, from 1, under which ``choices`` speak of it."""
    uids = dict.fromkeys(s.series_instance_uid for s in sorted(slices, key=identity))
    return {uid: n for n, uid in enumerate(uids, 1)}


def _families(
    slices: Sequence[SliceHeader], alone: bool
) -> Mapping[tuple[str | None, tuple[object, ...]], list[SliceHeader]]:
    """By the objection to them, if any, and by what no acquisition mixes: frame of reference, plane and contrast."""
    localizers = _localizers(slices)
    families: defaultdict[tuple[str | None, tuple[object, ...]], list[SliceHeader]] = defaultdict(
        list
    )
    for header in slices:
        contrast = weighting(header), fat_suppressed(header), header.contrast_agent, dixon(header)
        objection = _objection(
            header, (header.series_instance_uid, header.plane) in localizers, alone
        )
        families[objection, (header.frame_of_reference_uid, header.plane, *contrast)].append(header)
    return families


def _localizers(slices: Sequence[SliceHeader]) -> set[tuple[str, Plane]]:
    """Of the series in several planes, as localizers are, the planes too few slices lie in to be an acquisition."""
    planes: defaultdict[str, defaultdict[Plane, list[SliceHeader]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for header in slices:
        planes[header.series_instance_uid][header.plane].append(header)
    return {
        (uid, plane)
        for uid, own in planes.items()
        # A steep L5/S1 block of an axial series may lie nearer to the coronal plane.
        if len(own) > 1 and set(own) != {Plane.AXIAL, Plane.CORONAL}
        for plane, held in own.items()
        if len(Acquisition.of(held)) < MIN_SLICES
    }


def _objection(header: SliceHeader, localizer: bool, alone: bool) -> str | None:
    """Why such a slice cannot be read, or None. Asks only for its plane and weighting where it came ``alone``."""
    unreadable = (
        f"{weighting(header)} in this plane is not read" if role_of(header) is None else None
    )
    if alone:
        return unreadable
    kinds = header.image_type
    longer_side = max(header.rows * header.spacing[0], header.columns * header.spacing[1])
    low, high = FIELD_OF_VIEW.get(header.plane, (0.0, np.inf))
    reformat = {"DERIVED", "SECONDARY"} & set(kinds[:2]) or {
        "MPR",
        "PROJECTION",
        "PROJECTION IMAGE",
    } & set(kinds)
    reasons = [
        (localizer or "LOCALIZER" in kinds, "a localizer"),
        (bool(reformat), "not an original acquisition"),
        (bool(dixon(header) & {"FAT", "OUT_PHASE"}), "a Dixon fat or opposed-phase image"),
        (unreadable is not None, unreadable),
        (
            not low <= longer_side <= high,
            f"the field of view is not within {low:.0f} to {high:.0f} mm",
        ),
    ]
    return next((reason for applies, reason in reasons if applies), None)


def _by_series(family: list[SliceHeader]) -> list[Acquisition]:
    by_series: defaultdict[str, list[SliceHeader]] = defaultdict(list)
    for header in family:
        by_series[header.series_instance_uid].append(header)
    return [Acquisition.of(own) for own in by_series.values()]


def _best_of_each_station(
    offered: list[Acquisition],
) -> tuple[list[Acquisition], list[Acquisition]]:
    """Of sagittal acquisitions what is read, the lowest first, and what is not."""
    read: list[Acquisition] = []
    for acquisition in sorted(offered, key=_preference):
        if not any(acquisition.shows_station(better) for better in read):
            read.append(acquisition)
    read.sort(key=lambda a: a.stacks[0].extent[0])
    return read, [a for a in offered if a not in read]


def _read_all(offered: list[Acquisition]) -> tuple[list[Acquisition], list[Acquisition]]:
    """Of axial acquisitions what is read, and what lies where a better one shows it."""
    read: list[Acquisition] = []
    left: list[Acquisition] = []
    for acquisition in sorted(offered, key=_preference):
        known = list(zip(acquisition.known_from(read), acquisition.slices, strict=True))
        for again, into in ((False, read), (True, left)):
            if own := [header for shown, header in known if shown is again]:
                into.append(Acquisition.of(own))
    return read, left


def _preference(acquisition: Acquisition) -> tuple[object, ...]:
    """Without fat suppression or contrast agent, most slices, finest; then the lower, with the shorter echo."""
    first = acquisition.first
    return (
        acquisition.stacks[0].fat_suppressed,
        first.contrast_agent,
        -len(acquisition),
        round(first.spacing[0] * first.spacing[1], 4),
        round(float(first.centre[2]), 1),
        first.echo_time or 0.0,
        lying(first),
    )


def _verdicts(
    role: Role,
    read: list[Acquisition],
    left: list[Acquisition],
    few: list[Acquisition],
    series: Mapping[str, int],
) -> Mapping[Acquisition, str]:
    verdicts = dict.fromkeys(read, role.label)
    if role is not Role.AXIAL_T2 and len(read) > 1:
        verdicts = {
            a: f"{role.label}, station {n} of {len(read)} from below" for n, a in enumerate(read, 1)
        }
    verdicts |= dict.fromkeys(left, f"not read, another is better for {role.label}")
    verdicts |= dict.fromkeys(few, f"refused, fewer than {MIN_SLICES} slices")
    for acquisition in (*left, *few):
        repeated = next((other for other in read if acquisition.repeats(other)), None)
        if repeated is not None:
            verdicts[acquisition] = f"not read, it repeats {_named(repeated, series)}"
    together = {a: _named(a, series) for a in verdicts}
    return {
        a: f"{v}; {together[a]} belong together" if " and " in together[a] else v
        for a, v in verdicts.items()
    }


def _named(acquisition: Acquisition, series: Mapping[str, int]) -> str:
    """``series 2``, ``series 2 and 5``, ``series 2, 5 and 6``."""
    return f"series {_listed(map(str, sorted({series[s.series_instance_uid] for s in acquisition.slices})))}"


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    if len(first) > LISTED:
        first, last = first[:LISTED], f"{len(first) + 1 - LISTED} more"
    return f"{', '.join(first)} and {last}" if first else last


def _choices(verdicts: Mapping[Acquisition, str], series: Mapping[str, int]) -> tuple[str, ...]:
    """A line for each series: what it holds, and what became of that."""
    told: defaultdict[int, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for acquisition, verdict in verdicts.items():
        for own in _by_series(list(acquisition.slices)):
            told[series[own.first.series_instance_uid]][verdict].append(_description(own))
    return tuple(
        f"series {n} "
        + "; ".join(f"({_listed(sorted(held))}): {verdict}" for verdict, held in told[n].items())
        for n in sorted(told)
    )


def _description(acquisition: Acquisition) -> str:
    first, count = acquisition.first, len(acquisition)
    times = (
        ("TR", first.repetition_time),
        ("TE", first.echo_time),
        ("TI", first.inversion_time or None),
    )
    timing = "".join(f" {name} {ms:.0f}" for name, ms in times if ms is not None)
    return f"{count} {first.plane} {'slice' if count == 1 else 'slices'}{',' if timing else ''}{timing}"


def _notes(stacks: Mapping[Role, tuple[Stack, ...]]) -> Iterator[str]:
    """Against the sagittal stacks, on which the levels are found: what lies elsewhere, what names another frame."""
    reference = next(
        (role for role in (Role.SAGITTAL_T2, Role.SAGITTAL_T1) if role in stacks), None
    )
    for role in stacks:
        if reference is None or role is reference:
            continue
        beside = [(stack, _nearest_station(stacks[reference], stack)) for stack in stacks[role]]
        apart = [stack for stack, station in beside if not station.meets(stack)]
        if apart:
            count = sum(len(stack.slices) for stack in apart)
            yield f"{count} {role.label} slices lie wholly outside the {reference.label} images"
        frames = [
            {s.slices[0].frame_of_reference_uid for s in pair} - {""}
            for pair in beside
            if pair[0] not in apart
        ]
        if any(len(named) > 1 for named in frames):
            names = f"{role.label} and {reference.label}"
            yield f"{names} name different frames of reference; they overlap and are read together"


def _nearest_station(stations: Sequence[Stack], stack: Stack) -> Stack:
    return min(stations, key=lambda station: abs(station.extent[0] - stack.extent[0]))
