"""The registrar: registers what has arrived, in every share of the store, oldest first.

Any number of them may run, on any host that has the store: a share is registered by one at a time,
and by another as soon as that one has died.
"""

from threading import Event

from db.context import SiteContext
from db.registration import BATCH, Registration
from lumbar.errors import Transient
from lumbar.log import get_logger

log = get_logger()

IDLE_S = 0.05  # between two looks at empty shares
RETRY_S = 1.0  # after a failure of the disk or the database


def run(site: SiteContext, stop: Event) -> None:
    """Registers until ``stop`` is set; a batch under way is finished."""
    failing = False
    while not stop.is_set():
        try:
            registered = register_batch(site)
            failing = False
        except Transient as error:
            if not failing:
                log.warning("registration.waits", why=str(error))
            failing = True
            stop.wait(RETRY_S)
        except Exception:  # the loop must survive any error of a round
            log.exception("registration.fault")
            stop.wait(RETRY_S)
        else:
            if not registered:
                stop.wait(IDLE_S)


def register_batch(site: SiteContext, min_age_s: float = 0) -> int:
    """Registers up to ``BATCH`` files of each share that no other process is registering.

    With ``min_age_s``, only files that have waited for so long. Returns how many.

    Raises:
        Transient: the disk or the database failed.
    """
    registered = 0
    for share in site.store.shares():
        with share.registering() as allowed:
            if allowed:
                files = [file for file in share.arrived() if file.age_s() >= min_age_s][:BATCH]
                if files:
                    Registration(site.database, site.store).register(files)
                registered += len(files)
        share.remove_if_dead()
    return registered
