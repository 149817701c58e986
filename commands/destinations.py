"""`lumbar destinations`: the systems that reports are sent to."""

import typer

from commands.output import console
from lumbar.errors import LumbarError, Permanent
from lumbar.peers import Destination, Peer
from lumbar.settings import Settings

app = typer.Typer(help="The systems that reports are sent to.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The systems that reports are sent to."""


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
