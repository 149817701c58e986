"""Really drops unsynced writes: builds the library ``powercut.c`` and applies the power cut."""

import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

_SOURCE = Path(__file__).with_suffix(".c")
_BYTES = struct.Struct("=QQQ")  # offset, old size, length of the old bytes that follow
_NAME = struct.Struct("=256s64s")  # name, what it was
KEPT = 0.5  # of each part of what was not synced, where a random part is kept
PAGE = 4096  # bytes that a disk writes at once


class PowerCut:
    """A folder whose files lose, at ``cut``, everything that was not synced.

    ``side`` is on the same file system, outside ``root``. ``ignore_fsync``: "folders" or "all" are
    never durable.
    """

    def __init__(self, root: Path, side: Path, ignore_fsync: str = "") -> None:
        self.root, self._side = root.resolve(), side.resolve()
        self._side.mkdir(parents=True, exist_ok=True)
        self._ignore_fsync = ignore_fsync

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for the programs that write under the root."""
        return {
            "LD_PRELOAD": f"{_built().name}/powercut.so",
            "POWERCUT_ROOT": str(self.root),
            "POWERCUT_SIDE": str(self._side),
            "POWERCUT_IGNORE_FSYNC": self._ignore_fsync,
        }

    def cut(self, rng: random.Random | None = None) -> None:
        """Restores the last durable state of all files and folders; every program must be dead.

        With ``rng``, a random part of what was not synced is kept: pages of files, each for itself,
        and of each name some of the last changes.
        """
        paths = {
            path.stat(follow_symlinks=False).st_ino: path
            for path in [self.root, *self.root.rglob("*")]
        }
        kept_files = {path.stat().st_ino: path for path in self._side.glob("kept-*")}
        for log in self._side.glob("*.bytes"):
            if path := (paths | kept_files).get(int(log.stem)):
                _undo_bytes(path, log, rng)
        for log in self._side.glob("*.names"):
            folder = paths.get(int(log.stem))
            if folder and folder.is_dir():  # else a parent folder was not durable itself
                kept = set[str]()
                for name, previous in reversed(list(_names(log))):
                    if rng and name not in kept and rng.random() < KEPT:
                        kept.add(name)
                    if name not in kept:
                        _undo_name(folder / name, previous, self._side)
        for shared_memory in self.root.rglob("*-shm"):
            shared_memory.unlink()
        for file in self._side.iterdir():
            file.unlink()


@cache
def _built() -> TemporaryDirectory[str]:
    """The folder of the library, built once per process and removed at its end."""
    folder = TemporaryDirectory(prefix="lumbar-powercut-")
    options = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *options, "-o", f"{folder.name}/powercut.so", str(_SOURCE)], check=True)
    return folder


def _complete(log: Path) -> bytes:
    """The complete records of the log: a kill can truncate the last one."""
    content = log.read_bytes()
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


def _undo_bytes(path: Path, log: Path, rng: random.Random | None) -> None:
    content, at, records = _complete(log), 0, []
    while at < len(content):
        offset, size, length = _BYTES.unpack_from(content, at)
        at += _BYTES.size + length
        records.append((offset, size, content[at - length : at]))
    if not records:  # as in the log of a folder
        return
    changes = []  # newest first: offset, what was written there, the size afterwards
    with path.open("r+b") as file:
        for offset, size, old in reversed(records):
            size_after = file.seek(0, os.SEEK_END)
            file.seek(offset)
            changed = len(old) if size_after <= size else size_after - offset
            changes.append((offset, file.read(max(changed, 0)), size_after))
            file.seek(offset)
            file.write(old)
            file.truncate(size)
        for offset, content, size_after in reversed(changes) if rng else ():
            _redo_part(file, offset, content, size_after, rng)


def _redo_part(file: BinaryIO, offset: int, content: bytes, size: int, rng: random.Random) -> None:
    """Writes some pages of a change again; the file becomes shorter or longer in one piece."""
    if size < file.seek(0, os.SEEK_END) and rng.random() < KEPT:
        file.truncate(size)
    at = 0
    while at < len(content):
        end = min(len(content), at + PAGE - (offset + at) % PAGE)
        if rng.random() < KEPT:
            file.seek(offset + at)
            file.write(content[at:end])
        at = end


def _names(log: Path) -> Iterator[tuple[str, str]]:
    for name, previous in _NAME.iter_unpack(_complete(log)):
        yield os.fsdecode(name.rstrip(b"\0")), os.fsdecode(previous.rstrip(b"\0"))


def _undo_name(path: Path, previous: str, side: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        if previous == "/":
            return
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if previous == "/":
        path.mkdir()
    elif previous:
        os.link(side / previous, path)
