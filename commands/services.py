"""`lumbar up` and the services it runs: the receiver, the sweep, the page and the Celery worker."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from commands.schema_upgrade import SchemaUpgrade
from commands.stopping import on_stop
from commands.supervisor import Supervisor
from db.context import SiteContext
from db.database import Database, DatabaseUnavailable
from db.schema import SchemaOutdated
from lumbar import log as logging
from lumbar.errors import Transient, WrongSetting
from lumbar.log import get_logger
from lumbar.networks import Networks, load
from lumbar.settings import Settings
from lumbar.store.folders import looser_than_private
from lumbar.store.temporary import use_home

app = typer.Typer()
log = get_logger()

TICK_S = 0.2  # between two looks at the services
RECONNECT_S = 1.0  # between two attempts to reach an unavailable database
REGISTER_NICE = 10  # an image's rows may wait; the answer to its sender may not
PRIVATE = 0o077  # the umask: images, database and their folders are their owner's alone

UntilEof = Annotated[
    bool,
    typer.Option(
        "--until-eof", hidden=True, help="Stop when standard input closes: the parent has ended"
    ),
]


@app.command(
    epilog="Example: "
    'LUMBAR_PORT=11112 LUMBAR_DESTINATIONS=\'{"pacs": "dicom://PACS@pacs:104"}\' lumbar up'
)
def up(until_eof: UntilEof = False) -> None:
    """Upgrades the schema and runs receiver, sweep and page; with a broker, a worker too."""
    settings = _start()
    stop = on_stop(until_eof)
    upgrade = SchemaUpgrade(Database.connect(settings.effective_database_url), stop)
    others = [
        "sweep",
        "deliver",
        *(["web"] if settings.web else []),
        *(["worker"] if settings.broker_url else []),
    ]
    with Supervisor() as services:
        services.start("scp", essential=True)
        upgrade.start()
        while not stop.wait(TICK_S):
            services.keep_running()
            if others and upgrade.done():
                for name in others:
                    services.start(name)
                others.clear()


@app.command(epilog="Example: LUMBAR_HOST=0.0.0.0 LUMBAR_KNOWN_AES=MR1,MR2 lumbar scp")
def scp(until_eof: UntilEof = False) -> None:
    """Runs the DICOM receiver (C-ECHO, C-STORE), and `lumbar register` beside it."""
    from scp.receiver import Receiver

    settings = _start()
    stop = on_stop(until_eof)
    site = SiteContext.unchecked(settings)
    with Supervisor() as services:
        _prepare_store(site, stop)
        _report_loose_permissions(settings.home)
        with Receiver(settings, site.database, site.store):
            services.start("register")
            while not stop.wait(TICK_S):
                services.keep_running()


@app.command(epilog="Example: lumbar register --quarantined")
def register(
    quarantined: Annotated[
        bool,
        typer.Option("--quarantined", help="Try once more what could not be registered, then stop"),
    ] = False,
    until_eof: UntilEof = False,
) -> None:
    """Writes the rows of the images that have arrived; `lumbar scp` runs it."""
    from db.registrar import Registrar

    settings = _start()
    if quarantined:
        site = _site(settings, threading.Event())
        count = site.store.retry_quarantined()
        registered = Registrar(site).register_arrived() - site.store.quarantined()
        typer.echo(f"{registered} of {count} files registered.")
        return
    stop = on_stop(until_eof)
    os.nice(REGISTER_NICE)
    Registrar(_site(settings, stop), stop).run()


@app.command(epilog="Example: LUMBAR_BROKER_URL=redis://localhost:6379/0 lumbar sweep")
def sweep(until_eof: UntilEof = False) -> None:
    """Runs the sweep: without a broker it also does the jobs; with one it notifies the workers."""
    from worker import sweep as sweeping

    settings = _start()
    stop = on_stop(until_eof)
    site = _site(settings, stop)
    if settings.broker_url:
        from worker.celery_app import CeleryNotifier, create_app

        sweeping.run(site, CeleryNotifier(create_app(settings)), stop)
        return
    from worker.inline import InlineNotifier
    from worker.tasks import tasks

    networks = load_networks(settings)
    networks()
    notifier = InlineNotifier(tasks(site, networks))
    sweeping.run(site, notifier, stop)
    notifier.close()


@app.command(
    epilog='Example: LUMBAR_DESTINATIONS=\'{"pacs": "dicom://PACS@pacs:104"}\' lumbar deliver'
)
def deliver(until_eof: UntilEof = False) -> None:
    """Sends the reports to the destinations, each of which has a lane of its own."""
    from worker import lanes

    settings = _start()
    stop = on_stop(until_eof)
    lanes.run(_site(settings, stop), stop)


@app.command(epilog="Example: LUMBAR_WEB_PORT=8080 lumbar web")
def web(until_eof: UntilEof = False) -> None:
    """Runs the page and the REST API."""
    from web.server import serve

    settings = _start()
    stop = on_stop(until_eof)
    serve(_site(settings, stop), stop)


@app.command(epilog="Example: LUMBAR_BROKER_URL=redis://localhost:6379/0 lumbar worker")
def worker(until_eof: UntilEof = False) -> None:
    """Runs one Celery worker, which analyses studies and uploads; start one per accelerator."""
    from worker.celery_app import bind, create_app, run_worker
    from worker.tasks import tasks

    settings = _start()
    if not settings.broker_url:
        raise WrongSetting(
            "`lumbar worker` needs LUMBAR_BROKER_URL; without a broker `lumbar sweep` analyses"
        )
    stop = on_stop(until_eof)
    networks = load_networks(settings)
    networks()
    celery = create_app(settings)
    bind(celery, tasks(_site(settings, stop), networks))
    run_worker(celery, stop)


def load_networks(settings: Settings) -> Callable[[], Networks]:
    """The networks of the configured bundle; loaded on the first call, then resident."""

    return lambda: load(settings.bundle)


def _start() -> Settings:
    os.umask(PRIVATE)
    settings = Settings.load()
    logging.configure(settings.log_format)
    use_home(settings.home)
    return settings


def _site(settings: Settings, stop: threading.Event) -> SiteContext:
    """The site, once its database answers and has been upgraded.

    Raises:
        Transient: the service was stopped while waiting.
        Permanent: as ``SiteContext.open``.
    """
    while True:
        try:
            site = SiteContext.open(settings)
        except (DatabaseUnavailable, SchemaOutdated) as error:
            log.warning("database.awaited", why=str(error))
            if stop.wait(RECONNECT_S):
                raise
        else:
            _prepare_store(site, stop)
            return site


def _prepare_store(site: SiteContext, stop: threading.Event) -> None:
    """Waits until the store is there: its disk may be mounted later than the service starts.

    Raises:
        Transient: the service was stopped while waiting.
    """
    while True:
        try:
            return site.prepare_store()
        except Transient as error:
            log.warning("store.awaited", why=str(error))
            if stop.wait(RECONNECT_S):
                raise


def _report_loose_permissions(home: Path) -> None:
    """Logs what others may read or write: it was made by hand, or by an earlier version."""
    for loose in looser_than_private([home, *home.glob("*"), *home.glob("store/*")]):
        log.warning("permissions.loose", path=loose, remedy="chmod go= it, or chmod -R go= home")
