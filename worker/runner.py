"""Runs one job under its lease: claimed, kept alive by heartbeats, released whatever happens."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from db import job_lifecycle, leases
from db.context import SiteContext
from db.job_lifecycle import C, Claim, Claimed, OnTemporary
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
    on_temporary: OnTemporary[C] = lambda session, claimed, error, backoff: job_lifecycle.release(
        session, claimed, str(error), backoff
    ),
    on_stuck: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGKILL),
) -> bool:
    """Claims the most urgent due job and does it; False when there was none.

    ``work`` ends the job itself, in the transaction that writes its results. If it raises, the job
    is attempted again later (Transient: ``on_temporary``, which says whether it was dead-lettered),
    dead-lettered (Permanent) or, after any other exception, which is a fault of ours, attempted
    again a few times. A job that exceeds ``job_limit_s`` is released, and ``on_stuck`` called: by
    default it ends the process, as nothing else ends a thread that hangs; its parent process
    starts a new one.
    """
    with site.database.transaction() as session:
        claimed = claim(session)
    if claimed is None:
        return False
    log.info("job.started", **claimed.log_fields, attempt=claimed.lease.attempts)
    with kept_alive(site, claimed, on_stuck):
        if _run(site, claimed, work, on_temporary):
            on_dead_letter(claimed)
    return True


def _run(
    site: SiteContext, claimed: C, work: Callable[[C], None], on_temporary: OnTemporary[C]
) -> bool:
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
            return on_temporary(session, claimed, error, policy.temporary)
    except Exception as error:  # no fault of ours may lose a study
        log.exception("job.fault", **claimed.log_fields)
        why = (
            f"an internal fault ({type(error).__name__}); see the log of job {claimed.lease.row_id}"
        )
        with site.database.transaction() as session:
            return job_lifecycle.release(session, claimed, why, policy.fault, fault=True)
    else:
        log.info("job.done", **claimed.log_fields)
    return False


@contextmanager
def kept_alive(site: SiteContext, claimed: Claimed, on_stuck: Callable[[], None]) -> Iterator[None]:
    """Extends the lease during the work, at most for ``job_limit_s``."""
    ended = Event()
    thread = Thread(target=_beat, args=(site, claimed, ended, on_stuck), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _beat(site: SiteContext, claimed: Claimed, ended: Event, on_stuck: Callable[[], None]) -> None:
    """Sends heartbeats until the work has ended or its time is up."""
    lease_s = site.lease_s(claimed.kind)
    deadline = time.monotonic() + site.settings.job_limit_s
    while (remaining_s := deadline - time.monotonic()) > 0:
        if ended.wait(min(remaining_s, lease_s / HEARTBEATS_PER_LEASE)):
            return
        try:
            with site.database.transaction() as session:
                leases.extend(session, claimed.lease, lease_s=lease_s)
        except Exception as error:  # noqa: BLE001 - the next heartbeat may succeed
            log.warning("lease.not_extended", **claimed.log_fields, error=type(error).__name__)
    _release_stuck(site, claimed)
    on_stuck()


def _release_stuck(site: SiteContext, claimed: Claimed) -> None:
    limit_s = site.settings.job_limit_s
    log.error("job.stuck", **claimed.log_fields, limit_s=limit_s)
    try:
        with site.database.transaction() as session:
            backoff = site.retry_policy(claimed.kind).fault
            why = f"it did not end within {limit_s:g} s"
            job_lifecycle.release(session, claimed, why, backoff, fault=True)
    # There are no more heartbeats; the lease then expires.
    except Exception as error:  # noqa: BLE001
        log.warning("job.not_released", **claimed.log_fields, error=type(error).__name__)
