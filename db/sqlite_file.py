"""The file of a SQLite database, on a disk that may be full, read-only, failing or away for now."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EACCES, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOTDIR, EPERM
from pathlib import Path
from typing import Self

from db.database import Database, DatabaseUnavailable
from lumbar.errors import WrongSetting
from lumbar.store.folders import FILE_MODE, make_private_folder

# What will not pass by itself, as everything else of a disk may
WRONG_PLACE = (EACCES, EPERM, ENOTDIR, EISDIR, ELOOP, ENAMETOOLONG, EINVAL)


@dataclass(frozen=True)
class SqliteFile:
    """The database's file, which may not be there.

    Every method raises DatabaseUnavailable where its disk refuses for now, and WrongSetting where
    no file can be.
    """

    path: Path

    @classmethod
    def of(cls, database: Database) -> Self | None:
        """None: it is not a SQLite database in a file."""
        url = database.engine.url
        sqlite = url.get_backend_name() == "sqlite"
        return cls(Path(url.database)) if sqlite and url.database else None

    def exists(self) -> bool:
        """Whether it is there."""
        with self._errors_named("read"):
            try:
                self.path.stat()
            except FileNotFoundError:
                return False
        return True

    def make(self) -> None:
        """Makes it and its folder for their owner alone, as SQLite then makes its other files."""
        with self._errors_named("made"):
            make_private_folder(self.path.parent)
            self.path.touch(FILE_MODE)

    @contextmanager
    def _errors_named(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = f"{self.path} cannot be {done} ({error.strerror})"
            if error.errno in WRONG_PLACE:
                raise WrongSetting(f"LUMBAR_HOME: {reason}") from error
            raise DatabaseUnavailable(
                f"the database {reason}: is its disk mounted, writable, and has it room?"
            ) from error
