"""How many bytes files take, without opening them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

SAMPLE = 1000  # files of a large folder that stand for all


def bytes_below(folder: Path) -> int:
    """The size of all files below a folder; 0 if it is not there."""
    return sum(_sizes(folder))


def bytes_in(folder: Path) -> int:
    """The size of the files in a folder, without those in its folders; 0 if it is not there."""
    with suppress(OSError), os.scandir(folder) as entries:
        files = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
        return sum(entry.stat(follow_symlinks=False).st_size for entry in files)
    return 0


def mean_size(folder: Path) -> float:
    """The mean size of the first ``SAMPLE`` files below a folder, bytes; 0 if there is none."""
    sizes = list(islice(_sizes(folder), SAMPLE))
    return sum(sizes) / len(sizes) if sizes else 0


def used_and_free(path: Path) -> tuple[int, int]:
    """Bytes of the disk on which a path lies, not counting the blocks reserved for root."""
    usage = os.statvfs(path)
    return usage.f_frsize * (usage.f_blocks - usage.f_bfree), usage.f_frsize * usage.f_bavail


def fill_ratio(path: Path) -> float:
    """Usage of the disk on which a path lies, 0-1."""
    used, free = used_and_free(path)
    return used / (used + free) if used + free else 1.0


def same_disk(one: Path, other: Path) -> bool:
    """Whether two paths lie in one file system; False if one of them is not there."""
    try:
        return one.stat().st_dev == other.stat().st_dev
    except FileNotFoundError:
        return False


def _sizes(folder: Path) -> Iterator[int]:
    """The size of each file; links are not followed, and what has just gone is left out."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _sizes(Path(entry.path))
                continue
            with suppress(OSError):
                yield entry.stat(follow_symlinks=False).st_size
