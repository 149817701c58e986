"""Durable files: each is either complete, under the hash of its content, or absent."""

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path
from threading import Lock
from typing import Self
from uuid import uuid4

from lumbar.closing import Closing
from lumbar.errors import Transient
from lumbar.store import sizes
from lumbar.store.folders import FILE_MODE, fsync_folder, make_folder
from lumbar.store.shares import Share

INSTANCES, QUARANTINED = "instances", "quarantined"  # received files: in use; not registered
REPORTS = "reports"  # that were built
MARKER = "lumbar-store"  # a file of every store: where it is missing, the store is not mounted


class StoreFull(Transient):
    """The disk is full, cannot be written, or is not mounted."""


@contextmanager
def raising_store_full(root: Path) -> Iterator[None]:
    """Converts an error of the disk.

    Raises:
        StoreFull: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise StoreFull(f"cannot write to {root}: {reason}") from error


class StagingFile(Closing):
    """A file being written; a context manager that removes it unless it was committed.

    Every method raises StoreFull where the disk refuses.
    """

    def __init__(self, store: "Store") -> None:
        self._store = store
        with raising_store_full(store.root):
            store.require_mounted()
            self.share = store.share()
            self.path = self.share.folder / f"{uuid4().hex}.part"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor: int | None = os.open(self.path, flags, FILE_MODE)

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """Appends the whole content."""
        with raising_store_full(self._store.root):
            remaining = memoryview(content)
            while remaining:
                remaining = remaining[os.write(self._open, remaining) :]

    def read(self, count: int, offset: int) -> bytes:
        """Up to ``count`` bytes of what was written."""
        with raising_store_full(self._store.root):
            return os.pread(self._open, count, offset)

    def commit(self, kind: str, digest: str) -> str:
        """Makes it durable under ``digest`` (hexadecimal) and returns its path below the root.

        fsync → rename → fsync folder: once this returns, the file survives a power cut. An existing
        file of that name is left unchanged and made just as durable.
        """
        file = file_name(kind, digest)
        path = self._store.path(file)
        with raising_store_full(self._store.root):
            self._store.make_folder(path.parent)
            if not path.exists():
                os.fsync(self._open)
                self.path.replace(path)
            fsync_folder(path.parent)
        return file

    def arrive(self, name: str) -> Path:
        """Makes it durable as an arrived file of that name in this process's share."""
        path = self.share.folder / name
        with raising_store_full(self._store.root):
            os.fsync(self._open)
            self.path.rename(path)
            self.share.fsync()
        return path

    def close(self) -> None:
        """Closes it, and removes it unless it was committed."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with suppress(OSError):
                os.close(descriptor)
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    @property
    def _open(self) -> int:
        assert self._descriptor is not None, "discarded"  # noqa: S101 - a fault of ours
        return self._descriptor


@dataclass(frozen=True)
class Store:
    """A folder of files named by hash: ``<kind>/<first two digits>/<hash>.dcm``.

    Files that arrive, and staging files, lie under ``arrived`` (``lumbar.store.shares``).
    """

    root: Path
    # The folders this process has made durable.
    _durable: set[Path] = field(default_factory=set, compare=False, repr=False)
    # This process's shares; the last is the current one.
    _shares: list[Share] = field(default_factory=list, compare=False, repr=False)
    _lock: Lock = field(default_factory=Lock, compare=False, repr=False)

    def put(self, kind: str, digest: str, content: bytes) -> str:
        """Writes ``content`` durably under ``digest`` and returns its path below the root.

        Raises:
            StoreFull: the disk cannot be written.
        """
        with StagingFile(self) as staging:
            staging.write(content)
            return staging.commit(kind, digest)

    def link(self, source: Path, kind: str, digest: str) -> str:
        """Gives a file of this file system its name in the store; returns the path below the root.

        A file already there is replaced. The name is durable only after ``sync``.

        Raises:
            OSError: the disk refuses.
        """
        file = file_name(kind, digest)
        path = self.path(file)
        self.make_folder(path.parent)
        try:
            os.link(source, path)
        except FileExistsError:
            new = source.with_suffix(".part")  # in a share, where leftovers are removed
            new.unlink(missing_ok=True)
            os.link(source, new)
            new.replace(path)
        return file

    def sync(self, files: set[str]) -> None:
        """Makes the names of these files, or that they are removed, survive a power cut."""
        for folder in {self.path(file).parent for file in files}:
            fsync_folder(folder)

    def path(self, relative: str) -> Path:
        """The full path of a stored file."""
        return self.root / relative

    def is_intact(self, relative: str, digest: str) -> bool:
        """Whether the file is there with that SHA-256.

        Raises:
            StoreFull: it cannot be read, or its kind's folder is empty: the disk is not mounted.
        """
        try:
            with self.path(relative).open("rb") as file:
                return file_digest(file, "sha256").hexdigest() == digest
        except FileNotFoundError:
            self.require_kind(Path(relative).parts[0])
            return False
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            raise StoreFull(f"cannot read from {self.root}: {reason}") from error

    def remove(self, relative: str) -> None:
        """Removes a stored file, if it exists.

        Raises:
            StoreFull: the disk refuses, or is not mounted: the file may be there still.
        """
        try:
            self.path(relative).unlink()
        except FileNotFoundError:
            self.require_mounted()
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            raise StoreFull(f"cannot remove files from {self.root}: {reason}") from error

    def files(self, folder: str) -> set[str]:
        """The paths below the root of the files in a folder (``<kind>/<two digits>``).

        Raises:
            StoreFull: the folder cannot be read.
        """
        try:
            return {
                f"{folder}/{entry.name}"
                for entry in os.scandir(self.root / folder)
                if entry.is_file() and entry.name.endswith(".dcm")
            }
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            raise StoreFull(f"cannot read from {self.root}: {reason}") from error

    def used_and_free(self) -> tuple[int, int]:
        """Bytes of the store's disk, not counting the blocks reserved for root.

        Raises:
            StoreFull: the store is not mounted, or its usage cannot be read.
        """
        self.require_mounted()
        try:
            return sizes.used_and_free(self.root)
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            raise StoreFull(f"cannot read the disk usage of {self.root}: {reason}") from error

    def fill_ratio(self) -> float:
        """Usage of the store's disk, 0–1.

        Raises:
            StoreFull: the store is not mounted, or its usage cannot be read.
        """
        used, free = self.used_and_free()
        return used / (used + free) if used + free else 1.0

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

    def create(self) -> Self:
        """Makes the folder a store, and returns it; nothing changes if it is one.

        Raises:
            StoreFull: the disk cannot be written.
        """
        with raising_store_full(self.root):
            make_folder(self.root, self.root, set())
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            os.close(os.open(self.root / MARKER, flags, FILE_MODE))
            fsync_folder(self.root)
        return self

    def holds_files(self) -> bool:
        """Whether instances lie there, as in a store of a version that did not mark it."""
        return (self.root / INSTANCES).is_dir()

    @property
    def mounted(self) -> bool:
        """Whether the folder is a store; else the disk that holds it is not mounted."""
        return (self.root / MARKER).exists()

    def require_mounted(self) -> None:
        """Checks that files are not written beside the store.

        Raises:
            StoreFull: the store is not mounted.
        """
        if not self.mounted:
            raise StoreFull(
                f"{self.root} is not the store, as it holds no file {MARKER}: mount the disk that "
                "holds it"
            )

    def require_kind(self, kind: str) -> None:
        """Checks that files of a kind that is known to have some are not missing with their disk.

        Raises:
            StoreFull: its folder is empty.
        """
        folder = self.path(kind)
        if not folder.is_dir() or not any(folder.iterdir()):
            raise StoreFull(f"{folder} is empty: mount the disk that holds it")

    def share(self) -> Share:
        """This process's folder for arriving files, created and locked on the first call."""
        with self._lock:
            # Created again if it was removed, or the disk was mounted anew.
            if not self._shares or not self._shares[-1].exists():
                self._durable.clear()
                arrived = self.root / Share.PARENT
                self.make_folder(arrived)
                self._shares.append(Share.create(arrived))
            return self._shares[-1]

    def close(self) -> None:
        """Gives this process's shares up; a process that ends does so anyway."""
        with self._lock:
            for share in self._shares:
                share.close()
            self._shares.clear()

    def shares(self) -> list[Share]:
        """The shares of all processes, dead ones included."""
        return Share.all(self.root / Share.PARENT)

    def unregistered(self) -> int:
        """How many images have arrived that are not registered."""
        return sum(share.count() for share in self.shares())

    def quarantined(self) -> int:
        """How many files could not be registered."""
        return len(self.files(QUARANTINED))

    def retry_quarantined(self, names: Collection[str] | None = None) -> int:
        """Puts what could not be registered among the arrived files again; returns how many.

        ``names``: only these files.

        Raises:
            StoreFull: the disk refuses.
        """
        files = self.files(QUARANTINED)
        if names is not None:
            files &= {f"{QUARANTINED}/{name}" for name in names}
        with raising_store_full(self.root):
            share = self.share()
            for file in files:
                self.path(file).rename(share.folder / Path(file).name)
            share.fsync()
        return len(files)

    def remove_quarantined(self, study_instance_uid: str) -> None:
        """Removes what could not be registered of a study.

        Raises:
            StoreFull: the disk refuses.
        """
        for file in self.files(QUARANTINED):
            if Path(file).name.startswith(f"{study_instance_uid}_"):
                self.remove(file)

    def sync_shares(self) -> None:
        """Makes it survive a power cut that registered files have left their shares."""
        for share in self.shares():
            with suppress(FileNotFoundError, PermissionError):
                fsync_folder(share.folder)

    def arriving(self) -> set[str]:
        """The UIDs of the studies of which images have arrived that are not registered."""
        return {file.study_instance_uid for share in self.shares() for file in share.arrived()}

    def make_folder(self, folder: Path) -> None:
        """Creates a folder so that it survives a power cut, its parents first."""
        if folder in self._durable and folder.exists():
            return
        make_folder(folder, self.root, self._durable)


def file_name(kind: str, digest: str) -> str:
    """Where a file of this kind and digest lies, below the root."""
    return f"{kind}/{digest[:2]}/{digest}.dcm"


def digest_of(*parts: bytes) -> str:
    """The SHA-256 of the parts together, in hexadecimal: a file's name."""
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
