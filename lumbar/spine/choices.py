"""How each series of a study was used, in words."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lumbar.spine.acquisitions import MIN_SLICES, Acquisition, acquisition_per_series
from lumbar.spine.anatomy import Role

MAX_LISTED = 6  # items listed in a sentence; further ones are only counted


@dataclass(frozen=True)
class Selection:
    """The acquisitions of one role: those read, those not read, and those too small to be read."""

    read: list[Acquisition]
    not_read: list[Acquisition]
    incomplete: list[Acquisition]


def verdicts_of(
    role: Role, selection: Selection, numbers: Mapping[str, int]
) -> Mapping[Acquisition, str]:
    """How each acquisition suited to a role was used, in words."""
    read, count = selection.read, len(selection.read)
    verdicts = dict.fromkeys(read, role.label)
    if role is not Role.AXIAL_T2 and count > 1:
        for n, acquisition in enumerate(read, 1):
            verdicts[acquisition] = f"{role.label}, station {n} of {count} from below"
    verdicts |= dict.fromkeys(selection.not_read, f"not read, another is better for {role.label}")
    verdicts |= dict.fromkeys(selection.incomplete, f"refused, fewer than {MIN_SLICES} slices")
    for acquisition in (*selection.not_read, *selection.incomplete):
        original = next((other for other in read if acquisition.repeats(other)), None)
        if original is None:
            continue
        label = _series_label(original, numbers)
        if label == _series_label(acquisition, numbers):
            verdicts[acquisition] = f"not read, an earlier echo or time of {label} is read"
        else:
            verdicts[acquisition] = f"not read, it repeats {label}"
    for acquisition, verdict in verdicts.items():
        label = _series_label(acquisition, numbers)
        if " and " in label:
            verdicts[acquisition] = f"{verdict}; {label} belong together"
    return verdicts


def _series_label(acquisition: Acquisition, numbers: Mapping[str, int]) -> str:
    """``series 2``, ``series 2 and 5``, ``series 2, 5 and 6``."""
    series = {numbers[header.series_instance_uid] for header in acquisition.slices}
    return f"series {_enumeration(map(str, sorted(series)))}"


def _enumeration(words: Iterable[str]) -> str:
    *first, last = words
    if len(first) > MAX_LISTED:
        first, last = first[:MAX_LISTED], f"{len(first) + 1 - MAX_LISTED} more"
    return f"{', '.join(first)} and {last}" if first else last


def choices_of(verdicts: Mapping[Acquisition, str], numbers: Mapping[str, int]) -> tuple[str, ...]:
    """One line per series: what it contains, and how that was used."""
    by_series: defaultdict[int, defaultdict[str, list[str]]]
    by_series = defaultdict(lambda: defaultdict(list))
    for acquisition, verdict in verdicts.items():
        for share in acquisition_per_series(acquisition.slices):
            number = numbers[share.first.series_instance_uid]
            by_series[number][verdict].append(_description(share))
    return tuple(_choice(number, by_series[number]) for number in sorted(by_series))


def _choice(number: int, contents: Mapping[str, list[str]]) -> str:
    uses = [f"({_enumeration(sorted(labels))}): {verdict}" for verdict, labels in contents.items()]
    return f"series {number} {'; '.join(uses)}"


def _description(acquisition: Acquisition) -> str:
    """``15 sagittal slices, TR 3500 TE 100``; ``15 sagittal slices, T2 by its contrast``."""
    first, count = acquisition.first, len(acquisition)
    times = {
        "TR": first.repetition_time,
        "TE": first.echo_time,
        "TI": first.inversion_time or None,
    }
    timing = "".join(f" {name} {ms:.0f}" for name, ms in times.items() if ms is not None)
    if first.weighting_by is not None:
        timing += "{} {} by its {}".format("," if timing else "", *first.weighting_by)
    noun = "slice" if count == 1 else "slices"
    return f"{count} {first.plane} {noun}{',' if timing else ''}{timing}"
