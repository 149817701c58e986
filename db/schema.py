"""The schema's version: bringing a database to the newest one, and refusing to run on another."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

import migrations
from db.database import Database, DatabaseUnavailable
from db.models import Table
from lumbar.errors import Permanent, WrongSetting


def upgrade(database: Database) -> str:
    """Brings the database to the newest schema; returns its revision.

    Raises:
        DatabaseUnavailable: it cannot be reached.
        WrongSetting: its folder cannot be made.
    """
    folder = database.engine.url.database if database.engine.dialect.name == "sqlite" else None
    if folder:
        try:
            Path(folder).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WrongSetting(
                f"LUMBAR_HOME: cannot make {Path(folder).parent} ({error.strerror})"
            ) from error
    config = _config()
    with _connection(database) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    return newest()


def newest() -> str:
    """The revision this code is written for."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def check(database: Database) -> None:
    """Refuses a database of another schema.

    Raises:
        Permanent: the message names both revisions.
        DatabaseUnavailable: it cannot be reached.
    """
    file = database.engine.url.database if database.engine.dialect.name == "sqlite" else None
    current = None
    if file is None or Path(file).exists():
        with _connection(database) as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    if current != newest():
        raise Permanent(
            f"the database's schema is {current or 'empty'}, this version needs {newest()}: "
            "run `lumbar db upgrade`"
        )


def differences(database: Database) -> list[object]:
    """How the migrations' result differs from the tables; anything means a missing migration."""
    with database.engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), Table.metadata))


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


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(str(migrations.__file__)).parent))
    return config
