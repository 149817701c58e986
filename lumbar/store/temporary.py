"""Folders for temporary files, each held by a process: what a killed one left is removed later.

Temporary files may hold patients' data, so those of services and of unpacked studies lie under
``home``, never in the system's temporary folder.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from lumbar.store.folders import FOLDER_MODE, make_private_folder

FOLDER = "temporary"  # under home


@contextmanager
def temporary_folder(parent: Path, prefix: str = "") -> Iterator[Path]:
    """A new, private folder in ``parent``, whose name begins with ``prefix``; removed at the end.

    Folders of that prefix that no process holds any more are removed first.

    Raises:
        OSError: it cannot be made.
    """
    make_private_folder(parent)
    _remove_abandoned(parent, prefix)
    folder, lock = _held(parent.resolve(), prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def use_home(home: Path) -> None:
    """Lets this process and its children, libraries included, write temporary files under ``home``.

    Where that cannot be written, for instance because it is not mounted yet, nothing changes.
    """
    held = temporary_folder(home / FOLDER)
    with suppress(OSError):
        tempfile.tempdir = os.environ["TMPDIR"] = str(held.__enter__())
        atexit.register(held.__exit__, None, None, None)


def _held(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder and the descriptor that holds it, as long as this process lives.

    Raises:
        OSError: it cannot be made or locked, for instance on a disk without locks.
    """
    while True:
        folder = parent / f"{prefix}{uuid4().hex[:12]}"
        folder.mkdir(FOLDER_MODE)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                folder.stat()
            except OSError:
                os.close(descriptor)
                raise
        except (FileNotFoundError, BlockingIOError):
            continue  # another process took it for abandoned
        except OSError:
            with suppress(OSError):
                folder.rmdir()
            raise
        return folder, descriptor


def _remove_abandoned(parent: Path, prefix: str) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # it is another user's, in use, or no folder
            descriptor = os.open(folder, flags)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
