"""`lumbar jobs`: what is pending, running or dead, and how an operator retries or cancels it."""

from dataclasses import asdict, fields
from typing import Annotated

import typer

from commands.output import MAX_NUMBER, AsFormat, Format, print_records
from commands.users import by_command_line
from db import operator_actions
from db.context import SiteContext
from db.models import OPEN_JOB_STATES, JobKind, JobState
from lumbar.settings import Settings

app = typer.Typer(help="The jobs: analyses and deliveries.", no_args_is_help=True)

JobId = Annotated[
    int,
    typer.Argument(
        metavar="ID", help="The job's number, as `lumbar jobs list` shows it", min=1, max=MAX_NUMBER
    ),
]

COLUMNS = tuple(field.name for field in fields(operator_actions.JobRow))


@app.callback()
def _group() -> None:
    """The jobs: analyses and deliveries."""


@app.command("list", epilog="Example: lumbar jobs list --state dead --kind deliver --format csv")
def list_(
    state: Annotated[
        list[JobState] | None,
        typer.Option(help="Only this state; may be repeated [pending, running and dead]"),
    ] = None,
    kind: Annotated[
        list[JobKind] | None, typer.Option(help="Only this kind; may be repeated")
    ] = None,
    form: AsFormat = Format.TABLE,
) -> None:
    """Lists the jobs in the order of claiming: the most urgent first, then the oldest."""
    site = SiteContext.open(Settings.load())
    with site.database.reading() as session:
        rows = operator_actions.list_jobs(
            session, states=state or OPEN_JOB_STATES, kinds=kind or ()
        )
    records = [
        asdict(row) | {"run_after": row.run_after.isoformat(timespec="seconds")} for row in rows
    ]
    print_records(records, COLUMNS, form)


@app.command(epilog="Example: lumbar jobs retry 17")
def retry(job: JobId) -> None:
    """Makes a pending job due now, or retries a dead one.

    A dead analysis is retried as its study's next revision.
    """
    site = SiteContext.open(Settings.load())
    with site.database.transaction() as session:
        operator_actions.retry(session, job, by_command_line())
    typer.echo("The job is due now.")


@app.command(epilog="Example: lumbar jobs cancel 17")
def cancel(job: JobId) -> None:
    """Cancels a pending or running job.

    The study of a cancelled analysis has failed; `lumbar requeue` analyses it again.
    """
    site = SiteContext.open(Settings.load())
    with site.database.transaction() as session:
        operator_actions.cancel(session, job, by_command_line())
    typer.echo("The job is cancelled.")
