"""Durable bytes: a file is either wholly there, under the hash of what it holds, or not there at all."""

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from lumbar.errors import Transient


class StoreFull(Transient):
    """The disk is full or cannot be written."""


@dataclass(frozen=True)
class Store:
    """A folder of files named by hash: ``<kind>/<first two digits>/<hash>.dcm``."""

    root: Path
    _durable: set[Path] = field(default_factory=set, compare=False, repr=False)  # folders this process has fsynced

    def put(self, kind: str, digest: str, content: bytes) -> str:
        """Writes ``content`` durably under ``digest`` (hexadecimal) and returns its path relative to the root.

        Temp file → fsync → rename → fsync folder: after the return no power cut can take it away. A file that is
        there already is left as it is, and made as durable.

        Raises:
            StoreFull: the disk refuses; nothing is left behind under the final name.
        """
        path = self.root / kind / digest[:2] / f"{digest}.dcm"
        temporary = path.with_name(f".{uuid4().hex}.part")
        try:
            self._make_folder(path.parent)
            if not path.exists():
                with temporary.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            _fsync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise StoreFull(f"cannot write to {self.root}: {os.strerror(error.errno or errno.EIO)}") from error
        return path.relative_to(self.root).as_posix()

    def path(self, relative: str) -> Path:
        """Where a stored file lies."""
        return self.root / relative

    def _make_folder(self, folder: Path) -> None:
        """Creates a folder whose own entry survives a power cut, parents first."""
        if folder in self._durable:
            return
        if folder == self.root:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
        _fsync_folder(folder.parent)
        self._durable.add(folder)


def digest_of(*parts: bytes) -> str:
    """The sha256, in hexadecimal, that names a file."""
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
