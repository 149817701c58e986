"""Finds images that no element of their headers tells apart from those that were read."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lumbar.spine.acquisitions import Acquisition, protocol_of
from lumbar.spine.image_content import kinds_of
from lumbar.spine.slices import SliceHeader
from lumbar.spine.stacks import SlicePositions


def ambiguities(
    read: Iterable[Acquisition], suited: Sequence[SliceHeader], numbers: Mapping[str, int]
) -> Iterator[str]:
    """A caveat for each series of which another image might as well have been read.

    ``suited``: all slices that suit the role in which ``read`` were read; ``numbers``: by series.
    """
    series = {
        numbers[header.series_instance_uid]
        for acquisition in read
        for header in _others_at_the_same_place(acquisition, suited)
    }
    for number in sorted(series):
        yield (
            f"series {number} has several images at the same place, and nothing in their headers "
            "tells them apart: the wrong ones may have been read"
        )


def _others_at_the_same_place(
    acquisition: Acquisition, suited: Sequence[SliceHeader]
) -> list[SliceHeader]:
    """Images of the same series, protocol, echo and time as those of the acquisition.

    An image that arrived again has the InstanceNumber of the first, and is none of these.
    """
    kept = acquisition.distinct
    read, origins = set(kept), {_origin(header) for header in kept}
    others = [s for s in suited if _origin(s) in origins and s not in read]
    images = Counter(map(_number, kept))
    if others and max(images.values()) == 1:  # otherwise the numbers identify nothing
        others = [header for header in others if _number(header) not in images]
    kept_by_series: defaultdict[str, list[SliceHeader]] = defaultdict(list)
    for header in kept:
        kept_by_series[header.series_instance_uid].append(header)
    positions = {uid: SlicePositions(slices) for uid, slices in kept_by_series.items()}
    return [
        header
        for header in others
        if positions[header.series_instance_uid].same_position(header, spacing=0.0).any()
    ]


def _origin(header: SliceHeader) -> tuple[object, ...]:
    """What tells images at one place apart."""
    kinds = kinds_of(header) - {"magnitude"}
    times = header.echo_number, header.temporal_position
    return header.series_instance_uid, protocol_of(header), kinds, *times


def _number(header: SliceHeader) -> tuple[object, ...]:
    return header.series_instance_uid, header.instance_number, header.frame
