"""Maintenance beside the sweep: reconciles once; then every minute what goes by age or by the disk.

Operating time is counted, unread studies leave the worklist, retention removes images, and old
uploads are deleted; what fills the disk is measured, and the audit trail forwarded.
"""

from collections.abc import Callable
from threading import Event, Thread

from db import disk_usage, operating_time, previews
from db.audit import forward
from db.context import SiteContext
from db.expiry import expire_unread
from db.reconcile import reconcile
from db.retention import remove_images
from lumbar.errors import Transient
from lumbar.log import get_logger
from lumbar.store import reserve
from lumbar.syslog import Syslog
from lumbar.throttle import Throttle

log = get_logger()

INTERVAL_S = 60.0
MEASURED_EVERY_S, FULL_MEASURED_EVERY_S = 3600.0, 600.0  # what fills the disk; while it is full


def start(site: SiteContext, stop: Event) -> Thread:
    """Runs maintenance until ``stop`` is set."""
    thread = Thread(target=_run, args=(site, stop), name="maintenance", daemon=True)
    thread.start()
    return thread


def _run(site: SiteContext, stop: Event) -> None:
    reconciled = False
    syslog = Syslog(site.settings.syslog) if site.settings.syslog else None
    measured = Throttle(MEASURED_EVERY_S, 1), Throttle(FULL_MEASURED_EVERY_S, 1)
    while not stop.is_set():
        reserve.keep(site.settings.home)  # first: the others write to the database
        _succeeded(lambda: operating_time.count(site.database))
        if not reconciled:
            reconciled = _reconciled(site)
        _succeeded(lambda: expire_unread(site))
        if reconciled:
            _succeeded(lambda: remove_images(site))
        _succeeded(lambda: _watch_disk(site, *measured))
        _succeeded(lambda: previews.delete_expired(site))
        if syslog:
            _succeeded(lambda: forward(site.database, syslog))
        stop.wait(INTERVAL_S)


def _reconciled(site: SiteContext) -> bool:
    """Whether retention may begin; not while the database or the disk is unavailable.

    A fault of ours is not repeated: what lies in the store must not stop retention.
    """
    try:
        reconcile(site)
    except Transient as error:
        log.warning("maintenance.skipped", why=str(error))
        return False
    except Exception:
        log.exception("maintenance.fault")
    return True


def _watch_disk(site: SiteContext, hourly: Throttle, while_full: Throttle) -> None:
    full = site.store.fill_ratio() > site.settings.disk_remove_above
    if hourly.due(None) or (full and while_full.due(None)):
        try:
            disk_usage.measure(site)
        finally:  # said even where it cannot be kept: the database may lie on the full disk
            disk_usage.alert(site)
        hourly.record(None)
        while_full.record(None)
    else:
        disk_usage.alert(site)


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
