"""`lumbar jobs`: what is pending, running or dead, and how an operator retries or cancels it."""

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Annotated

import typer

from commands.output import MAX_NUMBER, AsFormat, Format, print_records
from commands.users import by_command_line, record_visit
from db import destination_actions, operator_actions
from db.context import SiteContext
from db.models import OPEN_JOB_STATES, JobKind, JobState
from lumbar.errors import Permanent
from lumbar.settings import Settings

app = typer.Typer(help="The jobs: analyses and deliveries.", no_args_is_help=True)

JOB_HELP = "The job's number, as `lumbar jobs list` shows it"
OneJob = Annotated[
    int | None,
    typer.Argument(metavar="ID", help=JOB_HELP, min=1, max=MAX_NUMBER, show_default=False),
]
OfDestination = Annotated[str | None, typer.Option(help="With --all: the destination")]
All = Annotated[bool, typer.Option("--all", help="Every job of the destination, waiting or dead")]

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
    record_visit(site, "jobs.seen")
    with site.database.reading() as session:
        rows = operator_actions.list_jobs(
            session, states=state or OPEN_JOB_STATES, kinds=kind or ()
        )
    records = [
        asdict(row) | {"run_after": row.run_after.isoformat(timespec="seconds")} for row in rows
    ]
    print_records(records, COLUMNS, form)


@app.command(epilog="Example: lumbar jobs retry --destination pacs --all")
def retry(job: OneJob = None, destination: OfDestination = None, all_: All = False) -> None:
    """Makes a pending job due now, or retries a dead one; or does so with all of a destination.

    A dead analysis is retried as its study's next revision.
    """
    count = _act(
        operator_actions.retry, destination_actions.retry_all, job, destination, every=all_
    )
    typer.echo("The job is due now." if count is None else f"{count} jobs are due now.")


@app.command(epilog="Example: lumbar jobs reroute --destination oldpacs --to pacs")
def reroute(
    destination: Annotated[str, typer.Option(help="Where the jobs go now")],
    to: Annotated[str, typer.Option(help="The destination that gets them instead")],
) -> None:
    """Sends what waits for a destination, or is dead, to another one.

    For a destination that was renamed or replaced: its jobs wait until it is in the settings.
    """
    settings = Settings.load()
    settings.destination(to)
    site = SiteContext.open(settings)
    with site.database.transaction() as session:
        count = destination_actions.reroute(session, destination, to, by_command_line())
    typer.echo(f"{count} jobs go to {to} now.")


@app.command(epilog="Example: lumbar jobs cancel 17")
def cancel(job: OneJob = None, destination: OfDestination = None, all_: All = False) -> None:
    """Cancels a pending or running job, or a dead delivery; or all that wait for a destination.

    The study of a cancelled analysis has failed; `lumbar requeue` analyses it again. Cancel all of
    a destination that is gone for ever: as long as reports wait, their studies' images stay.
    """
    count = _act(
        operator_actions.cancel, destination_actions.cancel_all, job, destination, every=all_
    )
    typer.echo("The job is cancelled." if count is None else f"{count} jobs are cancelled.")


def _act(
    on_job: Callable[..., None],
    on_destination: Callable[..., int],
    job: int | None,
    destination: str | None,
    *,
    every: bool,
) -> int | None:
    """Acts on one job (None), or on all of a destination: how many these are.

    Raises:
        Permanent: it is neither.
    """
    if (job is None) != every or (destination is None) == every:
        raise Permanent("give either the job's number, or --destination NAME --all")
    site = SiteContext.open(Settings.load())
    with site.database.transaction() as session:
        if destination is not None:
            return on_destination(session, destination, by_command_line())
        if job is not None:
            on_job(session, job, by_command_line())
    return None
