"""Which tables PostgreSQL reads from end to end to answer a question: the full size tells, small ones it may well."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from db.database import Database

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


def scanned(database: Database, ask: Callable[[Session], object]) -> list[str]:
    """Of the tables that grow with every study, those that some statement of the question scans, by name."""
    asked: list[tuple[str, Any]] = []

    def note(
        _connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object
    ) -> None:
        asked.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        with database.reading() as session:
            ask(session)
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    found: set[str] = set()
    with database.engine.connect() as connection:
        for statement, parameters in asked:
            told = connection.exec_driver_sql(
                f"EXPLAIN (FORMAT JSON) {statement}", parameters
            ).scalar_one()
            plan = json.loads(told) if isinstance(told, str) else told
            found |= {
                node["Relation Name"]
                for node in _nodes(plan[0]["Plan"])
                if node["Node Type"] == "Seq Scan"
            }
    return sorted(found & GROWING)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)
