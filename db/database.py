"""Connections: short transactions, write locks taken at their start, durable commits."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NoSuchModuleError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session

from db.faults import error_code, kind_of, meaning
from db.same_file import SameFile
from lumbar.errors import Transient, WrongSetting


class DatabaseUnavailable(Transient):
    """The database does not answer, or has aborted this transaction."""


class DatabaseDiskFull(DatabaseUnavailable):
    """The database answers, and cannot write."""


class Conflict(Transient):
    """Another transaction wrote the same key at the same moment; a new one will see its row."""


# A lost server is noticed in seconds, and a session that became read-only is left for another.
_POSTGRESQL: dict[str, Any] = {
    "pool_size": 10,
    "max_overflow": 40,
    "pool_timeout": 10,
    "pool_recycle": 600,
    "pool_pre_ping": True,
    "connect_args": {
        "connect_timeout": 10,
        "tcp_user_timeout": 20_000,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "target_session_attrs": "read-write",
        # Statements are planned for their values: a plan for any values searches a common word as
        # if it were rare. A prepared statement would also be lost with PgBouncer's session.
        "prepare_threshold": None,
    },
}

# A role, a database or the environment may say otherwise, and names would not be readable.
_ENCODING = {"client_encoding": "utf8"}

# No statement blocks a receiver's thread for ever. Set in each transaction, not for the session:
# behind PgBouncer, the next transaction may be in another one, and this one is somebody else's.
_LIMITS = "SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '30s'"

# After these a session is of no more use: the classes are connection exceptions, and an operator's
# or crash's shutdown; the states are of a server that became a standby, and of a transaction that
# is broken though we have begun another.
_LOST_CLASSES = ("08", "57P")
_LOST_STATES = ("25006", "25P02", "55000")

_DISK_FULL_STATE = "53100"

# A database that is being restored or handed over lacks tables or permissions for a while.
_CHANGING_STATES = ("0A000", "3F000", "42501", "42P01")


@dataclass(frozen=True)
class Database:
    """One engine per process. ``file``: of SQLite, which must stay the same one."""

    engine: Engine
    file: SameFile | None = None

    @classmethod
    def connect(cls, url: str) -> "Database":
        """Prepares connections; none is opened yet.

        Raises:
            WrongSetting: the URL is not one SQLAlchemy understands.
        """
        file = None
        try:
            parsed = make_url(url)
            if parsed.get_backend_name() == "sqlite":
                engine = create_engine(parsed, hide_parameters=True, connect_args={"timeout": 30})
                file = SameFile(Path(parsed.database)) if parsed.database else None
                event.listen(engine, "connect", _prepare_sqlite)
                event.listen(engine, "begin", _begin_sqlite)
            else:
                engine = create_engine(parsed, hide_parameters=True, **_postgresql(parsed))
                event.listen(engine, "do_connect", _connect_postgresql)
                event.listen(engine, "begin", _begin_postgresql)
                event.listen(engine, "handle_error", _drop_lost_session)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
            raise WrongSetting(
                "LUMBAR_DATABASE_URL is not a database URL; "
                "use postgresql+psycopg://user@host/name or sqlite:///file (of several servers: "
                "postgresql+psycopg://user@/name?host=a:5432&host=b:5432)"
            ) from error
        database = cls(engine, file)
        if file:
            # A session with another file is not left in the pool, and none begins a transaction.
            for moment in ("connect", "begin"):
                event.listen(engine, moment, lambda *_: database.require_same_file(), insert=True)
        return database

    def require_same_file(self) -> None:
        """Checks that SQLite's file is still the one that this process found first.

        Raises:
            DatabaseUnavailable: another one is in its place, or none.
        """
        if self.file and (change := self.file.change()):
            raise DatabaseUnavailable(change)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A transaction that writes: committed at the end of the block, rolled back on an error.

        Raises:
            DatabaseUnavailable: connection lost, disk full, lock or statement time-out. Nothing was
                written, except perhaps if the connection was lost during the commit itself.
            Conflict: another transaction wrote the same unique key meanwhile.
        """
        yield from self._session(self.engine)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads; on SQLite it waits for no writer."""
        yield from self._session(self.engine.execution_options(reads_only=True))

    def _session(self, engine: Engine) -> Iterator[Session]:
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                yield session
        except IntegrityError as error:
            raise Conflict("the database has another row under the same key") from error
        except (OperationalError, InterfaceError, InternalError, PoolTimeout) as error:
            if _is_disk_full(engine, error):
                raise DatabaseDiskFull(
                    "the database cannot be written, as its disk is full: make room on it"
                ) from error
            reason = meaning(getattr(error, "orig", None))
            what = f"the database: {reason}" if reason else "the database does not answer"
            raise DatabaseUnavailable(f"{what} ({kind_of(error)})") from error
        except (ProgrammingError, NotSupportedError) as error:
            if error_code(error.orig) not in _CHANGING_STATES:
                raise
            raise DatabaseUnavailable(
                f"the database is not as this version needs it ({kind_of(error)}): "
                "run `lumbar db upgrade`, unless it is being restored"
            ) from error

    def close(self) -> None:
        self.engine.dispose()


def log_committed(session: Session, log: Callable[..., Any], name: str, **fields: Any) -> None:
    """Logs an event once the transaction is committed; not at all if it is rolled back."""
    event.listen(session, "after_commit", lambda _: log(name, **fields), once=True)


def insert_if_new(
    session: Session, table: type[DeclarativeBase], key: tuple[str, ...], **values: Any
) -> bool:
    """Adds a row unless its (unique) key exists already; returns whether it was added."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    insert = dialect.insert(table.__table__).values(**values)
    return (
        session.execute(
            insert.on_conflict_do_nothing(index_elements=key).returning(
                *table.__table__.primary_key
            )
        ).first()
        is not None
    )


def _is_disk_full(engine: Engine, error: Exception) -> bool:
    cause = getattr(error, "orig", None)
    if error_code(cause) == _DISK_FULL_STATE:
        return True
    code = getattr(cause, "sqlite_errorcode", None)
    if code is None:
        return False
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return True
    # Beside the database there are files that SQLite makes anew.
    if code & 0xFF not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return False
    try:
        return os.statvfs(Path(engine.url.database or "").parent).f_bavail == 0
    except OSError:
        return False


def _postgresql(url: URL) -> dict[str, Any]:
    """The options of an engine; what the URL says about a connection counts, its encoding not."""
    connect = {
        name: value for name, value in _POSTGRESQL["connect_args"].items() if name not in url.query
    }
    return _POSTGRESQL | {"connect_args": connect | _ENCODING}


def _connect_postgresql(
    dialect: Dialect, _: Any, arguments: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Connects.

    Raises:
        DatabaseUnavailable: with what the server or the network said, which names neither values
            nor the password: a wrong user, password, database or host is named. Or the database
            cannot hold every name.
    """
    try:
        connection = dialect.connect(*arguments, **options)
    except dialect.loaded_dbapi.OperationalError as error:
        raise DatabaseUnavailable(
            f"cannot connect to the database: {_reason(error, str(options.get('password') or ''))};"
            " is it running, and is LUMBAR_DATABASE_URL right?"
        ) from error
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        name = connection.info.dbname
        connection.close()
        raise DatabaseUnavailable(
            f"the database {name} has the encoding {encoding}, which cannot hold every patient's "
            "name: create one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name "
            "it in LUMBAR_DATABASE_URL"
        )
    return connection


def _reason(error: Exception, password: str) -> str:
    """The last line of a failed connection's error, which is the last attempt's; no hints."""
    lines = [line for line in str(error).splitlines() if line.strip() and line[0] != "\t"]
    reason = lines[-1].removeprefix("- ") if lines else type(error).__name__
    return reason.replace(password, "***") if password else reason


def _begin_postgresql(connection: Connection) -> None:
    connection.exec_driver_sql(_LIMITS)


def _drop_lost_session(context: ExceptionContext) -> None:
    """Lets the pool drop its sessions after an error that no later transaction would outlive."""
    state = error_code(context.original_exception)
    if state.startswith(_LOST_CLASSES) or state in _LOST_STATES:
        context.is_disconnect = True


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # ``_begin_sqlite`` issues BEGIN
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=30000",
        "temp_store=MEMORY",  # what is sorted are patients' data: not in the system's folder
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that begins by reading may be unable to wait for the write lock later.
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
