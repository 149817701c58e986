"""`lumbar destinations`: the systems that reports are sent to."""

from dataclasses import asdict, fields
from typing import Any

import typer

from commands.output import AsFormat, Format, console, print_records
from db.context import SiteContext
from db.read_models import destinations
from lumbar.errors import LumbarError, Permanent
from lumbar.peers import Destination, Peer
from lumbar.settings import Settings

app = typer.Typer(help="The systems that reports are sent to.", no_args_is_help=True)

COLUMNS = tuple(field.name for field in fields(destinations.DestinationRow))


@app.callback()
def _group() -> None:
    """The systems that reports are sent to."""


@app.command("list", epilog="Example: lumbar destinations list --format json")
def list_(form: AsFormat = Format.TABLE) -> None:
    """Lists the destinations: what waits for each, since when it is held, and why."""
    settings = Settings.load()
    site = SiteContext.open(settings)
    with site.database.reading() as session:
        rows = destinations.destinations(session, settings.destinations)
    print_records(list(map(_record, rows)), COLUMNS, form)


def _record(row: destinations.DestinationRow) -> dict[str, Any]:
    """A row as programs get it: seconds rounded, times as ISO 8601."""
    record = asdict(row) | {"oldest_s": round(row.oldest_s)}
    for name in ("held_since", "next_probe"):
        if record[name] is not None:
            record[name] = record[name].isoformat(timespec="seconds")
    return record


@app.command(
    epilog='Example: LUMBAR_DESTINATIONS=\'{"pacs": "dicom://PACS@pacs:104"}\' '
    "lumbar destinations test"
)
def test() -> None:
    """Tests the connection to every destination: by C-ECHO, or by a DICOMweb query.

    States whether it can be asked what it holds, so that reports are read back.
    """
    settings = Settings.load()
    if not settings.destinations:
        raise Permanent(
            "no destination is set; set LUMBAR_DESTINATIONS or [destinations] in lumbar.toml"
        )
    failed = 0
    for name in sorted(settings.destinations):
        try:
            console().print(f"{name}: {_tested(settings.destination(name))}")
        except LumbarError as error:
            failed += 1
            console().print(f"{name}: {error}")
    if failed:
        raise Permanent(f"{failed} of {len(settings.destinations)} destinations failed the test")


def _tested(destination: Destination) -> str:
    """What the test found, in one line.

    Raises:
        LumbarError: the destination does not answer.
    """
    with Peer(destination, timeout_s=10, limit_s=30) as peer:
        peer.test()
        if peer.answers_queries():
            return "answers, and says what it holds"
        return "answers, but cannot be asked what it holds"
