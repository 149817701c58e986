"""The schema's revision: upgrades a database to the newest one, and refuses to run on another."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

import migrations
from db.database import Database, DatabaseUnavailable
from db.faults import error_code, is_of_connection, kind_of, meaning
from db.models import Table
from db.sqlite_file import SqliteFile
from lumbar.errors import Permanent, Transient

if TYPE_CHECKING:
    from alembic.config import Config

# Finds a migration's revisions without Alembic, because every command checks the schema. Alembic is
# slow to import; only what changes or compares the schema does so.
REVISION = re.compile(r'^(down_revision|revision)\b.*= "(\w+)"', re.MULTILINE)

UPGRADE_LOCK = 0x6C756D626172  # the number of the advisory lock: "lumbar"
TURN_S = 120  # for another upgrade to end
TABLE_S = 10  # for others' transactions on a table to end
UNLIMITED = "SET LOCAL statement_timeout = 0"  # an index on a large table may take long
IN_USE = ("55P03", "SQLITE_BUSY", "SQLITE_LOCKED")  # the codes of a lock that was not got


class SchemaOutdated(Transient):
    """The database has an older schema than this code, or none: it has not been upgraded yet."""


class SchemaNewer(Permanent):
    """The database was upgraded by a later version of this program."""


class UpgradeFailed(Permanent):
    """A migration does not fit what is in this database, which is as it was before."""


def upgrade(database: Database) -> str:
    """Brings the database to the newest schema; returns its revision.

    Any number of processes may do so at once. An upgrade that is interrupted leaves the old schema.

    Raises:
        DatabaseUnavailable: it cannot be reached, or is in use so that it cannot be changed now.
        SchemaNewer: a later version has upgraded it.
        UpgradeFailed: a migration does not fit its rows.
        WrongSetting: its folder cannot be made.
    """
    file = SqliteFile.of(database)
    if file and not file.exists():
        file.make()
    if _checked(database) != newest():
        _migrate(database)
    return newest()


def _migrate(database: Database) -> None:
    """Runs the missing migrations in one transaction, which begins by waiting for its turn.

    Raises:
        DatabaseUnavailable: it cannot be reached, or is in use so that it cannot be changed now.
        UpgradeFailed: a migration does not fit its rows.
    """
    from alembic import command

    config = _config()
    with _reported(database), changing(database) as connection:
        _wait_for_turn(connection)
        current = _current(connection)
        _require_known(current)
        config.attributes["connection"] = connection
        with _failures_named(current):
            command.upgrade(config, "head")


@contextmanager
def _failures_named(current: str | None) -> Iterator[None]:
    """Tells a migration that fails from a database that does.

    Raises:
        DBAPIError: of the database.
        UpgradeFailed: the migration's.
    """
    try:
        yield
    except DBAPIError as error:
        code = error_code(error.orig)
        if is_of_connection(error) or code.startswith(IN_USE) or meaning(error.orig):
            raise
        raise UpgradeFailed(
            f"a migration from schema {current} to {newest()} failed ({kind_of(error)}); nothing "
            "was changed: run the earlier version, and report this with `lumbar version`"
        ) from error


@contextmanager
def changing(database: Database) -> Iterator[Connection]:
    """A transaction that may make tables anew; what refers to their rows is checked at its end.

    SQLite would otherwise refuse to remove a table whose rows others refer to, though a new one
    takes its place; it can be told so only before the transaction.

    Raises:
        UpgradeFailed: a row would refer to one that is not there.
    """
    with database.engine.connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            connection.detach()  # from the pool: others' references are checked as ever
            connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
        with connection.begin():
            yield connection
            if sqlite:
                _require_references(connection)


def _require_references(connection: Connection) -> None:
    """Refuses rows that refer to none; a transaction with them is not committed.

    Raises:
        UpgradeFailed: names their tables.
    """
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        tables = ", ".join(sorted({f"{table} (to {parent})" for table, _, parent, _ in broken}))
        raise UpgradeFailed(
            f"after the upgrade {len(broken)} rows would refer to rows that are not there: "
            f"{tables}; nothing was changed: restore the database from a backup"
        )


def _wait_for_turn(connection: Connection) -> None:
    """Locks out other upgrades until the transaction's end; on SQLite its beginning has.

    Session locks are of no use behind PgBouncer.

    Raises:
        DatabaseUnavailable: another upgrade has not ended within ``TURN_S``.
    """
    if connection.dialect.name != "postgresql":
        return
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{TURN_S}s'; {UNLIMITED}")
    try:
        connection.execute(select(func.pg_advisory_xact_lock(UPGRADE_LOCK)))
    except OperationalError as error:
        raise DatabaseUnavailable(
            f"another `lumbar db upgrade` has been running for {TURN_S} s; "
            "let it end, and run `lumbar db upgrade` again"
        ) from error
    # Rather fail than block the receivers while waiting for a table.
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{TABLE_S}s'")


def newest() -> str:
    """The revision this code is written for: the one migration that no other follows."""
    written = _written()
    (head,) = written["revision"] - written["down_revision"]
    return head


def _revisions() -> set[str]:
    """Every revision that a migration of this code makes."""
    return _written()["revision"]


def _written() -> dict[str, set[str]]:
    """The revisions in the migrations' files, and those that they follow."""
    written: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for file in (_migrations() / "versions").glob("*.py"):
        for kind, revision in REVISION.findall(file.read_text(encoding="utf-8")):
            written[kind].add(revision)
    return written


def check(database: Database) -> None:
    """Refuses a database of another schema; the message names both revisions.

    Raises:
        SchemaOutdated: it has an older one, or none.
        SchemaNewer: it has a later one.
        DatabaseUnavailable: it cannot be reached.
    """
    current = _checked(database)
    if current != newest():
        raise SchemaOutdated(
            f"the database's schema is {current or 'empty'}, this version needs {newest()}: "
            "run `lumbar db upgrade`"
        )


def is_empty(database: Database) -> bool:
    """Whether nobody has made any tables yet.

    Raises:
        SchemaNewer: it was made by a later version.
        DatabaseUnavailable: it cannot be reached.
    """
    return _checked(database) is None


def _checked(database: Database) -> str | None:
    """The revision the database is at, which is one of ours, or None."""
    file = SqliteFile.of(database)
    if file and not file.exists():
        return None
    with _connection(database) as connection:
        current = _current(connection)
    _require_known(current)
    return current


def _require_known(current: str | None) -> None:
    """Refuses a revision that none of our migrations makes.

    Raises:
        SchemaNewer: a later version of this program must have made it.
    """
    if current is not None and current not in _revisions():
        raise SchemaNewer(
            f"the database was upgraded by a newer version of this program (schema {current}; this "
            f"one knows up to {newest()}): install that version, or restore the database as it was "
            "before"
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
    with _reported(database), database.engine.connect() as connection:
        yield connection


@contextmanager
def _reported(database: Database) -> Iterator[None]:
    """Reports a driver's error as what it is.

    Raises:
        DatabaseUnavailable: it cannot be reached, is in use, or cannot be read or written.
    """
    try:
        yield
    except DBAPIError as error:
        if error_code(error.orig).startswith(IN_USE):
            raise DatabaseUnavailable(
                "the schema cannot be changed while others use the database (a backup, a long "
                "query, an upgrade); nothing was changed: run `lumbar db upgrade` again"
            ) from error
        url = database.engine.url.render_as_string()
        reason = meaning(error.orig) or (
            "it does not answer; is it running, and is LUMBAR_DATABASE_URL right?"
            if is_of_connection(error)
            else "it refuses this; is LUMBAR_DATABASE_URL right?"
        )
        raise DatabaseUnavailable(f"the database at {url}: {reason} ({kind_of(error)})") from error


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_migrations()))
    return config


def _migrations() -> Path:
    return Path(str(migrations.__file__)).parent
