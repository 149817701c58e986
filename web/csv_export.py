"""CSV files of the page's tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from fastapi.responses import StreamingResponse

from db.operator_actions import JobRow
from db.quarantine import QuarantinedInstance
from lumbar.reports.csv_text import BYTE_ORDER_MARK, csv_parts

JOB_COLUMNS = tuple(field.name for field in fields(JobRow))
QUARANTINE_COLUMNS = tuple(field.name for field in fields(QuarantinedInstance))


def as_csv(
    name: str, columns: Sequence[str], records: Iterable[Mapping[str, Any]]
) -> StreamingResponse:
    """A file to save, written while its records are read: UTF-8 with a byte order mark, CRLF."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(
        _parts(columns, records), media_type="text/csv; charset=utf-8", headers=headers
    )


def _parts(columns: Sequence[str], records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    yield BYTE_ORDER_MARK
    yield from csv_parts(columns, records, line_end="\r\n")
