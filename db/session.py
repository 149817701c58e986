"""Connections: short transactions, write locks taken at once, durable commits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from lumbar.errors import Transient, WrongSetting


class DatabaseAway(Transient):
    """The database does not answer, or gave up on this transaction."""


@dataclass(frozen=True)
class Database:
    """One engine per process."""

    engine: Engine

    @classmethod
    def connect(cls, url: str) -> "Database":
        """Prepares connections; none is opened yet.

        Raises:
            WrongSetting: the URL is not one SQLAlchemy understands.
        """
        try:
            parsed = make_url(url)
            if parsed.get_backend_name() == "sqlite":
                engine = create_engine(parsed, connect_args={"timeout": 30})
                event.listen(engine, "connect", _prepare_sqlite)
                event.listen(engine, "begin", _begin_sqlite)
            else:
                engine = create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 10})
        except (ArgumentError, NoSuchModuleError) as error:
            raise WrongSetting(
                "LUMBAR_DATABASE_URL is not a database URL; use postgresql+psycopg://user@host/name or sqlite:///file"
            ) from error
        return cls(engine)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A transaction that writes: committed at the end of the block, rolled back on an error.

        Raises:
            DatabaseAway: connection lost, lock or statement time-out. Nothing was written.
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
        except DBAPIError as error:
            if error.connection_invalidated or _may_pass(error):
                raise DatabaseAway(f"the database does not answer ({type(error.orig).__name__})") from error
            raise

    def close(self) -> None:
        self.engine.dispose()


def _may_pass(error: DBAPIError) -> bool:
    """OperationalError is what drivers raise when the server, disk or lock is the trouble, not the statement."""
    return type(error.orig).__name__ in {
        "OperationalError",
        "AdminShutdown",
        "CannotConnectNow",
        "ConnectionTimeout",
        "CrashShutdown",
        "DeadlockDetected",
        "LockNotAvailable",
        "SerializationFailure",
    }


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer that starts as a reader can find the lock taken when it is too late to wait for it.
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
