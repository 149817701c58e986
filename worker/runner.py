"""Doing a job under its lease: claimed, kept alive, and given back whatever happens."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

import structlog

from db import job_lifecycle, jobs
from db.context import SiteContext
from db.jobs import Backoff, Claimed
from db.models import JobKind
from lumbar.errors import Permanent, Transient
from lumbar.settings import Settings

log = structlog.get_logger()

BEATS_PER_LEASE = 4


@dataclass(frozen=True)
class Held:
    """Work under a lease: what the log calls it, what extends the lease, and what gives it back as a failed try."""

    ids: dict[str, object]
    extend: Callable[[], object]
    give_back: Callable[[str], object]


def perform(site: SiteContext, kind: JobKind, work: Callable[[Claimed], None]) -> bool:
    """Claims the most urgent due job of a kind and does it; False when there was none.

    ``work`` ends the job itself, in the transaction that writes its results. What it raises decides the rest:
    Transient → tried again later; Permanent → given up; anything else is our own fault → tried again, a few times.
    """
    with site.database.transaction() as session:
        claimed = job_lifecycle.claim(session, kind, lease_s=site.settings.lease_s)
    if claimed is None:
        return False
    ids = _ids(claimed)
    log.info("job.started", **ids)
    held = Held(
        ids,
        lambda: _extend(site, claimed),
        lambda why: _give_back(site, claimed, why, site.fault_backoff),
    )
    with kept_alive(site.settings, held):
        try:
            work(claimed)
            log.info("job.done", **ids)
        except job_lifecycle.LeaseLostError:
            log.info("job.overtaken", **ids)
        except Permanent as error:
            with site.database.transaction() as session:
                job_lifecycle.bury(session, claimed, str(error))
        except Transient as error:
            _give_back(site, claimed, str(error), site.transient_backoff)
        except Exception as error:  # the one place where no fault of ours may lose a study
            log.exception("job.fault", **ids)
            error_named = (
                f"an internal fault ({type(error).__name__}); see the log of job {claimed.job_id}"
            )
            _give_back(site, claimed, error_named, site.fault_backoff)
    return True


def _ids(claimed: Claimed) -> dict[str, object]:
    return {
        "job": claimed.job_id,
        "study": claimed.study_id,
        "kind": str(claimed.kind),
        "attempt": claimed.attempts,
    }


def _give_back(site: SiteContext, claimed: Claimed, error: str, backoff: Backoff) -> None:
    with site.database.transaction() as session:
        job_lifecycle.release(session, claimed, error, backoff)


def _extend(site: SiteContext, claimed: Claimed) -> None:
    with site.database.transaction() as session:
        jobs.heartbeat(session, claimed, lease_s=site.settings.lease_s)


@contextmanager
def kept_alive(settings: Settings, held: Held) -> Iterator[None]:
    """Extends the lease while the work goes on; a worker that is killed stops doing so, and one that is stuck ends."""
    ended = Event()
    thread = Thread(target=_watch, args=(settings, held, ended), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(settings: Settings, held: Held, ended: Event) -> None:
    """Beats until the work has ended or its time is up."""
    until = time.monotonic() + settings.job_limit_s
    while (left_s := until - time.monotonic()) > 0:
        if ended.wait(min(left_s, settings.lease_s / BEATS_PER_LEASE)):
            return
        try:
            held.extend()
        except Exception as error:  # noqa: BLE001 - the next beat may get through, whatever this one met
            log.warning("lease.not_extended", **held.ids, error=type(error).__name__)
    _end_stuck(settings, held)


def _end_stuck(settings: Settings, held: Held) -> None:
    """Gives the job back and kills this process: nothing else ends a thread that hangs. Its parent starts another."""
    log.error("job.stuck", **held.ids, limit_s=settings.job_limit_s)
    try:
        held.give_back(f"it did not end within {settings.job_limit_s:g} s")
    except Exception as error:  # noqa: BLE001 - the process ends in any case, and then the lease runs out
        log.warning("job.not_given_back", **held.ids, error=type(error).__name__)
    os.kill(os.getpid(), signal.SIGKILL)
