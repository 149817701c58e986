"""The schema's revision: upgrades a database to the newest one, and refuses to run on another."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

import migrations
from db.database import Database, DatabaseUnavailable
from db.models import Table
from lumbar.errors import Permanent, WrongSetting
from lumbar.store.folders import FILE_MODE, make_private_folder

if TYPE_CHECKING:
    from alembic.config import Config

# Finds a migration's revisions without Alembic, because every command checks the schema. Alembic is
# slow to import; only what changes or compares the schema does so.
REVISION = re.compile(r'^(down_revision|revision)\b.*= "(\w+)"', re.MULTILINE)


def upgrade(database: Database) -> str:
    """Brings the database to the newest schema; returns its revision.

    Raises:
        DatabaseUnavailable: it cannot be reached.
        WrongSetting: its folder cannot be made.
    """
    file = database.engine.url.database if database.engine.dialect.name == "sqlite" else None
    if file:
        try:
            make_private_folder(Path(file).parent)
            Path(file).touch(FILE_MODE)  # SQLite gives its other files the same mode
        except OSError as error:
            raise WrongSetting(f"LUMBAR_HOME: cannot make {file} ({error.strerror})") from error
    head = newest()
    with _connection(database) as connection:
        current = _current(connection)
    if current != head:
        _migrate(database)
    return head


def _migrate(database: Database) -> None:
    from alembic import command

    config = _config()
    with _connection(database) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def newest() -> str:
    """The revision this code is written for: the one migration that no other follows."""
    written: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for file in (_migrations() / "versions").glob("*.py"):
        for kind, revision in REVISION.findall(file.read_text(encoding="utf-8")):
            written[kind].add(revision)
    (head,) = written["revision"] - written["down_revision"]
    return head


def check(database: Database) -> None:
    """Refuses a database of another schema.

    Raises:
        Permanent: the schema has another revision; the message names both.
        DatabaseUnavailable: it cannot be reached.
    """
    file = database.engine.url.database if database.engine.dialect.name == "sqlite" else None
    current = None
    if file is None or Path(file).exists():
        with _connection(database) as connection:
            current = _current(connection)
    if current != newest():
        raise Permanent(
            f"the database's schema is {current or 'empty'}, this version needs {newest()}: "
            "run `lumbar db upgrade`"
        )


def differences(database: Database) -> list[object]:
    """How the migrated schema differs from the tables; any difference is a missing migration."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), Table.metadata))


def _current(connection: Connection) -> str | None:
    """The revision the database is at; None if it has none yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


@contextmanager
def _connection(database: Database) -> Iterator[Connection]:
    try:
        with database.engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        raise DatabaseUnavailable(
            f"cannot reach the database at {database.engine.url.render_as_string()} "
            f"({type(error.orig).__name__}); "
            "is it running, and is LUMBAR_DATABASE_URL right?"
        ) from error


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_migrations()))
    return config


def _migrations() -> Path:
    return Path(str(migrations.__file__)).parent
