"""Shares: the folders, one of each process, in which files arrive until they are registered.

``arrived/<share>/`` holds a process's staging files (``*.part``) and its arrived files (``*.dcm``):
durable and acknowledged, but without rows yet. The process holds a lock on its share as long as it
lives; whoever registers the arrived files holds another, so each share has one registrar at a time,
and a dead one's is free at once.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from time import time_ns
from typing import ClassVar, Self
from uuid import uuid4

from lumbar.store.folders import FILE_MODE, FOLDER_MODE, fsync_folder

OWNER, REGISTRAR = "owner", "registrar"  # the files that are locked
SOURCE_DIGITS = 8  # of the hash of a source


@dataclass(frozen=True)
class ArrivedFile:
    """A file that has arrived; its name says of which study, and when."""

    path: Path
    study_instance_uid: str
    received_ns: int  # since 1970, by the clock of the host that received it
    source: str  # tells sources apart, and does not name them

    def age_s(self) -> float:
        """Seconds since it was received; 0 if that lies ahead: the clock was set back."""
        return max(0, time_ns() - self.received_ns) / 1e9

    def has_waited(self, seconds: float) -> bool:
        """Whether it was received so long ago, or further ahead than that by a clock set back."""
        return abs(time_ns() - self.received_ns) / 1e9 >= seconds

    @classmethod
    def parse(cls, path: Path) -> "ArrivedFile | None":
        """The arrived file at a path; None if its name is not one of theirs."""
        parts = path.name.split("_")
        if path.suffix != ".dcm" or len(parts) != 3 or not parts[1].isdecimal():
            return None
        return cls(path, parts[0], int(parts[1]), parts[2][:SOURCE_DIGITS])


def arrived_name(study_instance_uid: str, source: str) -> str:
    """A new, unique name of an arrived file."""
    digits = sha256(source.encode()).hexdigest()[:SOURCE_DIGITS]
    return f"{study_instance_uid}_{time_ns()}_{digits}{uuid4().hex}.dcm"


@dataclass(frozen=True)
class Share:
    """One process's folder below ``arrived``."""

    PARENT: ClassVar[str] = "arrived"

    folder: Path
    # Of the owner's lock and of the folder itself, in the process that owns it.
    _lock: int | None = field(default=None, compare=False, repr=False)
    _folder: int | None = field(default=None, compare=False, repr=False)

    @classmethod
    def create(cls, parent: Path) -> Self:
        """A new share of this process, locked until the process ends."""
        while True:
            folder = parent / uuid4().hex
            folder.mkdir(FOLDER_MODE)
            fsync_folder(parent)
            lock = _try_lock(folder / OWNER)
            # Otherwise another process took it for a dead one's before it was locked.
            if lock is not None:
                return cls(folder, lock, os.open(folder, os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Gives it up: whoever registers takes it for a dead process's."""
        for descriptor in (self._lock, self._folder):
            if descriptor is not None:
                os.close(descriptor)

    @classmethod
    def all(cls, parent: Path) -> list[Self]:
        """The shares below a folder."""
        try:
            return [cls(Path(entry.path)) for entry in os.scandir(parent) if entry.is_dir()]
        except FileNotFoundError:
            return []

    def exists(self) -> bool:
        """Whether the folder is still the one that was created."""
        try:
            found = self.folder.stat()
        except FileNotFoundError:
            return False
        return self._folder is None or os.path.samestat(found, os.fstat(self._folder))

    def fsync(self) -> None:
        """Makes the names of this process's arrived files survive a power cut."""
        assert self._folder is not None  # noqa: S101 - another process's share
        os.fsync(self._folder)

    def arrived(self) -> list[ArrivedFile]:
        """The files that have arrived and are not registered, oldest first."""
        try:
            paths = [Path(entry.path) for entry in os.scandir(self.folder)]
        except (FileNotFoundError, PermissionError):  # ``registering`` raises the latter
            return []
        arrived = (ArrivedFile.parse(path) for path in paths)
        return sorted(filter(None, arrived), key=lambda file: file.received_ns)

    def count(self) -> int:
        """How many files have arrived and are not registered."""
        try:
            return sum(entry.name.endswith(".dcm") for entry in os.scandir(self.folder))
        except (FileNotFoundError, PermissionError):
            return 0

    @contextmanager
    def registering(self, wait: bool = False) -> Iterator[bool]:
        """Whether this process may register the share's files within the block.

        With ``wait``, in a share of this process's own, it waits for its turn.
        """
        lock = _try_lock(self.folder / REGISTRAR, wait=wait)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                os.close(lock)

    def remove_if_dead(self) -> int:
        """Removes the staging files of a dead process, and its share once that is empty.

        Returns the number of staging files removed.
        """
        lock = _try_lock(self.folder / OWNER)
        if lock is None:
            return 0
        removed = 0
        try:
            for staging in self.folder.glob("*.part"):
                staging.unlink(missing_ok=True)
                removed += 1
            if not any(self.folder.glob("*.dcm")):
                for name in (OWNER, REGISTRAR):
                    (self.folder / name).unlink(missing_ok=True)
                with suppress(OSError):  # something else lies there
                    self.folder.rmdir()
        finally:
            os.close(lock)
        return removed


def _try_lock(path: Path, wait: bool = False) -> int | None:
    """The descriptor of a lock on a file; closing it releases the lock.

    None if a living process holds the lock and we do not ``wait``, or if the file or its folder was
    removed meanwhile.

    Raises:
        OSError: files cannot be locked there.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
