"""Maintenance beside the sweep: reconciles once; then retention, old uploads, audit forwarding."""

from collections.abc import Callable
from threading import Event, Thread

from db import previews
from db.audit import forward
from db.context import SiteContext
from db.reconcile import reconcile
from db.retention import remove_images
from lumbar.errors import Transient
from lumbar.log import get_logger
from lumbar.syslog import Syslog

log = get_logger()

INTERVAL_S = 60.0


def start(site: SiteContext, stop: Event) -> Thread:
    """Runs maintenance until ``stop`` is set."""
    thread = Thread(target=_run, args=(site, stop), name="maintenance", daemon=True)
    thread.start()
    return thread


def _run(site: SiteContext, stop: Event) -> None:
    reconciled = False
    syslog = Syslog(site.settings.syslog) if site.settings.syslog else None
    while not stop.is_set():
        if not reconciled:
            reconciled = _succeeded(lambda: reconcile(site))
        if reconciled:
            _succeeded(lambda: remove_images(site))
        _succeeded(lambda: previews.delete_expired(site))
        if syslog:
            _succeeded(lambda: forward(site.database, syslog))
        stop.wait(INTERVAL_S)


def _succeeded(work: Callable[[], object]) -> bool:
    """Whether it succeeded; otherwise it is attempted again after the interval."""
    try:
        work()
    except Transient as error:
        log.warning("maintenance.skipped", why=str(error))
    except Exception:  # the sweep's process must survive any error
        log.exception("maintenance.fault")
    else:
        return True
    return False
