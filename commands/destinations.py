"""`lumbar destinations`: where reports go."""

import typer

from commands.output import console
from lumbar import peers
from lumbar.errors import LumbarError, Permanent
from lumbar.settings import Settings

app = typer.Typer(help="Where reports go.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Where reports go."""


@app.command(
    epilog='Example: LUMBAR_DESTINATIONS=\'{"pacs": "dicom://PACS@pacs:104"}\' lumbar destinations test'
)
def test() -> None:
    """Asks every destination whether it is there: by C-ECHO, or by its DICOMweb root."""
    settings = Settings.load()
    if not settings.destinations:
        raise Permanent(
            "no destination is set; set LUMBAR_DESTINATIONS or [destinations] in lumbar.toml"
        )
    away = 0
    for name in sorted(settings.destinations):
        try:
            peers.test(settings.destination(name))
            console().print(f"{name}: answers")
        except LumbarError as error:
            away += 1
            console().print(f"{name}: {error}")
    if away:
        raise Permanent(
            f"{away} of {len(settings.destinations)} destinations do not answer as they should"
        )
