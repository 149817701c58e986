"""Beside the sweep, in a thread of its own: files and rows held against each other once; old images and uploads; audit
messages.
"""

from collections.abc import Callable
from threading import Event, Thread

import structlog

from db import previews
from db.audit import forward
from db.context import SiteContext
from db.reconcile import reconcile
from db.retention import remove_images
from lumbar.audit_messages import Syslog
from lumbar.errors import Transient

log = structlog.get_logger()

EVERY_S = 60.0


def start(site: SiteContext, stop: Event) -> Thread:
    """Keeps house until told to stop."""
    thread = Thread(target=_run, args=(site, stop), name="housekeeping", daemon=True)
    thread.start()
    return thread


def _run(site: SiteContext, stop: Event) -> None:
    reconciled = False
    syslog = Syslog(site.settings.syslog) if site.settings.syslog else None
    while not stop.is_set():
        if not reconciled:
            reconciled = _done(lambda: reconcile(site))
        if reconciled:
            _done(lambda: remove_images(site))
        _done(lambda: previews.tidy(site))
        if syslog:
            _done(lambda: forward(site.database, syslog))
        stop.wait(EVERY_S)


def _done(work: Callable[[], object]) -> bool:
    """Whether it ended well; else it is tried again the next time."""
    try:
        work()
    except Transient as error:
        log.warning("housekeeping.skipped", why=str(error))
    except Exception:  # the sweep's process outlives whatever is met here
        log.exception("housekeeping.fault")
    else:
        return True
    return False
