"""Really drops unsynced writes: builds the library ``powercut.c`` and applies the power cut."""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_BYTES = struct.Struct("=QQQ")  # offset, old size, length of the old bytes that follow
_NAME = struct.Struct("=256s64s")  # name, what it was


class PowerCut:
    """A folder whose files lose, at ``cut``, everything that was not synced.

    ``side`` is on the same file system, outside ``root``. ``ignore_fsync``: "folders" or "all" are
    never durable.
    """

    def __init__(self, root: Path, side: Path, ignore_fsync: str = "") -> None:
        self.root, self._side = root.resolve(), side.resolve()
        self._side.mkdir(parents=True)
        self._library = self._side.with_name(self._side.name + ".so")
        compiler = [
            "cc",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-shared",
            "-fPIC",
            "-o",
            str(self._library),
        ]
        subprocess.run([*compiler, str(_SOURCE)], check=True)
        self._ignore_fsync = ignore_fsync

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for the programs that write under the root."""
        return {
            "LD_PRELOAD": str(self._library),
            "POWERCUT_ROOT": str(self.root),
            "POWERCUT_SIDE": str(self._side),
            "POWERCUT_IGNORE_FSYNC": self._ignore_fsync,
        }

    def cut(self) -> None:
        """Restores the last durable state of all files and folders; every program must be dead."""
        paths = {
            path.stat(follow_symlinks=False).st_ino: path
            for path in [self.root, *self.root.rglob("*")]
        }
        kept_files = {path.stat().st_ino: path for path in self._side.glob("kept-*")}
        for log in self._side.glob("*.bytes"):
            if path := (paths | kept_files).get(int(log.stem)):
                _undo_bytes(path, log)
        for log in self._side.glob("*.names"):
            folder = paths.get(int(log.stem))
            if folder and folder.is_dir():  # else a parent folder was not durable itself
                for name, previous in reversed(list(_names(log))):
                    _undo_name(folder / name, previous, self._side)
        for shared_memory in self.root.rglob("*-shm"):
            shared_memory.unlink()
        for file in self._side.iterdir():
            file.unlink()


def _complete(log: Path) -> bytes:
    """The complete records of the log: a kill can truncate the last one."""
    content = log.read_bytes()
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


def _undo_bytes(path: Path, log: Path) -> None:
    content, at, records = _complete(log), 0, []
    while at < len(content):
        offset, size, length = _BYTES.unpack_from(content, at)
        at += _BYTES.size + length
        records.append((offset, size, content[at - length : at]))
    if not records:  # as in the log of a folder
        return
    with path.open("r+b") as file:
        for offset, size, old in reversed(records):
            file.seek(offset)
            file.write(old)
            file.truncate(size)


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
