"""How rows are printed: tables for people, JSON and CSV for programs."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from db.read_models.study_queries import StudyFinding
from db.read_models.worklist import WorklistRow
from lumbar.spine.anatomy import Severity
from lumbar.spine.provenance import LOW_RANK_NOTICE, RESEARCH_USE_ONLY, BundleIdentity

SEVERITY_STYLES = {
    Severity.SEVERE: "bold red",
    Severity.MODERATE: "yellow",
    Severity.NORMAL_MILD: "green",
}

# Control characters (C0 but the line's end, C1), line separators, and marks that turn a text's direction.
COMMANDING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Format(StrEnum):
    """What is printed on standard output."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


AsFormat = Annotated[Format, typer.Option("--format", help="How to print")]


def print_findings(rows: Sequence[StudyFinding], form: Format) -> None:
    """25 rows a study; the RSNA row names come first in CSV and JSON."""
    if form is not Format.TABLE:
        print_records([finding_record(row) for row in rows], FINDING_COLUMNS, form)
        return
    for study in dict.fromkeys(row.study_instance_uid for row in rows):
        _print_findings_table(study, [row for row in rows if row.study_instance_uid == study])
    _print_notices(row.bundle for row in rows)


def print_how_read(caveats: Iterable[str], choices: Iterable[str]) -> None:
    """For people: the lines of how a study was read, what is in caveat first."""
    for caveat in caveats:
        console().print(f"Caution: {caveat}", style="bold yellow")
    for line in choices:
        console().print(line)


def print_worklist(rows: Sequence[WorklistRow], form: Format) -> None:
    """The most urgent first."""
    if form is not Format.TABLE:
        records = [_worklist_record(place, row) for place, row in enumerate(rows, 1)]
        print_records(records, WORKLIST_COLUMNS, form)
        return
    table = Table(title="Reading worklist", title_justify="left")
    for heading in ("", "Patient", "Accession", "State", "Waiting", "Why here", "Study"):
        table.add_column(heading, overflow="fold")
    for place, row in enumerate(rows, 1):
        table.add_row(
            str(place),
            as_text(f"{row.patient_identifier} {row.patient_name}".strip()),
            as_text(row.accession_number),
            row.state.replace("_", " "),
            _waiting(row.waiting_s),
            row.why,
            row.study_instance_uid,
            style={1: "bold red", 2: "yellow"}.get(row.urgency),
        )
    console().print(table)
    _print_notices(row.bundle for row in rows)


def as_text(value: str) -> str:
    """A sender's text as a terminal may show it: what would command it is replaced by a mark."""
    return COMMANDING.sub("\ufffd", value)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def notice(bundle: BundleIdentity | None) -> str:
    """The sentences that stand on every output of these weights."""
    return ". ".join(bundle.trained_on.notices if bundle else (RESEARCH_USE_ONLY, LOW_RANK_NOTICE))


def console() -> Console:
    """Standard output; wide enough for a table where it is no terminal."""
    found = Console(markup=False, highlight=False)
    if not found.is_terminal:
        found.width = 160
    return found


FINDING_COLUMNS = (
    "row_id",
    "normal_mild",
    "moderate",
    "severe",
    "severity",
    "assessed",
    "reason",
    "sop_instance_uid",
    "column",
    "row",
    "caveats",
    "bundle",
    "notice",
)
WORKLIST_COLUMNS = (
    "place",
    "urgency",
    "why",
    "study_instance_uid",
    "patient_identifier",
    "patient_name",
    "accession_number",
    "study_date",
    "scanner",
    "state",
    "images",
    "flags",
    "waiting_s",
    "bundle",
    "notice",
)


def finding_record(row: StudyFinding) -> dict[str, Any]:
    """As programs get it."""
    finding, point = row.finding, row.finding.point
    normal_mild, moderate, severe = finding.probabilities or (None, None, None)
    return {
        "row_id": finding.key.row_id(row.study_instance_uid),
        "normal_mild": _rounded(normal_mild, 6),
        "moderate": _rounded(moderate, 6),
        "severe": _rounded(severe, 6),
        "severity": finding.severity,
        "assessed": finding.assessed,
        "reason": finding.reason,
        "sop_instance_uid": point.sop_instance_uid if point else None,
        "column": _rounded(point.column, 2) if point else None,
        "row": _rounded(point.row, 2) if point else None,
        "caveats": "; ".join(row.caveats),
        "bundle": str(row.bundle) if row.bundle else None,
        "notice": notice(row.bundle),
    }


def _worklist_record(place: int, row: WorklistRow) -> dict[str, Any]:
    record = {name: getattr(row, name) for name in WORKLIST_COLUMNS if hasattr(row, name)}
    return record | {
        "place": place,
        "urgency": int(row.urgency),
        "flags": "; ".join(row.flags),
        "waiting_s": round(row.waiting_s),
        "bundle": str(row.bundle) if row.bundle else None,
        "notice": notice(row.bundle),
    }


def print_records(
    records: Sequence[Mapping[str, Any]], columns: Sequence[str], form: Format
) -> None:
    """Records as they are: a table, a JSON list, or CSV with a header."""
    ordered = [{name: record[name] for name in columns} for record in records]
    if form is Format.JSON:
        typer.echo(COMMANDING.sub(_escaped, json.dumps(ordered, indent=1, ensure_ascii=False)))
    elif form is Format.CSV:
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: _cell(value) for name, value in record.items()} for record in ordered
        )
        typer.echo(text.getvalue(), nl=False)
    else:
        table = Table()
        for name in columns:
            table.add_column(name, overflow="fold")
        for record in ordered:
            table.add_row(
                *("" if value is None else as_text(str(value)) for value in record.values())
            )
        console().print(table)


def _cell(value: object) -> object:
    """Text that a spreadsheet would run as a formula is kept text."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    return (
        f"'{as_text(value)}" if value.lstrip().startswith(("=", "+", "-", "@")) else as_text(value)
    )


def _print_findings_table(study: str, rows: Sequence[StudyFinding]) -> None:
    table = Table(title=f"Study {study}", title_justify="left")
    for heading in ("Condition", "Level", "Severity"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Normal/Mild", "Moderate", "Severe", "View"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Read from, or why not", overflow="fold")
    for finding in (row.finding for row in rows):
        point, severity = finding.point, finding.severity
        table.add_row(
            finding.condition.label,
            finding.level.label,
            severity.label if severity else "not assessed",
            *(
                [f"{p:.2f}" for p in finding.probabilities]
                if finding.probabilities
                else ["", "", ""]
            ),
            f"{finding.shows:.2f}" if finding.shows is not None else "",
            f"…{point.sop_instance_uid[-12:]} ({point.column:.0f}, {point.row:.0f})"
            if point
            else finding.reason,
            style=SEVERITY_STYLES[severity] if severity else "dim",
        )
    console().print(table)


def _print_notices(bundles: Iterable[BundleIdentity | None]) -> None:
    named = dict.fromkeys(bundles)
    for bundle in named:
        if bundle is not None:
            console().print(f"Weights: {bundle}, sha256 {bundle.weights_sha256[:16]}")
    for sentences in dict.fromkeys(notice(bundle) for bundle in named or [None]):
        console().print(f"{sentences}.")


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _waiting(seconds: float) -> str:
    minutes = int(seconds // 60)
    return (
        f"{minutes // 60} h {minutes % 60:02d} min"
        if minutes >= 60
        else f"{minutes} min {int(seconds % 60):02d} s"
    )
