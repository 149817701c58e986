"""Commands on stored studies: `lumbar worklist`, `findings`, `study`, `audit`, `complete`, …"""

import json
import shutil
from collections.abc import Callable
from datetime import datetime, tzinfo
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from commands.output import (
    MAX_NUMBER,
    AsFormat,
    Format,
    console,
    in_words,
    print_findings,
    print_how_read,
    print_instances,
    print_records,
    print_worklist,
)
from commands.users import by_command_line, record_view, record_visit
from db import audit, operator_actions, reviews, studies
from db.context import SiteContext
from db.models import ReadingState, StudyState
from db.read_models import findings as finding_queries
from db.read_models import worklist as study_lists
from db.read_models.findings import FindingFilter
from db.read_models.reviewed_labels import labels
from db.read_models.study_detail import study_detail
from lumbar.audit_messages import audit_message, objects_of
from lumbar.errors import WrongSetting
from lumbar.reports.finding_records import FINDING_COLUMNS, finding_record
from lumbar.settings import Settings
from lumbar.spine.anatomy import Condition, Level, Severity
from lumbar.time_window import parse_since, parse_until

app = typer.Typer()

AUDIT_COLUMNS = (
    *("number", "happened_at", "event", "actor", "address", "outcome", "times"),
    *("study_instance_uid", "object", "detail"),
)

StudyUid = Annotated[str, typer.Argument(metavar="UID", help="Study Instance UID")]


@app.command(epilog="Example: lumbar worklist --limit 20 --format json")
def worklist(
    search: Annotated[
        str, typer.Option(help="Patient's name or number, or accession number, or how they begin")
    ] = "",
    state: Annotated[
        list[StudyState] | None, typer.Option(help="Only this state; may be repeated")
    ] = None,
    scanner: Annotated[str, typer.Option(help="Only this scanner, as the worklist names it")] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, max=MAX_NUMBER, help="Maximum number of studies")
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="The cursor shown after the previous page")
    ] = None,
    all_studies: Annotated[
        bool, typer.Option("--all", help="All studies, read or not, the newest first")
    ] = False,
    expired: Annotated[
        bool,
        typer.Option("--expired", help="Those that left the worklist unread, the newest first"),
    ] = False,
    severe: Annotated[bool, typer.Option("--severe", help="Only with a severe finding")] = False,
    form: AsFormat = Format.TABLE,
) -> None:
    """Lists the studies that wait to be read, severe first, each with the reason for its rank."""
    site = SiteContext.open(Settings.load())
    reading = ReadingState.EXPIRED if expired else None
    only = study_lists.StudyFilter(search, state or (), scanner, reading=reading, severe=severe)
    with site.database.reading() as session:
        waiting = study_lists.waiting(session, site.ranking)
        if all_studies or expired:
            page = study_lists.studies(
                session, site.ranking, limit=limit or 1000, after=after, only=only
            )
        else:
            page = study_lists.worklist(session, site.ranking, limit=limit, after=after, only=only)
    record_view(site, "studies.seen" if all_studies or expired else "worklist.seen")
    print_worklist(page.rows, form)
    if waiting.severe_expiring:
        soon = in_words(waiting.severe_expiring, "severe study expires", "severe studies expire")
        typer.echo(f"{soon} within 24 h.", err=True)
    if page.next_after:
        typer.echo(f"For the next page: --after {page.next_after}", err=True)


@app.command(
    epilog="Example: lumbar findings --severity severe --level l4_l5 --since 7d --format csv"
)
def findings(
    severity: Annotated[
        list[Severity] | None, typer.Option(help="Only this severity; may be repeated")
    ] = None,
    condition: Annotated[
        list[Condition] | None, typer.Option(help="Only this condition; may be repeated")
    ] = None,
    level: Annotated[
        list[Level] | None, typer.Option(help="Only this disc level; may be repeated")
    ] = None,
    scanner: Annotated[str, typer.Option(help="Only this scanner, as the worklist names it")] = "",
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Received then or later: a date (2026-11-16), a date and time (ISO 8601), or an "
            "age (24h, 7d); in the site's time zone (LUMBAR_TIME_ZONE) unless it has an offset",
        ),
    ] = "",
    until: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Received before then, as --since; a date is included to its end"
        ),
    ] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, max=MAX_NUMBER, help="Maximum number of rows")
    ] = None,
    form: AsFormat = Format.TABLE,
) -> None:
    """Lists the current findings, the newest first, or why a study could not be analysed."""
    settings = Settings.load()
    only = FindingFilter(
        severity or (),
        condition or (),
        level or (),
        scanner,
        _time("--since", since, parse_since, settings),
        _time("--until", until, parse_until, settings),
    )
    site = SiteContext.open(settings)
    record_view(site, "findings.seen")
    print_findings(islice(finding_queries.stream(site.database, only), limit), form)


@app.command(epilog="Example: lumbar study 1.2.840.113619.2.1 --format csv")
def study(
    uid: Annotated[
        str,
        typer.Argument(
            metavar="UID", help="Study Instance UID", autocompletion=lambda: ["correct"]
        ),
    ],
    form: AsFormat = Format.TABLE,
) -> None:
    """Shows one study: state, quarantined images, how it was analysed, 25 findings, its reports.

    `lumbar study correct UID` takes a study over as newer copies of its images state it.
    """
    site = SiteContext.open(Settings.load())
    with site.database.reading() as session:
        study_id = studies.find(session, uid).id
        detail = study_detail(session, uid, site.ranking)
    record_view(site, "study.seen", study_id)
    choices = detail.read.choices
    if form is not Format.TABLE:
        records = [finding_record(row) | {"choices": "; ".join(choices)} for row in detail.findings]
        print_records(records, (*FINDING_COLUMNS, "choices"), form)
        return
    reason = f": {detail.reason}" if detail.reason else ""
    console().print(f"{detail.study.state.label}{reason}, revision {detail.study.revision}")
    print_instances(detail)
    print_how_read(detail.read.caveats, choices)
    print_findings(detail.findings, form)
    for row in detail.deliveries:
        error = f", {row.last_error}" if row.last_error else ""
        outcome = f", {row.outcome} ({row.status})" if row.outcome else ""
        console().print(
            f"report to {row.destination}: {row.state}{outcome}, {row.attempts} attempts{error}"
        )


@app.command("study correct", epilog="Example: lumbar study correct 1.2.840.113619.2.1")
def correct(
    uid: StudyUid,
    correction: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="Which, where several wait: `lumbar study` lists them"),
    ] = None,
) -> None:
    """Takes a study over under the patient, name or accession number of newer copies.

    Only where every image has been sent again. The study is analysed again, and the new report
    replaces the earlier one.
    """
    site = SiteContext.open(Settings.load())
    with site.database.transaction() as session:
        operator_actions.correct(session, uid, by_command_line(), correction)
    typer.echo("The study is taken over, and is analysed again.")


@app.command("mark-read", epilog="Example: lumbar mark-read 1.2.840.113619.2.1")
def mark_read(
    uid: StudyUid,
    undo: Annotated[bool, typer.Option("--undo", help="Put it back on the worklist")] = False,
) -> None:
    """Marks a study as read, which takes it off the worklist. A late image puts it back."""
    site = SiteContext.open(Settings.load())
    with site.database.transaction() as session:
        reviews.mark_read(session, studies.find(session, uid), by_command_line(), read=not undo)
    typer.echo("The study waits to be read." if undo else "The study is marked as read.")


@app.command(epilog="Example: lumbar complete 1.2.840.113619.2.1")
def complete(uid: StudyUid) -> None:
    """Analyses a study now, without waiting until it is quiet."""
    site = SiteContext.open(Settings.load())
    arriving = site.store.arriving()
    with site.database.transaction() as session:
        operator_actions.complete(session, uid, by_command_line(), arriving)
    typer.echo("The study is queued.")


@app.command(epilog="Example: lumbar requeue 1.2.840.113619.2.1")
def requeue(uid: StudyUid) -> None:
    """Analyses a study again once its analysis has ended; earlier findings are superseded."""
    site = SiteContext.open(Settings.load())
    with site.database.transaction() as session:
        operator_actions.requeue(session, uid, by_command_line())
    typer.echo("The study is queued again.")


@app.command(
    "export-labels",
    epilog="Example: lumbar export-labels labels/ && lumbar train labels/ --out bundle/",
)
def export_labels(
    out: Annotated[
        Path, typer.Argument(help="Folder to create: tables and images in the RSNA 2024 layout")
    ],
) -> None:
    """Writes the reviewed labels with their images (which name patients) for `lumbar train`."""
    from rich.console import Console
    from rich.progress import track

    site = SiteContext.open(Settings.load())
    with site.database.transaction() as session:
        reviewed = labels(session)
        audit.note(session, "reviews.exported", by_command_line(), findings=reviewed.findings)
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        raise WrongSetting(f"{out} exists already; name a new folder") from None
    for name, text in reviewed.tables.items():
        (out / name).write_text(text, encoding="utf-8")
    for path, file in track(reviewed.images.items(), "Images", console=Console(stderr=True)):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(site.store.path(file), out / path)
    typer.echo(
        f"{reviewed.findings} reviewed findings of {reviewed.studies} studies, "
        f"{len(reviewed.images)} images."
    )


@app.command("audit", epilog="Example: lumbar audit --after 1200 --xml > audit.xml")
def audit_trail(
    after: Annotated[
        int, typer.Option(min=0, max=MAX_NUMBER, help="Only events after this number")
    ] = 0,
    limit: Annotated[
        int, typer.Option(min=1, max=MAX_NUMBER, help="Maximum number of events")
    ] = 1000,
    xml: Annotated[
        bool, typer.Option("--xml", help="DICOM audit messages (PS3.15 A.5), one per line")
    ] = False,
    form: AsFormat = Format.TABLE,
) -> None:
    """Prints the audit trail, the oldest event first."""
    site = SiteContext.open(Settings.load())
    with site.database.reading() as session:
        lines = audit.lines_after(session, after, limit)
    record_visit(site, "audit.seen")
    if xml:
        for _, line in lines:
            typer.echo(audit_message(line, "lumbar-triage").replace(b"\n", b""))
        return
    records = [
        {
            "number": number,
            "happened_at": line.happened_at.isoformat(timespec="seconds"),
            "event": line.event,
            "actor": line.actor,
            "address": line.address,
            "outcome": line.outcome.label,
            "times": line.times,
            "study_instance_uid": line.study_instance_uid,
            "object": objects_of(line),
            "detail": json.dumps(line.detail),
        }
        for number, line in lines
    ]
    print_records(records, AUDIT_COLUMNS, form)


def _time(
    option: str, text: str, parse: Callable[[str, tzinfo | None], datetime], settings: Settings
) -> datetime | None:
    """The time that an option gives; None if it is not given.

    Raises:
        WrongSetting: the text is not a time.
    """
    try:
        return parse(text, settings.zone) if text else None
    except ValueError as error:
        raise WrongSetting(f"{option} is {text!r}; {error}") from error
