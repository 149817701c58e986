"""Databases of every earlier schema, with rows in every table, are upgraded and lose none."""

import sqlite3
from datetime import UTC, date, datetime

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError

from db import schema
from db.database import Database, DatabaseUnavailable
from db.schema import UpgradeFailed
from tests.system import closing_database

FORGOTTEN = {"sign_in_failure"}  # its rows counted for ten minutes
REVISIONS = sorted(schema._revisions())
# What a column of states may hold, as far as its table's constraints allow it
STATES = (None, "done", "analysed", "receiving", "pending", "confirmed")
VALUES = {
    sa.Boolean: False,
    sa.DateTime: datetime(2026, 11, 1, tzinfo=UTC),
    sa.Date: date(2026, 1, 1),
    sa.Float: 0.5,
    sa.JSON: {},
    sa.LargeBinary: b"x",
}


def config(connection) -> Config:
    prepared = schema._config()
    prepared.attributes["connection"] = connection
    return prepared


def at(database: Database, revision: str) -> None:
    """Makes the tables of an earlier schema."""
    with database.engine.begin() as connection:
        command.upgrade(config(connection), revision)


def value(column: sa.Column, number: int) -> object:
    kind = column.type
    if column.foreign_keys or isinstance(kind, sa.Integer):
        return number
    for known, fixed in VALUES.items():
        if isinstance(kind, known):
            return fixed
    return f"{number}{column.name}"[: getattr(kind, "length", None) or 40]


def tables(connection) -> list[sa.Table]:
    metadata = sa.MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def fill(connection) -> dict[str, int]:
    """Adds two rows to every table, or one where no more fit; returns how many each has then."""
    for table in tables(connection):
        fitted = [number for number in (1, 2) if _added(connection, table, number)]
        assert fitted or _count(connection, table), f"no row fits {table.name}"
    return {table.name: _count(connection, table) for table in tables(connection)}


def _added(connection, table, number) -> bool:
    row = {column.name: value(column, number) for column in table.columns}
    for state in STATES:
        with_state = row | ({"state": state} if state and "state" in row else {})
        try:
            with connection.begin_nested():
                connection.execute(table.insert().values(**with_state))
        except DBAPIError:
            continue
        return True
    return False


def _count(connection, table) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(table))


def new_url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'lumbar.sqlite'}"
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=[pytest.mark.postgresql, pytest.mark.no_cover]),
    ]
)
def database(request, tmp_path):
    with closing_database(new_url(request, tmp_path)) as database:
        yield database


@pytest.mark.parametrize("revision", REVISIONS)
def test_no_row_is_lost(database, revision):
    at(database, revision)
    with database.engine.begin() as connection:
        before = {name: rows for name, rows in fill(connection).items() if name not in FORGOTTEN}
    assert schema.upgrade(database) == schema.newest()
    assert schema.differences(database) == []
    with database.engine.begin() as connection:
        after = {table.name: _count(connection, table) for table in tables(connection)}
        assert {name: after.get(name) for name in before} == before
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_migration_that_does_not_fit_the_rows_is_named_and_changes_nothing(database, monkeypatch):
    at(database, "0009")
    with database.engine.begin() as connection:
        fill(connection)

    _after_each_migration(
        monkeypatch, "INSERT INTO study SELECT * FROM study"
    )  # the keys are taken
    with pytest.raises(UpgradeFailed, match=r"from schema 0009 .* nothing was changed") as failure:
        schema.upgrade(database)
    assert "LUMBAR_DATABASE_URL" not in str(failure.value)
    with database.engine.begin() as connection:
        assert schema._current(connection) == "0009"


def test_an_upgrade_that_would_break_references_is_not_committed(tmp_path, monkeypatch):
    with closing_database(f"sqlite:///{tmp_path / 'lumbar.sqlite'}") as database:
        at(database, "0009")
        with database.engine.begin() as connection:
            fill(connection)
        _after_each_migration(monkeypatch, "DELETE FROM report")
        with pytest.raises(UpgradeFailed, match=r"delivery \(to report\)"):
            schema.upgrade(database)
        with database.engine.begin() as connection:
            assert schema._current(connection) == "0009"
            assert connection.exec_driver_sql("SELECT count(*) FROM report").scalar() == 2


def _after_each_migration(monkeypatch, statement):
    from alembic.runtime.migration import HeadMaintainer

    run = HeadMaintainer.update_to_step

    def update_to_step(self, step):
        run(self, step)
        self.context.connection.exec_driver_sql(statement)

    monkeypatch.setattr(HeadMaintainer, "update_to_step", update_to_step)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"not a database" * 100, "not a SQLite database"), (None, "disk is full")],
    ids=["no database", "full"],
)
def test_a_database_that_cannot_be_used_is_named_as_that(tmp_path, content, said, monkeypatch):
    file = tmp_path / "lumbar.sqlite"
    if content is not None:
        file.write_bytes(content)
    else:
        monkeypatch.setattr("db.database._prepare_sqlite", _without_room)
    with closing_database(f"sqlite:///{file}") as database:
        with pytest.raises(DatabaseUnavailable, match=said) as failure:
            schema.upgrade(database)
        assert "LUMBAR_DATABASE_URL" not in str(failure.value)


def _without_room(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA max_page_count=4").close()
