"""Databases at the newest schema, as copies of a template that is migrated once per process."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from db import schema
from db.database import Database


def migrate(url: str) -> None:
    """Brings a database to the newest schema and closes every connection to it."""
    database = Database.connect(url)
    try:
        schema.upgrade(database)
    finally:
        database.close()


def sqlite_database(file: Path) -> str:
    """The URL of a new, empty SQLite database in ``file``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_sqlite_template())
    return f"sqlite:///{file}"


@cache
def _sqlite_template() -> bytes:
    """The file's content; with its last connection closed, no write-ahead log is beside it."""
    with TemporaryDirectory(prefix="lumbar-template-") as folder:
        file = Path(folder) / "template.sqlite"
        migrate(f"sqlite:///{file}")
        return file.read_bytes()
