"""Connections: short transactions, write locks taken at their start, durable commits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session

from lumbar.errors import Transient, WrongSetting


class DatabaseUnavailable(Transient):
    """The database does not answer, or has aborted this transaction."""


class Conflict(Transient):
    """Another transaction wrote the same key at the same moment; a new one will see its row."""


# A lost server is noticed in seconds, and no statement blocks a receiver's thread for ever.
_POSTGRESQL: dict[str, Any] = {
    "pool_size": 10,
    "max_overflow": 40,
    "pool_timeout": 10,
    # Plan each statement for its values: a generic plan searches a common word as if it were rare.
    "connect_args": {
        "connect_timeout": 10,
        "tcp_user_timeout": 20_000,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "options": "-c statement_timeout=60s -c lock_timeout=30s "
        "-c plan_cache_mode=force_custom_plan",
    },
}


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
                engine = create_engine(parsed, hide_parameters=True, connect_args={"timeout": 30})
                event.listen(engine, "connect", _prepare_sqlite)
                event.listen(engine, "begin", _begin_sqlite)
            else:
                engine = create_engine(
                    parsed, hide_parameters=True, pool_pre_ping=True, **_POSTGRESQL
                )
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise WrongSetting(
                "LUMBAR_DATABASE_URL is not a database URL; "
                "use postgresql+psycopg://user@host/name or sqlite:///file"
            ) from error
        return cls(engine)

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
            raise DatabaseUnavailable(f"the database does not answer ({_kind(error)})") from error

    def close(self) -> None:
        self.engine.dispose()


def insert_if_new(
    session: Session, table: type[DeclarativeBase], key: tuple[str, ...], **values: Any
) -> bool:
    """Adds a row unless its (unique) key exists already; returns whether it was added."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    insert = dialect.insert(table.__table__).values(**values)
    return (
        session.execute(
            insert.on_conflict_do_nothing(index_elements=key).returning(table.__table__.c.id)
        ).first()
        is not None
    )


def _kind(error: Exception) -> str:
    """The driver's name for the error; not its text, which may contain values."""
    return type(getattr(error, "orig", None) or error).__name__


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # ``_begin_sqlite`` issues BEGIN
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that begins by reading may be unable to wait for the write lock later.
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
