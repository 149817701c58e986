"""Doing a job under its lease: claimed, kept alive, and given back whatever happens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import structlog

from db import jobs, results
from db.jobs import Backoff, Claimed
from db.site import Site
from lumbar.errors import Permanent, Transient

log = structlog.get_logger()

BEATS_PER_LEASE = 4


def perform(site: Site, job_id: int, work: Callable[[Claimed], None]) -> None:
    """Claims a job and does it. Returns quietly when another worker has it or a later revision overtook it.

    ``work`` ends the job itself, in the transaction that writes its results. What it raises decides the rest:
    Transient → tried again later; Permanent → given up; anything else is our own fault → tried again, a few times.
    """
    with site.database.transaction() as session:
        claimed = results.claim(session, job_id, lease_s=site.settings.lease_s)
    if claimed is None:
        return
    ids = {"job": job_id, "study": claimed.study_id, "kind": str(claimed.kind), "attempt": claimed.attempts}
    log.info("job.started", **ids)
    with _kept_alive(site, claimed):
        try:
            work(claimed)
            log.info("job.done", **ids)
        except results.LeaseLostError:
            log.info("job.overtaken", **ids)
        except Permanent as error:
            with site.database.transaction() as session:
                results.bury(session, claimed, str(error))
        except Transient as error:
            _give_back(site, claimed, str(error), site.passing)
        except Exception as error:  # the one place where no fault of ours may lose a study
            log.exception("job.fault", **ids)
            error_named = f"an internal fault ({type(error).__name__}); see the log of job {job_id}"
            _give_back(site, claimed, error_named, site.fault)


def _give_back(site: Site, claimed: Claimed, error: str, backoff: Backoff) -> None:
    with site.database.transaction() as session:
        results.release(session, claimed, error, backoff)


@contextmanager
def _kept_alive(site: Site, claimed: Claimed) -> Iterator[None]:
    """Extends the lease while the work goes on; a worker that is killed stops doing so."""
    ended = Event()

    def beat() -> None:
        while not ended.wait(site.settings.lease_s / BEATS_PER_LEASE):
            try:
                with site.database.transaction() as session:
                    if not jobs.heartbeat(session, claimed, lease_s=site.settings.lease_s):
                        return
            except Exception as error:  # noqa: BLE001 - the next beat may get through, whatever this one met
                log.warning("lease.not_extended", job=claimed.job_id, error=type(error).__name__)

    thread = Thread(target=beat, name=f"lease-{claimed.job_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
