"""Runs one job under its lease: claimed, kept alive by heartbeats, released whatever happens."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from db import job_lifecycle, leases
from db.context import SiteContext
from db.job_lifecycle import C, Claim, Claimed
from db.leases import LeaseLostError
from lumbar.errors import Permanent, Transient
from lumbar.log import get_logger

log = get_logger()

HEARTBEATS_PER_LEASE = 4


def perform(
    site: SiteContext,
    claim: Claim[C],
    work: Callable[[C], None],
    on_dead_letter: Callable[[C], None] = lambda claimed: None,
) -> bool:
    """Claims the most urgent due job and does it; False when there was none.

    ``work`` ends the job itself, in the transaction that writes its results. If it raises, the job
    is attempted again later (Transient), dead-lettered (Permanent) or, after any other exception,
    which is a fault of ours, attempted again a few times.
    """
    with site.database.transaction() as session:
        claimed = claim(session)
    if claimed is None:
        return False
    log.info("job.started", **claimed.log_fields, attempt=claimed.lease.attempts)
    with kept_alive(site, claimed):
        if _run(site, claimed, work):
            on_dead_letter(claimed)
    return True


def _run(site: SiteContext, claimed: C, work: Callable[[C], None]) -> bool:
    """Does the work; returns whether the job ended as a dead letter."""
    policy = site.retry_policy(claimed.kind)
    try:
        work(claimed)
    except LeaseLostError:
        log.info("job.lease_lost", **claimed.log_fields)
    except Permanent as error:
        with site.database.transaction() as session:
            return job_lifecycle.dead_letter(session, claimed, str(error))
    except Transient as error:
        with site.database.transaction() as session:
            return job_lifecycle.release(session, claimed, str(error), policy.temporary)
    except Exception as error:  # no fault of ours may lose a study
        log.exception("job.fault", **claimed.log_fields)
        why = (
            f"an internal fault ({type(error).__name__}); see the log of job {claimed.lease.row_id}"
        )
        with site.database.transaction() as session:
            return job_lifecycle.release(session, claimed, why, policy.fault)
    else:
        log.info("job.done", **claimed.log_fields)
    return False


@contextmanager
def kept_alive(site: SiteContext, claimed: Claimed) -> Iterator[None]:
    """Extends the lease during the work.

    A worker that is killed stops doing so; one that exceeds ``job_limit_s`` is killed.
    """
    ended = Event()
    thread = Thread(target=_beat, args=(site, claimed, ended), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _beat(site: SiteContext, claimed: Claimed, ended: Event) -> None:
    """Sends heartbeats until the work has ended or its time is up."""
    settings = site.settings
    deadline = time.monotonic() + settings.job_limit_s
    while (remaining_s := deadline - time.monotonic()) > 0:
        if ended.wait(min(remaining_s, settings.lease_s / HEARTBEATS_PER_LEASE)):
            return
        try:
            with site.database.transaction() as session:
                leases.extend(session, claimed.lease, lease_s=settings.lease_s)
        except Exception as error:  # noqa: BLE001 - the next heartbeat may succeed
            log.warning("lease.not_extended", **claimed.log_fields, error=type(error).__name__)
    _end_stuck(site, claimed)


def _end_stuck(site: SiteContext, claimed: Claimed) -> None:
    """Releases the job and kills this process: nothing else ends a thread that hangs.

    Its parent process starts a new one.
    """
    limit_s = site.settings.job_limit_s
    log.error("job.stuck", **claimed.log_fields, limit_s=limit_s)
    try:
        with site.database.transaction() as session:
            backoff = site.retry_policy(claimed.kind).fault
            job_lifecycle.release(session, claimed, f"it did not end within {limit_s:g} s", backoff)
    # The process ends in any case; the lease then expires.
    except Exception as error:  # noqa: BLE001
        log.warning("job.not_released", **claimed.log_fields, error=type(error).__name__)
    os.kill(os.getpid(), signal.SIGKILL)
