"""The one loop: completes studies, recovers lost workers' jobs, notifies workers of due ones.

It also registers what no registrar has registered for a while. Whatever is lost later, be it a
message, a worker or this process, the next sweep finds the row.
"""

from collections import Counter
from threading import Event
from typing import Protocol

from db import clock_corrections, job_lifecycle, previews, studies
from db.context import SiteContext
from db.database import DatabaseUnavailable
from db.job_lifecycle import Claimed
from db.models import JobKind
from db.previews import ClaimedPreview
from db.read_models import statistics
from db.registrar import Registrar
from db.types import read_clock
from lumbar.errors import Transient
from lumbar.log import get_logger
from worker import maintenance
from worker.clock_watch import ClockWatch

log = get_logger()

# per kind that wait in the broker; more than workers can do until the next sweep
MAX_NOTIFICATIONS = 100
# Lanes look for deliveries themselves (``worker.lanes``).
NOTIFIED_KINDS = (JobKind.ANALYSE, JobKind.PREVIEW)
UNREGISTERED_S = 10.0  # after that, images are registered here: no registrar is running


class Notifier(Protocol):
    """Notifies workers that there is work; the jobs themselves stay in their rows."""

    def notify(self, kind: JobKind, due: int) -> None:
        """Ensures that as many notifications of this kind wait as jobs are due, and no more."""
        ...


def sweep(
    site: SiteContext,
    notifier: Notifier,
    registrar: Registrar | None = None,
    watch: ClockWatch | None = None,
) -> Counter[str]:
    """One round; each study and each job in a transaction of its own.

    Returns the counts of what it did. While the clock has just been turned, no lease counts as run
    out until a living worker would have extended it, and no study as quiet until its sender would
    have gone on.

    Raises:
        Transient: the database, the broker or the store's disk is unavailable; the next round may
            succeed.
    """
    site.store.require_mounted()  # images may wait there, and no study completes before they do
    counts: Counter[str] = Counter()
    counts["images_registered"] = _register(registrar or Registrar(site))
    counts["times_corrected"] = clock_corrections.correct_times(site)
    with site.database.reading() as session:
        steady_s = watch.read(read_clock(session)) if watch else float("inf")
        quiet, lost = list[int](), list[Claimed]()
        if steady_s >= site.settings.quiet_incomplete_s:
            quiet = studies.quiet_studies(session, site.quiet)
        if steady_s >= site.settings.lease_s:
            lost = [*job_lifecycle.expired(session)]
    for study_id in quiet:
        arriving = site.store.arriving()
        with site.database.transaction() as session:
            completed = studies.complete(session, study_id, site.quiet, arriving)
        counts["studies_completed"] += completed
    for claimed in lost:
        counts["jobs_recovered"] += _recover(site, claimed)
    for kind in NOTIFIED_KINDS:
        with site.database.reading() as session:
            due = job_lifecycle.count_due(session, kind, MAX_NOTIFICATIONS)
        notifier.notify(kind, due)
        counts[f"jobs_due_{kind}"] = due
    return counts


def _register(registrar: Registrar) -> int:
    """Registers what nobody has registered; if that fails, all else goes on.

    Raises:
        DatabaseUnavailable: then nothing else can go on either.
    """
    try:
        return registrar.register_arrived(min_age_s=UNREGISTERED_S)
    except DatabaseUnavailable:
        raise
    except Transient as error:
        log.warning("registration.waits", why=str(error))
    except Exception:  # the files remain, and studies and jobs must not wait for them
        log.exception("registration.fault")
    return 0


def _recover(site: SiteContext, lost: Claimed) -> bool:
    max_losses = site.retry_policy(lost.kind).max_losses
    with site.database.transaction() as session:
        recovered = job_lifecycle.recover(session, lost, max_losses=max_losses)
    if recovered is job_lifecycle.Recovery.DEAD and isinstance(lost, ClaimedPreview):
        previews.remove_files(site, lost.name)
    return recovered is not None


def run(site: SiteContext, notifier: Notifier, stop: Event) -> None:
    """Sweeps until ``stop`` is set.

    Logs what was in flight at the start, and what the first round did about it.
    """
    maintenance.start(site, stop)
    registrar, watch = Registrar(site, stop), ClockWatch()
    started = resumed = False
    while not stop.wait(site.settings.sweep_every_s):
        try:
            if not started:
                with site.database.reading() as session:
                    log.info("sweep.started", **_in_flight(statistics.in_flight(session)))
                started = True
            counts = sweep(site, notifier, registrar, watch)
            if not resumed:
                log.info("sweep.resumed", **counts)
                resumed = True
        except Transient as error:
            log.warning("sweep.skipped", why=str(error))
        except Exception:  # the loop must survive any error of a round
            log.exception("sweep.fault")


def _in_flight(in_flight: statistics.InFlight) -> dict[str, int]:
    return (
        {f"studies_{state}": count for state, count in in_flight.studies.items()}
        | {f"jobs_{kind}_{state}": count for (kind, state), count in in_flight.jobs.items()}
        | {"leases_expired": in_flight.leases_expired}
    )
