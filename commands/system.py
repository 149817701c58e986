"""`lumbar up` and its parts: the receiver, the sweep and Celery's worker."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Annotated

import structlog
import typer

from db import schema
from db.session import Database
from db.site import Site
from lumbar import log as logging
from lumbar.errors import Permanent, WrongSetting
from lumbar.networks import CropReader
from lumbar.settings import Settings

app = typer.Typer()
log = structlog.get_logger()

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "commands")  # how `lumbar up` starts its parts

UntilEof = Annotated[
    bool, typer.Option("--until-eof", hidden=True, help="Stop when standard input closes: the parent is gone")
]


@app.command(epilog='Example: LUMBAR_PORT=11112 LUMBAR_DESTINATIONS=\'{"pacs": "dicom://PACS@pacs:104"}\' lumbar up')
def up() -> None:
    """Runs the whole system: database schema, receiver, sweep; with a broker set, a worker too."""
    settings = _start()
    schema.upgrade(Database.connect(settings.effective_database_url))
    parts = ["scp", "sweep", *(["worker"] if settings.broker_url else [])]
    children = [subprocess.Popen([*PROGRAM, part, "--until-eof"], stdin=subprocess.PIPE) for part in parts]
    stop = _on_signal()
    try:
        while not stop.wait(0.5):
            for part, child in zip(parts, children, strict=True):
                if child.poll() is not None:
                    raise Permanent(f"`lumbar {part}` ended with status {child.returncode}; its log above says why")
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
        for child in children:
            child.wait()


@app.command(epilog="Example: LUMBAR_HOST=0.0.0.0 LUMBAR_KNOWN_AES=MR1,MR2 lumbar scp")
def scp(until_eof: UntilEof = False) -> None:
    """Runs the DICOM receiver (C-ECHO, C-STORE)."""
    from scp.receiver import Receiver

    settings = _start()
    site = Site.open(settings)
    stop = _on_signal(until_eof)
    with Receiver(settings, site.database, site.store):
        stop.wait()


@app.command(epilog="Example: LUMBAR_BROKER_URL=redis://localhost:6379/0 lumbar sweep")
def sweep(until_eof: UntilEof = False) -> None:
    """Runs the sweep. Without a broker it also does the jobs; with one it rings for the workers."""
    from worker import sweep as sweeping

    settings = _start()
    site = Site.open(settings)
    stop = _on_signal(until_eof)
    if settings.broker_url:
        from worker.app import CeleryDoorbell, create_app

        sweeping.run(site, CeleryDoorbell(create_app(settings.broker_url)), stop)
        return
    from worker.local import LocalDoorbell
    from worker.tasks import tasks

    networks = load_networks(settings)
    networks()
    doorbell = LocalDoorbell(tasks(site, networks))
    sweeping.run(site, doorbell, stop)
    doorbell.close()


@app.command(epilog="Example: LUMBAR_BROKER_URL=redis://localhost:6379/0 lumbar worker --only deliver")
def worker(
    only: Annotated[str | None, typer.Option(help="Take only jobs of this kind: analyse or deliver")] = None,
    until_eof: UntilEof = False,
) -> None:
    """Runs one Celery worker; start one for each accelerator."""
    from db.tables import JobKind
    from worker.app import bind, create_app, run_worker
    from worker.tasks import tasks

    settings = _start()
    if not settings.broker_url:
        raise WrongSetting("`lumbar worker` needs LUMBAR_BROKER_URL; without a broker `lumbar sweep` does the jobs")
    if only not in (None, *JobKind):
        raise WrongSetting(f"--only is {only!r}; it can be analyse or deliver")
    kinds = [JobKind(only)] if only else list(JobKind)
    networks = load_networks(settings)
    if JobKind.ANALYSE in kinds:
        networks()
    celery = create_app(settings.broker_url)
    bind(celery, tasks(Site.open(settings), networks))
    if until_eof:
        _watch_stdin(lambda: os.kill(os.getpid(), signal.SIGTERM))
    run_worker(celery, kinds)


def load_networks(settings: Settings) -> Callable[[], CropReader]:
    """The networks of the configured bundle, loaded at the first call and resident from then on."""

    def networks() -> CropReader:
        from lumbar.networks.bundle import resident

        return resident(settings.bundle)

    return networks


def _start() -> Settings:
    settings = Settings.load()
    logging.configure(settings.log_format)
    return settings


def _on_signal(until_eof: bool = False) -> threading.Event:
    """Set by SIGTERM or SIGINT, and where asked for by the end of standard input."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if until_eof:
        _watch_stdin(stop.set)
    return stop


def _watch_stdin(ended: Callable[[], None]) -> None:
    def wait() -> None:
        while os.read(0, 1):
            pass
        ended()

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()
