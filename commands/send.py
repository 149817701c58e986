"""`lumbar send`: sends DICOM files by C-STORE."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from lumbar.errors import Permanent, WrongSetting
from lumbar.peers.destinations import DimseDestination, parse_destination
from lumbar.settings import Settings

app = typer.Typer()


@app.command(epilog="Example: lumbar send study/ --to dicom://LUMBAR@127.0.0.1:11112")
def send(
    path: Annotated[Path, typer.Argument(exists=True, help="A DICOM file, or a folder of them")],
    to: Annotated[
        str, typer.Option(help="A destination's name from the settings, or dicom://AE@host:port")
    ],
) -> None:
    """Sends DICOM files as they are, over one association."""
    from lumbar.peers.dimse import send_files

    destination = parse_destination(to, to) if "://" in to else Settings.load().destination(to)
    if not isinstance(destination, DimseDestination):
        raise WrongSetting(
            f"{to} is a DICOMweb destination; `lumbar send` sends by C-STORE, to dicom://AE@host:port"
        )
    files = _files(path)
    with Progress(transient=True) as progress:
        bar = progress.add_task("Sending", total=len(files))
        failed = send_files(destination, files, advance=lambda: progress.advance(bar))
    for file in failed:
        typer.echo(f"{file.path}: {file.reason}", err=True)
    typer.echo(f"{len(files) - len(failed)} of {len(files)} files sent.")
    if failed:
        raise Permanent(f"{len(failed)} files were not sent; the reasons are shown above")


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())
