"""Folders and files that only their owner may read, and that survive a power cut."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE, filemode
from uuid import uuid4

FOLDER_MODE, FILE_MODE = 0o700, 0o600


def make_folder(folder: Path, root: Path, durable: set[Path]) -> None:
    """Creates a folder, first its parents below ``root``, and adds all of them to ``durable``."""
    if folder == root:
        make_private_folder(folder.parent)
    else:
        make_folder(folder.parent, root, durable)
    if folder not in durable or not folder.exists():
        folder.mkdir(FOLDER_MODE, exist_ok=True)
        fsync_folder(folder.parent)
        durable.add(folder)


def make_private_folder(folder: Path) -> None:
    """Creates a folder that only its owner may enter; its parents as the umask says."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(FOLDER_MODE, exist_ok=True)


def fsync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lasting_id(file: Path) -> str:
    """The random id in a file, 8 hexadecimal digits; written on the first call of any process.

    Raises:
        OSError: it can be neither read nor written.
    """
    make_private_folder(file.parent)
    draft = file.with_name(f"{file.name}.{uuid4().hex}.part")
    if not file.exists():
        with suppress(FileExistsError):  # another process was first, and its id counts
            draft.touch(FILE_MODE)
            draft.write_text(uuid4().hex[:8], encoding="ascii")
            file.hardlink_to(draft)
        draft.unlink()
    return file.read_text(encoding="ascii")


def looser_than_private(paths: Iterable[Path]) -> Iterator[str]:
    """Those that others than their owner may read or write, with their modes."""
    for path in paths:
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        if S_IMODE(mode) & 0o077:
            yield f"{path} ({filemode(mode)})"
