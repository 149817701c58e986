"""Rows for programs: records and CSV that a spreadsheet cannot be made to run."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from fastapi.responses import StreamingResponse

from db.operator_actions import JobRow
from db.read_models.findings import FoundRow

FOUND_COLUMNS = (
    "finding_id",
    "found_at",
    "study_instance_uid",
    "patient_identifier",
    "patient_name",
    "accession_number",
    "scanner",
    "condition",
    "level",
    "severity",
    "normal_mild",
    "moderate",
    "severe",
    "shows",
    "reason",
    "sop_instance_uid",
    "frame",
    "column",
    "row",
    "bundle",
    "weights_sha256",
    "notice",
)
JOB_COLUMNS = tuple(field.name for field in fields(JobRow))
LINES_AT_ONCE = 500

_FORMULA = re.compile(
    "[\\s\x00-\x1f]*[=+@\uff1d\uff0b\uff0d\uff20-]|[\t\r\n]"
)  # also in full width
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def found_record(row: FoundRow) -> dict[str, Any]:
    """A finding as programs get it."""
    finding, point = row.finding, row.finding.point
    normal_mild, moderate, severe = finding.probabilities or (None, None, None)
    return {
        "finding_id": row.finding_id,
        "found_at": row.found_at.isoformat(timespec="seconds"),
        "study_instance_uid": row.study_instance_uid,
        "patient_identifier": row.patient_identifier,
        "patient_name": row.patient_name,
        "accession_number": row.accession_number,
        "scanner": row.scanner,
        "condition": finding.condition,
        "level": finding.level,
        "severity": finding.severity,
        "normal_mild": normal_mild,
        "moderate": moderate,
        "severe": severe,
        "shows": finding.shows,
        "reason": finding.reason,
        "sop_instance_uid": point.sop_instance_uid if point else None,
        "frame": point.frame if point else None,
        "column": point.column if point else None,
        "row": point.row if point else None,
        "bundle": str(row.bundle),
        "weights_sha256": row.bundle.weights_sha256,
        "notice": ". ".join(row.bundle.trained_on.notices),
    }


def as_csv(
    name: str, columns: Sequence[str], records: Iterator[Mapping[str, Any]]
) -> StreamingResponse:
    """A file to save, written while it is read."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(
        _lines(columns, records), media_type="text/csv; charset=utf-8", headers=headers
    )


def _lines(columns: Sequence[str], records: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(columns)
    for count, record in enumerate(records, 1):
        table.writerow([cell(record[name]) for name in columns])
        if count % LINES_AT_ONCE == 0:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def cell(value: object) -> object:
    """Text that a spreadsheet would run as a formula is kept text; control characters are marked."""
    if not isinstance(value, str):
        return value
    plain = _CONTROL.sub("\ufffd", value)
    return f"'{plain}" if _FORMULA.match(value) else plain
