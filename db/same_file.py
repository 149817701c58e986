"""Whether the file of a SQLite database is still the one that this process found first.

A disk that is mounted over the home of a running system hides the files that it has open: what it
stores would lie beside the database in which it is registered.
"""

from pathlib import Path
from threading import Lock

from lumbar.log import get_logger
from lumbar.throttle import Throttle

log = get_logger()

LOGGED_EVERY_S = 60.0


class SameFile:
    """Compares the file's device and inode; a file that was never there is not compared."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._logged = Throttle(LOGGED_EVERY_S, 1)
        self._first = self._identity()

    def change(self) -> str | None:
        """What has happened to the file and what to do; None: nothing has. Also logged."""
        found = self._identity()
        with self._lock:
            self._first = self._first or found
        if found == self._first:
            return None
        why = (
            f"{self._path} is not the file that was opened at the start "
            f"({_named(self._first)}, now {_named(found)}): a disk was mounted or unmounted, or "
            "the file replaced; make sure that the right disk is there, and restart"
        )
        if self._logged.claim(why):
            log.error("database.replaced", why=why)
        return why

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _named(identity: tuple[int, int] | None) -> str:
    return f"device {identity[0]}, inode {identity[1]}" if identity else "none"
