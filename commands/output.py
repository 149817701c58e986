"""Printed output: tables for people, JSON and CSV for programs."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import groupby
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from db.models import ReadingState
from db.read_models.study_queries import other_objects_in_words
from db.read_models.worklist_rows import WorklistRow
from lumbar.reports.csv_text import CONTROL, csv_parts, printable
from lumbar.reports.finding_records import FINDING_COLUMNS, StudyFinding, finding_record, notice
from lumbar.spine.anatomy import Severity
from lumbar.spine.findings import Finding
from lumbar.spine.provenance import BundleIdentity
from lumbar.spine.urgency import Urgency

if TYPE_CHECKING:
    from db.read_models.study_detail import StudyDetail

SEVERITY_STYLES = {
    Severity.SEVERE: "bold red",
    Severity.MODERATE: "yellow",
    Severity.NORMAL_MILD: "green",
}
URGENCY_STYLES = {Urgency.URGENT: "bold red", Urgency.PRIORITY: "yellow"}


class Format(StrEnum):
    """How records are printed on standard output."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


MAX_NUMBER = 2**31 - 1  # of a row, and of rows, that every database takes

AsFormat = Annotated[Format, typer.Option("--format", help="How to print")]


def print_findings(rows: Iterable[StudyFinding], form: Format) -> None:
    """Prints a table per study, or records of ``FINDING_COLUMNS``, while the rows are read."""
    if form is not Format.TABLE:
        print_records(map(finding_record, rows), FINDING_COLUMNS, form)
        return
    bundles: dict[BundleIdentity | None, None] = {}
    for study, of_study in groupby(rows, key=_study_uid):
        findings = list(of_study)
        _print_findings_table(study, findings)
        bundles |= dict.fromkeys(row.bundle for row in findings)
    _print_notices(bundles)


def _study_uid(row: StudyFinding) -> str:
    return row.study.study_instance_uid


def print_how_read(caveats: Iterable[str], choices: Iterable[str]) -> None:
    """Prints how a study was analysed, for people; the caveats come first."""
    for caveat in caveats:
        console().print(f"Caution: {caveat}", style="bold yellow")
    for line in choices:
        console().print(line)


def print_instances(detail: "StudyDetail") -> None:
    """Prints what is notable about a study's instances, for people; a correction comes first."""
    uid = detail.study.study_instance_uid
    for correction in detail.corrections:
        sentence = str(correction)
        command = f": lumbar study correct {uid}" if correction.complete else ""
        if command and len(detail.corrections) > 1:
            command += f" --correction {correction.token}"
        text = f"{sentence[0].upper()}{sentence[1:]}{command}"
        console().print(printable(text), style="bold red")
    for sentence in detail.disagreements:
        console().print(printable(f"Images disagree: {sentence}"), style="yellow")
    if detail.other_objects:
        console().print(other_objects_in_words(detail.other_objects))
    for why, count in detail.quarantined.items():
        console().print(f"{count} {'image' if count == 1 else 'images'} quarantined: {why}")
    if detail.quarantined:
        console().print(f"To list what is quarantined: lumbar quarantine list --study {uid}")


def print_worklist(rows: Sequence[WorklistRow], form: Format) -> None:
    """Prints the worklist, the most urgent study first."""
    if form is not Format.TABLE:
        records = [_worklist_record(rank, row) for rank, row in enumerate(rows, 1)]
        print_records(records, WORKLIST_COLUMNS, form)
        return
    table = Table(title="Reading worklist", title_justify="left")
    for heading in ("", "Patient", "Accession", "State", "Waiting", "Reason", "Study"):
        table.add_column(heading, overflow="fold")
    for rank, row in enumerate(rows, 1):
        table.add_row(
            str(rank),
            printable(f"{row.patient_identifier} {row.patient_name}".strip()),
            printable(row.accession_number),
            row.state.label
            + ("" if row.reading is ReadingState.WAITING else f", {row.reading.label}"),
            _waiting(row.waiting_s),
            printable(f"{row.why}; {row.correction}" if row.correction else row.why),
            row.study_instance_uid,
            style=URGENCY_STYLES.get(row.urgency),
        )
    console().print(table)
    _print_notices(row.bundle for row in rows)


def _escaped(character: re.Match[str]) -> str:
    return f"\\u{ord(character[0]):04x}"


def console() -> Console:
    """Standard output; wide enough for a table if it is not a terminal."""
    output = Console(markup=False, highlight=False)
    if not output.is_terminal:
        output.width = 160
    return output


def in_words(number: int, singular: str, plural: str) -> str:
    """A number of things: ``1 study waits``, ``2 studies wait``."""
    return f"{number} {singular if number == 1 else plural}"


WORKLIST_COLUMNS = (
    "rank",
    "urgency",
    "why",
    "study_instance_uid",
    "patient_identifier",
    "patient_name",
    "accession_number",
    "study_date",
    "scanner",
    "state",
    "reading",
    "images",
    "flags",
    "waiting_s",
    "bundle",
    "notice",
)


def _worklist_record(rank: int, row: WorklistRow) -> dict[str, Any]:
    record = {name: getattr(row, name) for name in WORKLIST_COLUMNS if hasattr(row, name)}
    return record | {
        "rank": rank,
        "urgency": int(row.urgency),
        "flags": "; ".join(row.flags),
        "waiting_s": round(row.waiting_s),
        "bundle": str(row.bundle) if row.bundle else None,
        "notice": notice(row.bundle),
    }


def print_records(
    records: Iterable[Mapping[str, Any]], columns: Sequence[str], form: Format
) -> None:
    """Prints a table, or a JSON list or CSV with a header while the records are read."""
    if form is Format.JSON:
        for part in _json_parts(records, columns):
            typer.echo(part, nl=False)
    elif form is Format.CSV:
        for part in csv_parts(columns, records):
            typer.echo(part, nl=False)
    else:
        table = Table()
        for name in columns:
            table.add_column(name, overflow="fold")
        for record in records:
            values = [record[name] for name in columns]
            table.add_row(*("" if value is None else printable(str(value)) for value in values))
        console().print(table)


def print_object(record: Mapping[str, Any]) -> None:
    """Prints one JSON object; control characters are escaped."""
    text = _json(record)
    typer.echo("\n".join(CONTROL.sub(_escaped, line) for line in text.split("\n")))


def _json_parts(records: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[str]:
    """A list, record by record; control characters are escaped."""
    before = "[\n"
    for record in records:
        ordered = {name: record[name] for name in columns}
        yield before + indent(CONTROL.sub(_escaped, _json(ordered)), " ")
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def _json(record: Mapping[str, Any]) -> str:
    """JSON that a program reads back as it was, whatever the encoding of the output."""
    utf_8 = sys.stdout is not None and sys.stdout.encoding.lower().startswith("utf")
    return json.dumps(record, indent=1, ensure_ascii=not utf_8)


def _print_findings_table(study: str, rows: Iterable[StudyFinding]) -> None:
    table = Table(title=f"Study {study}", title_justify="left")
    for heading in ("Condition", "Level", "Severity"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Normal/Mild", "Moderate", "Severe", "View"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Read from, or why not", overflow="fold")
    for finding in (row.finding for row in rows):
        table.add_row(*_cells(finding), style=_style(finding))
    console().print(table)


def _cells(finding: Finding) -> list[str]:
    """A row of the table of findings."""
    point, severity = finding.point, finding.severity
    probabilities = ["", "", ""]
    if finding.probabilities:
        probabilities = [f"{p:.2f}" for p in finding.probabilities]
    source = printable(finding.reason or "")
    if point is not None:
        source = f"…{point.sop_instance_uid[-12:]} ({point.column:.0f}, {point.row:.0f})"
    return [
        finding.condition.label,
        finding.level.label,
        severity.label if severity else "not assessed",
        *probabilities,
        f"{finding.shows:.2f}" if finding.shows is not None else "",
        source,
    ]


def _style(finding: Finding) -> str:
    return SEVERITY_STYLES[finding.severity] if finding.severity else "dim"


def _print_notices(bundles: Iterable[BundleIdentity | None]) -> None:
    named = dict.fromkeys(bundles)
    for bundle in named:
        if bundle is not None:
            console().print(f"Weights: {bundle}, sha256 {bundle.weights_sha256[:16]}")
    for sentences in dict.fromkeys(notice(bundle) for bundle in named or [None]):
        console().print(f"{sentences}.")


def _state(row: WorklistRow) -> str:
    return row.state.label + (
        "" if row.reading is ReadingState.WAITING else f", {row.reading.label}"
    )


def _waiting(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60):02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
