"""Finds the large tables that PostgreSQL scans sequentially for a query; small ones may be."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from db.database import Database

# The tables that grow with every study.
GROWING = {
    "patient",
    "study",
    "search_key",
    "explanation",
    "series",
    "instance",
    "finding",
    "report",
    "job",
    "delivery",
}


def scanned_tables(database: Database, run: Callable[[Session], object]) -> list[str]:
    """The names of the growing tables that any statement of the query scans sequentially."""
    statements: list[tuple[str, Any]] = []

    def record(
        _connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object
    ) -> None:
        statements.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", record)
    try:
        with database.reading() as session:
            run(session)
    finally:
        event.remove(database.engine, "before_cursor_execute", record)
    tables: set[str] = set()
    with database.engine.connect() as connection:
        for statement, parameters in statements:
            result = connection.exec_driver_sql(
                f"EXPLAIN (FORMAT JSON) {statement}", parameters
            ).scalar_one()
            plan = json.loads(result) if isinstance(result, str) else result
            tables |= {
                node["Relation Name"]
                for node in _nodes(plan[0]["Plan"])
                if node["Node Type"] == "Seq Scan"
            }
    return sorted(tables & GROWING)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)
