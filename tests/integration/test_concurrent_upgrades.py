"""Upgrades of one database at the same time, interrupted, blocked, and by an older program."""

import multiprocessing
import os

import pytest
from alembic import command
from sqlalchemy import text

from db import database as databases
from db import schema
from db.database import Database, DatabaseUnavailable
from db.schema import SchemaNewer
from tests.servers import PgBouncer
from tests.system import closing_database

pytestmark = pytest.mark.slow

AT_ONCE = 3
SERVER = [pytest.mark.postgresql, pytest.mark.no_cover]


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=SERVER),
        pytest.param("pgbouncer", marks=SERVER),
    ]
)
def empty(request, tmp_path):
    """The URL of an empty database, or of none yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'lumbar.sqlite'}"
        return
    postgres = request.getfixturevalue("postgres")
    url = postgres.new_database()
    if request.param == "postgresql":
        yield url
        return
    with PgBouncer(tmp_path / "pgbouncer", postgres) as pgbouncer:
        yield pgbouncer.url(url)


def upgrade(url, start, failures):
    with closing_database(url) as database:
        start.wait(60)
        try:
            schema.upgrade(database)
        except Exception as error:
            failures.put(repr(error))
            raise


def upgrade_at_once(url):
    """In processes of their own, as `lumbar db upgrade` would; returns the errors."""
    context = multiprocessing.get_context("spawn")
    start, failures = context.Barrier(AT_ONCE), context.SimpleQueue()
    processes = [
        context.Process(target=upgrade, args=(url, start, failures)) for _ in range(AT_ONCE)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    message = []
    while not failures.empty():
        message.append(failures.get())
    return message + [f"status {process.exitcode}" for process in processes if process.exitcode]


def downgrade(url, revision):
    with closing_database(url) as database, database.engine.begin() as connection:
        config = schema._config()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def test_several_upgrades_at_once_all_succeed(empty):
    assert upgrade_at_once(empty) == []
    downgrade(empty, "0005")
    assert upgrade_at_once(empty) == []
    with closing_database(empty) as database:
        assert schema.differences(database) == []
        schema.check(database)


def prepare_impatient_sqlite(connection, record):
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout=500").close()


def fail_in_the_last(monkeypatch, how):
    """Something goes wrong when the last migration has been run."""
    from alembic.runtime.migration import HeadMaintainer

    run = HeadMaintainer.update_to_step

    def update_to_step(self, step):
        run(self, step)
        if schema.newest() in self.heads:
            how()

    monkeypatch.setattr(HeadMaintainer, "update_to_step", update_to_step)


def test_an_upgrade_that_fails_in_the_end_leaves_the_old_schema(empty, monkeypatch):
    with closing_database(empty) as database:
        schema.upgrade(database)
    downgrade(empty, "0005")
    with monkeypatch.context() as patched, closing_database(empty) as database:
        fail_in_the_last(patched, lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            schema.upgrade(database)
    with closing_database(empty) as database, database.reading() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "0005"


def test_an_upgrade_that_is_killed_leaves_no_schema(empty, monkeypatch):
    fail_in_the_last(monkeypatch, lambda: os._exit(9))
    context = multiprocessing.get_context("fork")
    process = context.Process(target=lambda: schema.upgrade(Database.connect(empty)))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    monkeypatch.undo()
    with closing_database(empty) as database:
        with pytest.raises(schema.SchemaOutdated, match="is empty"):
            schema.check(database)
        schema.upgrade(database)
        assert schema.differences(database) == []


def test_a_newer_schema_is_named_as_that(empty):
    with closing_database(empty) as database:
        schema.upgrade(database)
        with database.transaction() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        for attempt in (schema.check, schema.upgrade):
            with pytest.raises(SchemaNewer, match=r"newer version .*9999.*restore") as refused:
                attempt(database)
            assert "db upgrade" not in str(refused.value)
        with database.reading() as session:
            assert session.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


def test_waiting_for_others_is_bounded_and_named(empty, monkeypatch):
    monkeypatch.setattr(schema, "TURN_S", 1)
    monkeypatch.setattr(schema, "TABLE_S", 1)
    with closing_database(empty) as database:
        schema.upgrade(database)
    downgrade(empty, "0008")
    if empty.startswith("sqlite"):
        lock, message = "SELECT 1", "cannot be changed while others use"
        monkeypatch.setattr(databases, "_prepare_sqlite", prepare_impatient_sqlite)
    else:
        lock, message = (
            f"SELECT pg_advisory_xact_lock({schema.UPGRADE_LOCK})",
            "another `lumbar db upgrade`",
        )
    with closing_database(empty) as other, other.transaction() as session:
        session.execute(text(lock))
        with closing_database(empty) as database, pytest.raises(DatabaseUnavailable, match=message):
            schema.upgrade(database)


@pytest.mark.postgresql
@pytest.mark.no_cover
def test_a_table_in_use_is_named_and_nothing_is_changed(postgres, monkeypatch):
    monkeypatch.setattr(schema, "TABLE_S", 1)
    url = postgres.migrated_database()
    downgrade(url, "0008")
    with closing_database(url) as other, other.transaction() as session:
        session.execute(text("LOCK TABLE study, instance IN ACCESS SHARE MODE"))
        with closing_database(url) as database:
            with pytest.raises(DatabaseUnavailable, match="others use the database"):
                schema.upgrade(database)
            with database.reading() as reading:
                assert reading.scalar(text("SELECT version_num FROM alembic_version")) == "0008"


def test_the_pool_keeps_no_session_of_an_upgrade(empty):
    """Its time-outs are those of its transaction."""
    with closing_database(empty) as database:
        schema.upgrade(database)
        if not empty.startswith("sqlite"):
            with database.transaction() as session:
                assert session.scalar(text("SHOW statement_timeout")) == "1min"
                assert session.scalar(text("SHOW lock_timeout")) == "30s"
