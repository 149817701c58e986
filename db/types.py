"""Column types and SQL that work alike on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import DateTime, Dialect, Float, TypeDecorator, bindparam, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, always UTC; SQLite stores it without the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class db_now(FunctionElement[datetime]):  # noqa: N801 - reads as SQL
    """The database's clock plus an offset in seconds.

    Hosts' clocks may be hours apart, and leases must not depend on them. It may be turned, too:
    ``db.operating_time`` counts the ages by which something is removed.
    """

    type = UtcDateTime()
    inherit_cache = True
    turned_s: ClassVar[float] = 0  # by which tests turn the clock, seconds

    def __init__(self, offset_s: float = 0) -> None:
        def seconds() -> float:  # read when a statement is executed
            return offset_s + db_now.turned_s

        super().__init__(bindparam(None, callable_=seconds, type_=Float(), unique=True))


def read_clock(session: Session) -> datetime:
    """The database's clock, for a condition that an index serves.

    PostgreSQL does not use an index for a value that may change within the statement.
    """
    return session.scalars(select(db_now())).one()


@compiles(db_now, "postgresql")
def _postgresql_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(clock_timestamp() + {compiler.process(element.clauses, **kw)} * interval '1 second')"


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    # %f is SS.SSS; three more digits make it comparable with how SQLAlchemy writes a datetime
    offset = compiler.process(element.clauses, **kw)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', printf('%+f seconds', {offset})) || '000')"
