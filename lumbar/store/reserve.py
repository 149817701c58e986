"""Room kept on the disk of ``home``, so that images can be removed once it is full.

Removing them writes to the database, which lies there if it is SQLite. The reserve is a file, which
is removed when the disk is full to the last bytes, and made again once there is room.
"""

import os
from contextlib import suppress
from pathlib import Path

from lumbar.store.folders import FILE_MODE

NAME = "disk-reserve"  # in ``home``
SIZE = 8 * 2**20  # bytes; SQLite's write-ahead log takes 4 MiB
ROOM = 16  # times the size must be free for it to be made


def keep(home: Path) -> None:
    """Makes the reserve, if there is room for it; removes it where the disk is full."""
    file = home / NAME
    with suppress(OSError):  # also where a file system keeps no blocks for a file
        usage = os.statvfs(home)
        free = usage.f_frsize * usage.f_bavail
        if free < SIZE:
            file.unlink(missing_ok=True)
        elif free > ROOM * SIZE and not file.exists():
            _make(file)


def _make(file: Path) -> None:
    draft = file.with_suffix(".part")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        os.posix_fallocate(descriptor, 0, SIZE)
        draft.replace(file)
    finally:
        os.close(descriptor)
        draft.unlink(missing_ok=True)
