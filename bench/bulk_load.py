"""Fills a database with a hospital's studies: rows first, indexes and foreign keys afterwards."""

import sqlite3
from datetime import UTC, datetime

import psycopg
from psycopg import sql
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.hospital import Hospital
from db import schema
from db.database import Database

# Unique constraints before foreign keys. A constraint's index is dropped and created with it.
_CONSTRAINTS = """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('u', 'f')
    ORDER BY contype DESC, conname"""
_INDEXES = """SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    AND indexname NOT IN (SELECT conname FROM pg_constraint) ORDER BY indexname"""
_SEQUENCES = """SELECT table_name FROM information_schema.columns
    WHERE table_schema = 'public' AND column_name = 'id' AND column_default LIKE 'nextval%'"""


def fill(database: Database, studies: int) -> None:
    """Creates the schema and the rows; the newest studies are a few minutes old."""
    schema.upgrade(database)
    hospital = Hospital(studies, datetime.now(UTC))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        if database.engine.dialect.name == "sqlite":
            _fill_sqlite(str(database.engine.url.database), hospital, progress)
        else:
            url = database.engine.url.set(drivername="postgresql").render_as_string(
                hide_password=False
            )
            _fill_postgresql(url, hospital, progress)


def _fill_sqlite(file: str, hospital: Hospital, progress: Progress) -> None:
    task = progress.add_task("SQLite: studies", total=hospital.studies)
    connection = sqlite3.connect(file)
    for count, batches in hospital.rows():
        for table, columns, rows in batches:
            names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
        progress.advance(task, count)
    connection.execute("ANALYZE")
    connection.commit()
    connection.close()


def _fill_postgresql(url: str, hospital: Hospital, progress: Progress) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for setting in (
            "timezone = 'UTC'",
            "synchronous_commit = off",
            "maintenance_work_mem = '1GB'",
        ):
            connection.execute(f"SET {setting}")
        constraints = connection.execute(_CONSTRAINTS).fetchall()
        for table, name, _ in constraints:
            connection.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
        indexes = connection.execute(_INDEXES).fetchall()
        for name, _ in indexes:
            connection.execute(f'DROP INDEX "{name}"')
        task = progress.add_task("PostgreSQL: studies", total=hospital.studies)
        for count, batches in hospital.rows():
            for table, columns, rows in batches:
                into = sql.SQL("COPY {} ({}) FROM STDIN").format(
                    sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
                )
                with connection.cursor().copy(into) as copy:
                    for row in rows:
                        copy.write_row(row)
            progress.advance(task, count)
        after = [
            f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {definition}'
            for table, name, definition in constraints
        ]
        after = [definition for _, definition in indexes] + after
        for (table,) in connection.execute(_SEQUENCES).fetchall():
            maximum = f"(SELECT max(id) + 1 FROM {table})"
            after.append(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {maximum})")
        after += ["VACUUM (ANALYZE)", "CHECKPOINT"]
        task = progress.add_task("PostgreSQL: indexes", total=len(after))
        for statement in after:
            connection.execute(statement)
            progress.advance(task)
