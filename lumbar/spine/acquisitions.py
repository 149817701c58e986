"""What was acquired together, whatever the series it came in: split series are put together, repeats kept apart."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lumbar.spine.anatomy import Plane
from lumbar.spine.slices import SliceHeader
from lumbar.spine.stacks import Places, Stack, blocks, lying, stacks
from lumbar.spine.weighting import fat_suppressed

MIN_SLICES = 8  # of a whole acquisition


@dataclass(frozen=True, eq=False)
class Acquisition:
    """Slices of one plane and contrast, of one series or of those it was split into, none two showing the same.

    A series that holds more than one, such as a dual echo, has a share in several of them.
    """

    slices: tuple[SliceHeader, ...]
    stacks: tuple[Stack, ...]

    @classmethod
    def of(cls, slices: Sequence[SliceHeader]) -> "Acquisition":
        return cls(tuple(slices), stacks(slices))

    @property
    def first(self) -> SliceHeader:
        return self.stacks[0].slices[0]

    @property
    def kept(self) -> tuple[SliceHeader, ...]:
        """One slice for each position."""
        return tuple(header for stack in self.stacks for header in stack.slices)

    def __len__(self) -> int:
        return sum(len(stack.slices) for stack in self.stacks)

    def shows_again(self, other: "Acquisition") -> bool:
        """Whether at least half of it lies at places of the other."""
        places = Places(other.kept)
        return 2 * sum(bool(places.shared(header).any()) for header in self.kept) >= len(self)

    def repeats(self, other: "Acquisition") -> bool:
        """Whether it shows the other again with the same timing and matrix."""
        kinds = {kind(header) for header in other.slices}
        return any(kind(header) in kinds for header in self.slices) and self.shows_again(other)


def acquisitions(alike: Sequence[SliceHeader]) -> list[Acquisition]:
    """Of slices with one plane, contrast and frame of reference; a sagittal one is parallel throughout."""
    bunches = blocks(alike) if alike[0].plane is Plane.SAGITTAL else [list(alike)]
    return [Acquisition.of(joined) for bunch in bunches for joined in _joined(bunch)]


def kind(header: SliceHeader) -> tuple[object, ...]:
    """What the parts of a split series have in common, and a repeat with what it repeats: contrast, matrix, spacing."""
    contrast = fat_suppressed(header), header.contrast_agent
    times = (header.repetition_time, header.echo_time, header.inversion_time or 0.0)
    sides = sorted(zip(np.round(header.spacing, 3).tolist(), (header.rows, header.columns), strict=True))
    return *contrast, *(None if ms is None else round(ms, 1) for ms in times), *sides


@dataclass
class _Joined:
    again: bool  # begun with what is shown elsewhere
    slices: list[SliceHeader] = field(default_factory=list)
    series: set[str] = field(default_factory=set)
    kinds: set[tuple[object, ...]] = field(default_factory=set)


def _joined(slices: list[SliceHeader]) -> list[list[SliceHeader]]:
    """The parts, the largest first, each put with what it adds to one that it belongs to and that shows little of it.

    It belongs to what is of its series; and to what is of its kind, if it lies parallel to that or is no whole by
    itself. Parts without a whole that are shown elsewhere belong only to each other: they may be the repeat of a split
    series. What shows at least half of a part is repeated by it.
    """
    by_series: defaultdict[tuple[str, tuple[object, ...]], list[SliceHeader]] = defaultdict(list)
    for header in slices:
        by_series[header.series_instance_uid, kind(header)].append(header)
    parts = [(own, Acquisition.of(part).kept) for own, part in by_series.items()]
    parts.sort(key=lambda part: (-len(part[1]), lying(part[1][0])))
    ordered = [header for _, part in parts for header in part]
    places, where = Places(ordered), np.full(len(ordered), -1)  # the index in ``joined`` of each slice that is there
    joined: list[_Joined] = []
    done = 0
    for (uid, own), part in parts:
        known = [set(where[places.shared(header)].tolist()) - {-1} for header in part]
        shown = Counter(i for showing in known for i in showing)
        beside = {i for header in part for i in where[places.parallel(header)].tolist()}
        few, again = len(part) < MIN_SLICES, any(2 * count >= len(part) for count in shown.values())
        fitting = [
            (uid not in other.series, i not in beside, shown[i], i)
            for i, other in enumerate(joined)
            if 2 * shown[i] < len(part)
            and (uid in other.series or (own in other.kinds and (i in beside or (few and other.again is again))))
        ]
        at = min(fitting)[-1] if fitting else len(joined)
        if not fitting:
            joined.append(_Joined(again))
        joined[at].slices.extend(header for header, showing in zip(part, known, strict=True) if at not in showing)
        joined[at].series.add(uid)
        joined[at].kinds.add(own)
        where[done : done + len(part)] = at
        done += len(part)
    return [other.slices for other in joined]
