"""`lumbar quarantine`: what is kept but not used, and how an operator releases or drops it."""

from dataclasses import asdict, fields
from typing import Annotated

import typer

from commands.output import MAX_NUMBER, AsFormat, Format, print_records
from commands.users import by_command_line, record_view
from db import quarantine
from db.context import SiteContext
from lumbar.settings import Settings

app = typer.Typer(help="Instances that are kept but not used.", no_args_is_help=True)

InstanceId = Annotated[
    str, typer.Argument(metavar="ID", help="As `lumbar quarantine list` shows it")
]

COLUMNS = tuple(field.name for field in fields(quarantine.QuarantinedInstance))
SHOWN = (  # in a table, which has little room
    "id",
    "reason",
    "study_instance_uid",
    "patient_identifier",
    "patient_name",
    "accession_number",
    "source",
    "received_at",
)


@app.callback()
def _group() -> None:
    """Instances that are kept but not used."""


@app.command(
    "list", epilog="Example: lumbar quarantine list --study 1.2.840.113619.2.1 --format csv"
)
def list_(
    study: Annotated[
        str | None, typer.Option(metavar="UID", help="Only of this study (Study Instance UID)")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=MAX_NUMBER, help="Maximum number of instances")
    ] = None,
    form: AsFormat = Format.TABLE,
) -> None:
    """Lists what is quarantined, the newest first, with the reason and what it states."""
    site = SiteContext.open(Settings.load())
    record_view(site, "quarantine.seen")
    rows = quarantine.list_quarantined(site, study, limit)
    records = [
        asdict(row) | {"received_at": row.received_at.isoformat(timespec="seconds")} for row in rows
    ]
    print_records(records, SHOWN if form is Format.TABLE else COLUMNS, form)


@app.command(epilog="Example: lumbar quarantine release 17")
def release(instance: InstanceId) -> None:
    """Uses an instance after all, in place of the copy in use; its study is analysed again.

    A file that could not be registered is registered again. Refused where the instance states
    another patient than its study: `lumbar study correct` takes over the whole study.
    """
    quarantine.release(SiteContext.open(Settings.load()), instance, by_command_line())
    typer.echo("It is released.")


@app.command(epilog="Example: lumbar quarantine drop 17")
def drop(instance: InstanceId) -> None:
    """Deletes an instance, its file included, at once and permanently."""
    quarantine.drop(SiteContext.open(Settings.load()), instance, by_command_line())
    typer.echo("It is deleted.")
