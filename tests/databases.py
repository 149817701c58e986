"""Databases at the newest schema, as copies of a template that is migrated once per process."""

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from sqlalchemy import Dialect, Engine, create_engine

from db import database as databases
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


@contextmanager
def statements_compiled_once() -> Iterator[None]:
    """Engines share their compiled statements: a program has one engine, the tests thousands."""
    with patch.object(databases, "create_engine", _create_sharing({}, {})):
        yield


def _create_sharing(
    dialects: dict[str, Dialect], statements: MutableMapping[Any, Any]
) -> Callable[..., Engine]:
    """Creates engines of one dialect per kind, as a statement is compiled for a dialect."""

    def create(*arguments: Any, **options: Any) -> Engine:
        engine = create_engine(*arguments, **options)
        dialect = dialects.get(engine.name, engine.dialect)
        if dialect.server_version_info is None:  # none of its connections has initialised it
            dialects[engine.name] = engine.dialect
            return engine
        # Its own one still connects, and must know the events of the one that is shared.
        engine.dialect.__dict__ |= {"dispatch": dialect.dispatch, "_has_events": True}
        engine.dialect = dialect
        return engine.execution_options(compiled_cache=statements)

    return create
