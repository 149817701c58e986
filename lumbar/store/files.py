"""Durable bytes: a file is either wholly there, under the hash of what it holds, or not there at all."""

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

INCOMING = "incoming"  # holds a folder for each process that writes, and in it files that are not whole yet


class StoreFull(Transient):
    """The disk is full or cannot be written."""


class StagingFile:
    """A file being written; it counts only once it is kept."""

    def __init__(self, store: "Store", path: Path, file: IO[bytes]) -> None:
        self._store = store
        self.path = path
        self.file = file

    def keep(self, kind: str, digest: str) -> str:
        """Makes it durable under ``digest`` (hexadecimal) and returns its path relative to the store's root.

        fsync → rename → fsync folder: after the return no power cut can take it away. A file that is there already
        is left as it is, and made as durable.
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

    Every process writes in a folder of its own under ``incoming`` and holds a lock on it as long as it lives, so that
    what a killed one has left behind can be told from what another is writing.
    """

    root: Path
    _durable: set[Path] = field(
        default_factory=set, compare=False, repr=False
    )  # folders this process has fsynced
    _own: list[tuple[Path, int]] = field(
        default_factory=list, compare=False, repr=False
    )  # its folder and lock
    _first: Lock = field(default_factory=Lock, compare=False, repr=False)

    @contextmanager
    def staging_file(self) -> Iterator[StagingFile]:
        """A new file to write; unless it is kept within the block, nothing of it stays.

        Raises:
            StoreFull: the disk refuses, in the block too.
        """
        path: Path | None = None
        try:
            path = self.own_folder() / f"{uuid4().hex}.part"
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
        """Writes ``content`` durably under ``digest`` and returns its path relative to the root. Raises StoreFull."""
        with self.staging_file() as staging:
            staging.file.write(content)
            return staging.keep(kind, digest)

    def path(self, relative: str) -> Path:
        """Where a stored file lies."""
        return self.root / relative

    def remove(self, relative: str) -> None:
        """Removes a stored file, if it is there."""
        with suppress(OSError):
            self.path(relative).unlink(missing_ok=True)

    def files(self, folder: str) -> set[str]:
        """The stored files in one folder (``<kind>/<two digits>``), relative to the root."""
        try:
            return {
                f"{folder}/{entry.name}"
                for entry in os.scandir(self.root / folder)
                if entry.is_file()
            }
        except FileNotFoundError:
            return set()

    def fill(self) -> float:
        """How full the store's disk is, 0–1, as its users see it (without the reserve of root)."""
        try:
            self.make_folder(self.root)
            usage = os.statvfs(self.root)
        except OSError as error:
            raise StoreFull(
                f"cannot look at {self.root}: {os.strerror(error.errno or errno.EIO)}"
            ) from error
        used = usage.f_blocks - usage.f_bfree
        return used / (used + usage.f_bavail) if used + usage.f_bavail else 1.0

    def require_room(self, max_fill: float) -> None:
        """Checks that the disk has room before it is full: what is accepted must still be written.

        ``max_fill`` is the fill, 0-1, above which nothing new is accepted.

        Raises:
            StoreFull: the disk is fuller than that, or cannot be read.
        """
        if (fill := self.fill()) > max_fill:
            raise StoreFull(
                f"the disk is {fill:.0%} full; above {max_fill:.0%} nothing new is accepted "
                "(LUMBAR_DISK_REFUSE_ABOVE)"
            )

    def own_folder(self) -> Path:
        """This process's folder for files that are not whole yet; made and locked at the first call."""
        with self._first:
            if (
                not self._own or not self._own[-1][0].exists()
            ):  # somebody may have cleaned up by hand
                self._own.append(self._new_folder())
            return self._own[-1][0]

    def remove_abandoned(self) -> int:
        """Removes the folders of writers that are gone, and returns how many files were in them."""
        removed = 0
        for folder in (self.root / INCOMING).glob("*"):
            with suppress(OSError):
                descriptor = _locked(folder)
                if descriptor is None:
                    continue
                removed += sum(1 for _ in folder.glob("*.part"))
                shutil.rmtree(folder)
                os.close(descriptor)
        return removed

    def make_folder(self, folder: Path) -> None:
        """Creates a folder whose own entry survives a power cut, parents first."""
        if folder in self._durable:
            return
        if folder == self.root:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            self.make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
        _fsync_folder(folder.parent)
        self._durable.add(folder)

    def _new_folder(self) -> tuple[Path, int]:
        self.make_folder(self.root / INCOMING)
        while True:
            folder = self.root / INCOMING / uuid4().hex
            folder.mkdir()
            descriptor = _locked(folder)
            if (
                descriptor is not None and folder.exists()
            ):  # else somebody took it for abandoned before the lock
                return folder, descriptor


def digest_of(*parts: bytes) -> str:
    """The sha256, in hexadecimal, that names a file."""
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _locked(folder: Path) -> int | None:
    """A lock on a writer's folder, held until the descriptor is closed; None while its writer lives, or without one."""
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
