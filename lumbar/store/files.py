"""Durable files: each is either complete, under the hash of its content, or absent."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import IO
from uuid import uuid4

from lumbar.errors import Transient

INCOMING = "incoming"  # holds one folder per writing process, with its staging files


class StoreFull(Transient):
    """The disk is full or cannot be written."""


class StagingFile:
    """A file being written; it is part of the store only once it is committed."""

    def __init__(self, store: "Store", path: Path, file: IO[bytes]) -> None:
        self._store = store
        self.path = path
        self.file = file

    def commit(self, kind: str, digest: str) -> str:
        """Makes it durable under ``digest`` (hexadecimal) and returns its path below the root.

        fsync → rename → fsync folder: once this returns, the file survives a power cut. An existing
        file of that name is left unchanged and made just as durable.
        """
        path = self._store.root / kind / digest[:2] / f"{digest}.dcm"
        self._store.make_folder(path.parent)
        if not path.exists():
            self.file.flush()
            os.fsync(self.file.fileno())
            self.path.replace(path)
        _fsync_folder(path.parent)
        return path.relative_to(self._store.root).as_posix()


@dataclass(frozen=True)
class Store:
    """A folder of files named by hash: ``<kind>/<first two digits>/<hash>.dcm``.

    Every process writes in a folder of its own under ``incoming``, which it keeps locked while it
    lives. Staging files of a killed process are thus distinguished from those being written.
    """

    root: Path
    # The folders this process has fsynced.
    _durable: set[Path] = field(default_factory=set, compare=False, repr=False)
    # This process's staging folders with their locks' descriptors; the last is the current one.
    _staging: list[tuple[Path, int]] = field(default_factory=list, compare=False, repr=False)
    _staging_lock: Lock = field(default_factory=Lock, compare=False, repr=False)

    @contextmanager
    def staging_file(self) -> Iterator[StagingFile]:
        """A new staging file, removed at the end of the block unless it was committed.

        Raises:
            StoreFull: the disk cannot be written, here or within the block.
        """
        path: Path | None = None
        try:
            path = self.staging_folder() / f"{uuid4().hex}.part"
            with path.open("xb") as file:
                yield StagingFile(self, path, file)
        except OSError as error:
            raise StoreFull(
                f"cannot write to {self.root}: {os.strerror(error.errno or errno.EIO)}"
            ) from error
        finally:
            if path is not None:
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def put(self, kind: str, digest: str, content: bytes) -> str:
        """Writes ``content`` durably under ``digest`` and returns its path below the root.

        Raises:
            StoreFull: the disk cannot be written.
        """
        with self.staging_file() as staging:
            staging.file.write(content)
            return staging.commit(kind, digest)

    def path(self, relative: str) -> Path:
        """The full path of a stored file."""
        return self.root / relative

    def remove(self, relative: str) -> None:
        """Removes a stored file if it exists."""
        with suppress(OSError):
            self.path(relative).unlink(missing_ok=True)

    def files(self, folder: str) -> set[str]:
        """The paths below the root of the files in a folder (``<kind>/<two digits>``)."""
        try:
            return {
                f"{folder}/{entry.name}"
                for entry in os.scandir(self.root / folder)
                if entry.is_file()
            }
        except FileNotFoundError:
            return set()

    def fill_ratio(self) -> float:
        """Usage of the store's disk, 0–1, not counting the blocks reserved for root.

        Raises:
            StoreFull: the disk cannot be written, or its usage cannot be read.
        """
        try:
            self.make_folder(self.root)
            usage = os.statvfs(self.root)
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            raise StoreFull(f"cannot read the disk usage of {self.root}: {reason}") from error
        used = usage.f_blocks - usage.f_bfree
        return used / (used + usage.f_bavail) if used + usage.f_bavail else 1.0

    def require_room(self, max_fill: float) -> None:
        """Checks that the disk has room for new data; accepted data must still be written.

        ``max_fill`` is the disk usage, 0–1, above which nothing new is accepted.

        Raises:
            StoreFull: the disk usage is above that, or cannot be read.
        """
        if (fill := self.fill_ratio()) > max_fill:
            raise StoreFull(
                f"the disk is {fill:.0%} full; above {max_fill:.0%} nothing new is accepted "
                "(LUMBAR_DISK_REFUSE_ABOVE)"
            )

    def staging_folder(self) -> Path:
        """This process's folder for staging files, created and locked on the first call."""
        with self._staging_lock:
            # Created again if an operator has removed it.
            if not self._staging or not self._staging[-1][0].exists():
                self._staging.append(self._new_staging_folder())
            return self._staging[-1][0]

    def remove_orphans(self) -> int:
        """Removes the staging folders of dead processes; returns the number of files removed."""
        removed = 0
        for folder in (self.root / INCOMING).glob("*"):
            with suppress(OSError):
                descriptor = _try_lock(folder)
                if descriptor is None:
                    continue
                removed += sum(1 for _ in folder.glob("*.part"))
                shutil.rmtree(folder)
                os.close(descriptor)
        return removed

    def make_folder(self, folder: Path) -> None:
        """Creates a folder so that it survives a power cut, its parents first."""
        if folder in self._durable:
            return
        if folder == self.root:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            self.make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
        _fsync_folder(folder.parent)
        self._durable.add(folder)

    def _new_staging_folder(self) -> tuple[Path, int]:
        self.make_folder(self.root / INCOMING)
        while True:
            folder = self.root / INCOMING / uuid4().hex
            folder.mkdir()
            descriptor = _try_lock(folder)
            # Otherwise another process removed it as an orphan before it was locked.
            if descriptor is not None and folder.exists():
                return folder, descriptor


def digest_of(*parts: bytes) -> str:
    """The SHA-256 of the parts together, in hexadecimal: a file's name."""
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _try_lock(folder: Path) -> int | None:
    """The descriptor of a lock on a staging folder; closing it releases the lock.

    None if a living process holds the lock, or the folder does not exist.
    """
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
