"""Groups slices into acquisitions: joins the parts of split series, keeps repeats separate."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from lumbar.spine.anatomy import Plane
from lumbar.spine.slices import SliceHeader
from lumbar.spine.stacks import SlicePositions, Stack, build_stacks, parallel_blocks, position_key
from lumbar.spine.weighting import fat_suppressed

MIN_SLICES = 8  # of a complete acquisition
TIME_TOLERANCE = 0.08  # relative difference of TR, TE and TI within one protocol


@dataclass(frozen=True, eq=False)
class Acquisition:
    """Slices of one plane and contrast, from one series or from several into which it was split.

    A series that holds more than one acquisition, such as a dual echo, contributes to several.
    """

    slices: tuple[SliceHeader, ...]
    stacks: tuple[Stack, ...]

    @classmethod
    def from_slices(cls, slices: Sequence[SliceHeader]) -> "Acquisition":
        return cls(tuple(slices), build_stacks(slices))

    @property
    def first(self) -> SliceHeader:
        return self.stacks[0].slices[0]

    @property
    def distinct(self) -> tuple[SliceHeader, ...]:
        """One slice per position."""
        return tuple(header for stack in self.stacks for header in stack.slices)

    def __len__(self) -> int:
        return sum(len(stack.slices) for stack in self.stacks)

    @property
    def spacing(self) -> float:
        """The median distance of neighbouring slices, mm; infinite if none has a neighbour."""
        spacings = np.concatenate([stack.spacings for stack in self.stacks])
        return float(np.median(spacings)) if spacings.size else math.inf

    def same_station(self, other: "Acquisition") -> bool:
        """Whether both show the same part of the body.

        That is, whether their middles are less than half the smaller image height apart.
        """
        middle, height = self.stacks[0].extent
        other_middle, other_height = other.stacks[0].extent
        return abs(middle - other_middle) < min(height, other_height) / 2

    def shown_by(self, others: Sequence["Acquisition"]) -> list[bool]:
        """Per slice: whether one of the others has a slice at the same position."""
        positions = SlicePositions([header for other in others for header in other.distinct])
        spacing = self.spacing
        return [bool(positions.same_position(header, spacing).any()) for header in self.slices]

    def repeats(self, other: "Acquisition") -> bool:
        """Whether half or more of its slices repeat the other's with the same timing and matrix."""
        protocols = {protocol_of(header) for header in self.slices}
        others = {protocol_of(header) for header in other.slices}
        alike = any(mine.matches(theirs) for mine, theirs in product(protocols, others))
        return alike and 2 * sum(self.shown_by([other])) >= len(self.slices)


@dataclass(frozen=True)
class AcquisitionProtocol:
    """What the parts of a split series have in common, and a repeat with its original."""

    times: tuple[float | None, ...]  # TR, TE and TI in ms; TI is 0 without inversion
    images: tuple[object, ...]  # contrast, matrix and spacing

    def matches(self, other: "AcquisitionProtocol") -> bool:
        """Whether contrast and geometry are equal and the times nearly so.

        Scanners adapt the times to the number of slices.
        """
        return self.images == other.images and all(
            mine == theirs
            or (mine and theirs and math.isclose(mine, theirs, rel_tol=TIME_TOLERANCE))
            for mine, theirs in zip(self.times, other.times, strict=True)
        )


def protocol_of(header: SliceHeader) -> AcquisitionProtocol:
    """The slice's protocol, independent of how its pixels are stored."""
    times = (header.repetition_time, header.echo_time, header.inversion_time or 0.0)
    sides = sorted(
        zip(np.round(header.spacing, 3).tolist(), (header.rows, header.columns), strict=True)
    )
    images = fat_suppressed(header), header.contrast_agent, *sides
    return AcquisitionProtocol(tuple(None if ms is None else round(ms, 1) for ms in times), images)


def find_acquisitions(slices: Sequence[SliceHeader]) -> list[Acquisition]:
    """The acquisitions among slices of one plane, contrast and frame of reference.

    All slices of a sagittal acquisition are parallel.
    """
    blocks = parallel_blocks(slices) if slices[0].plane is Plane.SAGITTAL else [list(slices)]
    return [
        Acquisition.from_slices(members)
        for block in blocks
        for members in _join_split_series(block)
    ]


def acquisition_per_series(slices: Iterable[SliceHeader]) -> list[Acquisition]:
    """The slices as one acquisition per series, whatever they show."""
    by_series: defaultdict[str, list[SliceHeader]] = defaultdict(list)
    for header in slices:
        by_series[header.series_instance_uid].append(header)
    return [Acquisition.from_slices(members) for members in by_series.values()]


@dataclass(frozen=True, eq=False)
class _Part:
    """The slices of one series and protocol, one per position."""

    series_uid: str
    protocol: AcquisitionProtocol
    slices: tuple[SliceHeader, ...]
    spacing: float  # mm

    def __len__(self) -> int:
        return len(self.slices)


@dataclass
class _Group:
    """Parts that were acquired together."""

    starts_as_repeat: bool  # other groups show most of its first part
    slices: list[SliceHeader] = field(default_factory=list)
    series_uids: set[str] = field(default_factory=set)
    # None of them matches another, so that small differences do not accumulate.
    protocols: list[AcquisitionProtocol] = field(default_factory=list)

    def matches(self, protocol: AcquisitionProtocol) -> bool:
        return any(protocol.matches(other) for other in self.protocols)

    def add(self, part: _Part, slices: list[SliceHeader]) -> None:
        self.slices += slices
        self.series_uids.add(part.series_uid)
        if not self.matches(part.protocol):
            self.protocols.append(part.protocol)


def _join_split_series(slices: Sequence[SliceHeader]) -> list[list[SliceHeader]]:
    """The slices of each acquisition: parts are assigned to groups, starting with the largest."""
    grouping = _Grouping(_parts(slices))
    for part in grouping.parts:
        grouping.assign(part)
    return [group.slices for group in grouping.groups]


def _parts(slices: Sequence[SliceHeader]) -> list[_Part]:
    """One part per series and protocol, or of these per echo and time; the largest first."""
    by_series: defaultdict[tuple[str, AcquisitionProtocol], list[SliceHeader]] = defaultdict(list)
    for header in slices:
        by_series[header.series_instance_uid, protocol_of(header)].append(header)
    parts = []
    for (series_uid, protocol), members in by_series.items():
        for acquisition in _by_echo_and_time(members):
            parts.append(_Part(series_uid, protocol, acquisition.distinct, acquisition.spacing))
    return sorted(parts, key=lambda part: (-len(part), _first_echo(part.slices[0])))


def _by_echo_and_time(members: list[SliceHeader]) -> list[Acquisition]:
    """The slices of one series and protocol: divided only if there are several at one place.

    Scanners may also count echoes or times where each place has a single image.
    """
    together = Acquisition.from_slices(members)
    if len(together) == len(members):
        return [together]
    divided: defaultdict[tuple[int, int], list[SliceHeader]] = defaultdict(list)
    for header in members:
        divided[header.echo_number, header.temporal_position].append(header)
    return [Acquisition.from_slices(divided[key]) for key in sorted(divided)]


def _first_echo(header: SliceHeader) -> tuple[object, ...]:
    return header.echo_number, header.temporal_position, position_key(header)


class _Grouping:
    """Assigns parts to groups, one after the other."""

    def __init__(self, parts: list[_Part]) -> None:
        self.parts = parts
        self.groups: list[_Group] = []
        ordered = [header for part in parts for header in part.slices]
        self._positions = SlicePositions(ordered)
        # By slice, in the same order: the index of its group; -1 until it is assigned.
        self._group_of = np.full(len(ordered), -1)
        self._assigned = 0  # how many slices, from the first, have been assigned

    def assign(self, part: _Part) -> None:
        """Adds to the part's group, existing or new, the slices that it does not show yet."""
        shown_by = [self._groups_showing(header, part.spacing) for header in part.slices]
        shown = self._count_shown(part, shown_by)
        index = self._group_for(part, shown)
        added = [
            header
            for header, showing in zip(part.slices, shown_by, strict=True)
            if index not in shown or index not in showing
        ]
        self.groups[index].add(part, added)
        self._group_of[self._slots(part)] = index
        self._assigned += len(part)

    def _groups_showing(self, header: SliceHeader, spacing: float) -> set[int]:
        """The groups that have a slice at the same position."""
        same = self._positions.same_position(header, spacing)
        return set(self._group_of[same].tolist()) - {-1}

    def _count_shown(self, part: _Part, shown_by: list[set[int]]) -> Counter[int]:
        """By group: how many of the part's slices it already shows.

        A part repeats a group of the same protocol that shows at least half of it, unless the two
        interleave evenly, as halves of one acquisition do; such a group is not counted.
        """
        shown = Counter(index for showing in shown_by for index in showing)
        repeated = [index for index, count in shown.items() if 2 * count >= len(part)]
        for index in repeated:
            if self.groups[index].matches(part.protocol) and self._interleave(part, index):
                del shown[index]
        return shown

    def _interleave(self, part: _Part, index: int) -> bool:
        """Whether part and group together are evenly spaced and make a complete acquisition."""
        both = self._group_of == index
        both[self._slots(part)] = True
        return bool(both.sum() >= MIN_SLICES and self._positions.evenly_spaced(both))

    def _group_for(self, part: _Part, shown: Counter[int]) -> int:
        """The index of the group to which the part belongs; a new group if none fits.

        A part belongs to a group that shows less than half of it and either has slices of its
        series or matches its protocol. In the latter case it must be parallel to the group or be
        too small to be complete by itself. Small parts that other groups already show are grouped
        only with each other: they may be the repeat of a split series.
        """
        parallel = {
            index
            for header in part.slices
            for index in self._group_of[self._positions.parallel(header)].tolist()
        }
        small = len(part) < MIN_SLICES
        repeat = any(2 * count >= len(part) for count in shown.values())

        def fits(index: int, group: _Group) -> bool:
            if 2 * shown[index] >= len(part):
                return False
            if part.series_uid in group.series_uids:
                return True
            joinable = index in parallel or (small and group.starts_as_repeat is repeat)
            return joinable and group.matches(part.protocol)

        fitting = [
            (part.series_uid not in group.series_uids, index not in parallel, shown[index], index)
            for index, group in enumerate(self.groups)
            if fits(index, group)
        ]
        if fitting:
            return min(fitting)[-1]
        self.groups.append(_Group(starts_as_repeat=repeat))
        return len(self.groups) - 1

    def _slots(self, part: _Part) -> slice:
        """The indices, among all slices, of the part that is being assigned."""
        return slice(self._assigned, self._assigned + len(part))
