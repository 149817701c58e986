"""Durable bytes: a file is either wholly there, under the hash of what it holds, or not there at all."""

import errno
import os
from dataclasses import dataclass
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

    def put(self, kind: str, digest: str, content: bytes) -> str:
        """Writes ``content`` durably under ``digest`` (hexadecimal) and returns its path relative to the root.

        Temp file → fsync → rename → fsync directory: after the return no power cut can take it away. A file that
        is there already is left as it is.

        Raises:
            StoreFull: the disk refuses; nothing is left behind under the final name.
        """
        path = self.root / kind / digest[:2] / f"{digest}.dcm"
        relative = path.relative_to(self.root).as_posix()
        if path.exists():
            return relative
        temporary = path.with_name(f".{uuid4().hex}.part")
        try:
            self._make_folder(path.parent)
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _fsync_folder(path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StoreFull(f"cannot write to {self.root}: {os.strerror(error.errno or errno.EIO)}") from error
        return relative

    def path(self, relative: str) -> Path:
        """Where a stored file lies."""
        return self.root / relative

    def _make_folder(self, folder: Path) -> None:
        """Creates a folder whose own entry survives a power cut, parents first."""
        if folder.is_dir():
            return
        if folder != self.root:
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
        else:
            folder.mkdir(parents=True, exist_ok=True)
        _fsync_folder(folder.parent)


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
