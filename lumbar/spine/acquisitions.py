"""What was acquired together, whatever the series it came in: split series are put together, repeats kept apart."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lumbar.spine.anatomy import Plane
from lumbar.spine.slices import SliceHeader
from lumbar.spine.stacks import Places, Stack, blocks, lying, stacks
from lumbar.spine.weighting import fat_suppressed

MIN_SLICES = 8  # of a whole acquisition
ALIKE = 0.08  # of the longer: TR, TE and TI that differ by less belong to one protocol


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

    @property
    def step(self) -> float:
        """The usual distance of neighbours, mm; of slices without any, infinite."""
        steps = np.concatenate([stack.steps for stack in self.stacks])
        return float(np.median(steps)) if steps.size else math.inf

    def shows_station(self, other: "Acquisition") -> bool:
        """Whether the other's part of the body: the middles less than half the smaller images' height apart."""
        (middle, height), (other_middle, other_height) = (
            self.stacks[0].extent,
            other.stacks[0].extent,
        )
        return abs(middle - other_middle) < min(height, other_height) / 2

    def known_from(self, others: Sequence["Acquisition"]) -> list[bool]:
        """Of each slice: whether it lies at a place of the others."""
        places, step = Places([header for other in others for header in other.kept]), self.step
        return [bool(places.shared(header, step).any()) for header in self.slices]

    def repeats(self, other: "Acquisition") -> bool:
        """Whether at least half of it shows the other again, with the same timing and matrix."""
        ours, theirs = (
            {kind(header) for header in slices} for slices in (self.slices, other.slices)
        )
        alike = any(own.is_like(their) for own in ours for their in theirs)
        return alike and 2 * sum(self.known_from([other])) >= len(self.slices)


@dataclass(frozen=True)
class Kind:
    """What the parts of a split series have in common, and a repeat with what it repeats."""

    times: tuple[float | None, ...]  # TR, TE and TI in ms; without inversion, TI is 0
    images: tuple[object, ...]  # contrast, matrix and spacing

    def is_like(self, other: "Kind") -> bool:
        """Whether the images are the same, and the times nearly: scanners fit them to the number of slices."""
        pairs = zip(self.times, other.times, strict=True)
        return self.images == other.images and all(
            ours == theirs or (ours and theirs and math.isclose(ours, theirs, rel_tol=ALIKE))
            for ours, theirs in pairs
        )


def acquisitions(alike: Sequence[SliceHeader]) -> list[Acquisition]:
    """Of slices with one plane, contrast and frame of reference; a sagittal one is parallel throughout."""
    bunches = blocks(alike) if alike[0].plane is Plane.SAGITTAL else [list(alike)]
    return [Acquisition.of(joined) for bunch in bunches for joined in _joined(bunch)]


def kind(header: SliceHeader) -> Kind:
    """Of which kind a slice is, however it lies in memory."""
    times = (header.repetition_time, header.echo_time, header.inversion_time or 0.0)
    sides = sorted(
        zip(np.round(header.spacing, 3).tolist(), (header.rows, header.columns), strict=True)
    )
    images = fat_suppressed(header), header.contrast_agent, *sides
    return Kind(tuple(None if ms is None else round(ms, 1) for ms in times), images)


@dataclass
class _Joined:
    again: bool  # begun with what is shown elsewhere
    slices: list[SliceHeader] = field(default_factory=list)
    series: set[str] = field(default_factory=set)
    kinds: list[Kind] = field(
        default_factory=list
    )  # none like another, so that small differences do not add up

    def is_like(self, kind: Kind) -> bool:
        return any(kind.is_like(own) for own in self.kinds)


def _joined(slices: list[SliceHeader]) -> list[list[SliceHeader]]:
    """The parts, the largest first, each put with what it adds to one that it belongs to and that shows little of it.

    It belongs to what is of its series; and to what is of its kind, if it lies parallel to that or is no whole by
    itself. Parts without a whole that are shown elsewhere belong only to each other: they may be the repeat of a split
    series. What shows at least half of a part is repeated by it, unless the two lie evenly between each other.
    """
    by_series: defaultdict[tuple[str, Kind], list[SliceHeader]] = defaultdict(list)
    for header in slices:
        by_series[header.series_instance_uid, kind(header)].append(header)
    whole = [(own, Acquisition.of(part)) for own, part in by_series.items()]
    parts = sorted(
        ((own, a.kept, a.step) for own, a in whole),
        key=lambda part: (-len(part[1]), lying(part[1][0])),
    )
    ordered = [header for _, part, _ in parts for header in part]
    places, where = (
        Places(ordered),
        np.full(len(ordered), -1),
    )  # the index in ``joined`` of each slice that is there
    joined: list[_Joined] = []
    done = 0
    for (uid, own), part, step in parts:
        known = [set(where[places.shared(header, step)].tolist()) - {-1} for header in part]
        shown = Counter(i for showing in known for i in showing)
        for i in [
            i for i, count in shown.items() if 2 * count >= len(part) and joined[i].is_like(own)
        ]:
            both = where == i
            both[done : done + len(part)] = True
            if both.sum() >= MIN_SLICES and places.even(both):
                del shown[i]
        beside = {i for header in part for i in where[places.parallel(header)].tolist()}
        few, again = len(part) < MIN_SLICES, any(2 * count >= len(part) for count in shown.values())
        fitting = [
            (uid not in other.series, i not in beside, shown[i], i)
            for i, other in enumerate(joined)
            if 2 * shown[i] < len(part)
            and (
                uid in other.series
                or (other.is_like(own) and (i in beside or (few and other.again is again)))
            )
        ]
        at = min(fitting)[-1] if fitting else len(joined)
        if not fitting:
            joined.append(_Joined(again))
        joined[at].slices.extend(
            header
            for header, showing in zip(part, known, strict=True)
            if at not in shown or at not in showing
        )
        joined[at].series.add(uid)
        if not joined[at].is_like(own):
            joined[at].kinds.append(own)
        where[done : done + len(part)] = at
        done += len(part)
    return [other.slices for other in joined]
