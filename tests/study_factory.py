"""Changes between scanner and receiver, made to slice headers; the anatomy stays where it is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import numpy as np
from numpy.typing import NDArray

from lumbar.spine.slices import SliceHeader, Vector

Slices = list[SliceHeader]
Storage = tuple[bool, bool, bool]  # transposed, rows reversed, columns reversed


def series(slices: Sequence[SliceHeader]) -> list[Slices]:
    """The series, in the order of their first slices."""
    slices_by_series: dict[str, Slices] = {}
    for header in slices:
        slices_by_series.setdefault(header.series_instance_uid, []).append(header)
    return list(slices_by_series.values())


def shuffled(slices: Sequence[SliceHeader], random: Random) -> Slices:
    return random.sample(list(slices), len(slices))


def renamed(slices: Sequence[SliceHeader], random: Random) -> Slices:
    """New series and SOP Instance UIDs, whose order has no meaning."""
    return [
        header
        for one_series in random.sample(series(slices), len(series(slices)))
        for header in _anew(one_series, random)
    ]


def renumbered(slices: Sequence[SliceHeader], random: Random) -> Slices:
    """Each series counted from its other end, with gaps."""
    step, start = random.randint(1, 7), random.randint(-5, 2000)
    return [
        replace(header, instance_number=start - step * header.instance_number) for header in slices
    ]


def turned(slices: Sequence[SliceHeader], random: Random) -> Slices:
    """Each series stored in another of the eight orientations.

    Half of them reverse the stored normal.
    """
    return [
        kept_as(header, storage)
        for one_series in series(slices)
        for storage in [(random.random() < 0.5, random.random() < 0.5, random.random() < 0.5)]
        for header in one_series
    ]


def split(slices: Sequence[SliceHeader], random: Random) -> Slices:
    """One series of many slices sent as two: its halves, or every other slice."""
    long_series = [one_series for one_series in series(slices) if len(one_series) >= 8]
    divided = random.choice(long_series)
    by_place = sorted(divided, key=lambda s: tuple(np.round(s.centre, 2)))
    half = len(divided) // 2
    part = random.choice([by_place[half:], by_place[::2], by_place[1::2], by_place[:half]])
    return [*(s for s in slices if s not in part), *_anew(part, random)]


def duplicated(slices: Sequence[SliceHeader], random: Random) -> Slices:
    """One series sent once more under new UIDs, wholly or without some of its slices."""
    again = random.choice(series(slices))
    repeated = random.sample(again, random.randint(max(1, len(again) - 3), len(again)))
    return [*slices, *_anew(repeated, random)]


def retimed(slices: Sequence[SliceHeader], random: Random) -> Slices:
    """Each series with a slightly different TR, as a scanner fits it to the number of slices."""
    return [
        replace(header, repetition_time=header.repetition_time and header.repetition_time * by)
        for one_series in series(slices)
        for by in [random.uniform(0.99, 1.01)]
        for header in one_series
    ]


def sent_twice(slices: Sequence[SliceHeader], random: Random) -> Slices:
    """Some instances arrive twice; of others there is a copy in the same series."""
    same, copies = (random.sample(list(slices), min(5, len(slices))) for _ in range(2))
    return [*slices, *same, *(replace(s, sop_instance_uid=_uid(random)) for s in copies)]


CHANGES: tuple[Callable[[Sequence[SliceHeader], Random], Slices], ...] = (
    shuffled,
    renamed,
    renumbered,
    turned,
    split,
    duplicated,
    sent_twice,
    retimed,
)


def kept_as(header: SliceHeader, storage: Storage) -> SliceHeader:
    """The same slice kept in memory in another of the eight ways, as its header states."""
    transposed, upside_down, backwards = storage
    if transposed:
        header = replace(
            header,
            orientation=(*header.orientation[3:], *header.orientation[:3]),
            spacing=header.spacing[::-1],
            rows=header.columns,
            columns=header.rows,
        )
    x, y, z, u, v, w = header.orientation
    if upside_down:
        position = _triple(header.to_patient(0, header.rows - 1))
        header = replace(header, position=position, orientation=(x, y, z, -u, -v, -w))
    x, y, z, u, v, w = header.orientation
    if backwards:
        position = _triple(header.to_patient(header.columns - 1, 0))
        header = replace(header, position=position, orientation=(-x, -y, -z, u, v, w))
    return header


def stored(
    image: NDArray[np.float32], header: SliceHeader, storage: Storage
) -> tuple[NDArray[np.float32], SliceHeader]:
    """Pixels and header of the same slice, kept in memory in another of the eight ways."""
    transposed, upside_down, backwards = storage
    image = image.T if transposed else image
    image = image[::-1] if upside_down else image
    image = image[:, ::-1] if backwards else image
    return np.ascontiguousarray(image), kept_as(header, storage)


def _anew(slices: Sequence[SliceHeader], random: Random) -> Slices:
    """As one series with a new UID; the frames of an instance stay together."""
    uid = _uid(random)
    instances = {header.sop_instance_uid: _uid(random) for header in slices}
    return [
        replace(s, series_instance_uid=uid, sop_instance_uid=instances[s.sop_instance_uid])
        for s in slices
    ]


def _uid(random: Random) -> str:
    return f"2.25.{random.getrandbits(100)}"


def _triple(point: Vector) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in point)
    return x, y, z
