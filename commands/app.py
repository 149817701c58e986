"""All commands in one application."""

from typing import Annotated

import typer

from commands.lazy import LazyGroup
from lumbar.spine.provenance import RESEARCH_USE_ONLY


class Lumbar(LazyGroup):
    """The commands of ``lumbar`` by what they are for."""

    sections = {  # noqa: RUF012 - a constant of the class
        "Studies and findings": {
            "worklist": ("query", "Lists the studies to be read, severe ones first."),
            "findings": ("query", "Lists the current findings of all studies."),
            "study": ("query", "Shows one study: state, findings, reports."),
            "study correct": ("query", "Takes a study over as newer copies of it state it."),
            "quarantine": ("quarantine", "Lists, releases and drops what is kept but not used."),
            "mark-read": ("query", "Marks a study as read, or as unread again."),
            "complete": ("query", "Analyses a study now, without waiting for further images."),
            "requeue": ("query", "Analyses a study again."),
            "export-labels": ("query", "Exports reviewed findings as labels for training."),
        },
        "Running the system": {
            "up": ("services", "Runs the whole system."),
            "scp": ("services", "Runs the DICOM receiver."),
            "register": ("services", "Writes the rows of received images; `scp` runs it."),
            "sweep": ("services", "Runs the sweep; without a broker it also does the jobs."),
            "deliver": ("services", "Sends the reports to the destinations."),
            "web": ("services", "Runs the web page and the REST API."),
            "worker": ("services", "Runs one Celery worker."),
            "status": ("status", "Shows studies, jobs, disk, destinations and weights."),
            "jobs": ("jobs", "Lists, retries and cancels jobs."),
            "destinations": ("destinations", "Tests where reports are sent."),
            "users": ("users", "Manages who may sign in."),
            "audit": ("query", "Prints the audit trail."),
            "db": ("database", "Upgrades the database schema."),
        },
        "Without a running system": {
            "analyse": ("analyse", "Reads one study from files; nothing is stored."),
            "classify": ("analyse", "Classifies one image."),
            "send": ("send", "Sends DICOM files by C-STORE."),
            "phantom": ("phantom", "Writes synthetic studies with known truth."),
            "demo": ("demo", "Runs the whole system on phantoms."),
        },
        "Training and evaluation": {
            "train": ("train", "Trains both classifiers, or the level locator."),
            "evaluate": ("train", "Measures a bundle or the level locator against labels."),
            "compare": ("train", "Compares candidates for the severity network."),
            "export": ("train", "Exports a bundle to Keras, HDF5, ONNX and TensorFlow Lite."),
        },
    }


app = typer.Typer(
    name="lumbar",
    cls=Lumbar,
    help="Reads lumbar-spine MR studies as they arrive and ranks severe ones first. "
    f"{RESEARCH_USE_ONLY}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(requested: bool) -> None:
    if requested:
        from commands.version import version_lines

        for line in version_lines():
            typer.echo(line)
        raise typer.Exit


@app.callback()
def _lumbar(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the version, the commit and the weights, and exit.",
        ),
    ] = False,
) -> None:
    pass
