"""The one loop that makes things happen: it completes studies, gives lost jobs to others and tells workers of due ones.

Receivers only write rows. Whatever is lost on the way, a message, a worker, this process, the next sweep finds the row.
"""

from collections import Counter
from threading import Event
from typing import Protocol

import structlog

from db import job_lifecycle, jobs, previews, studies
from db.context import SiteContext
from db.models import JobKind
from db.read_models import statistics
from lumbar.errors import Transient
from worker import maintenance

log = structlog.get_logger()

MAX_WAITING = 100  # notifier messages of a kind; a worker is never told of more than it can do until the next sweep


class Notifier(Protocol):
    """Tells workers that there is work; the jobs themselves stay in their rows."""

    def notify(self, kind: JobKind, due: int) -> None:
        """Sees to it that as many workers are told of this kind as jobs are due, and no more."""
        ...


def sweep(site: SiteContext, notifier: Notifier) -> Counter[str]:
    """One round; each study and each job in a transaction of its own. Returns how much it found to do.

    Raises:
        Transient: the database or the broker is away; the next round may find it.
    """
    found: Counter[str] = Counter()
    with site.database.reading() as session:
        quiet = studies.quiet_studies(session, site.quiet)
        lost = jobs.expired(session)
        lost_previews = previews.expired(session)
    for study_id in quiet:
        with site.database.transaction() as session:
            found["studies_completed"] += studies.complete(session, study_id, site.quiet)
    for claimed in lost:
        with site.database.transaction() as session:
            found["jobs_recovered"] += job_lifecycle.recover(
                session, claimed, max_losses=site.settings.worker_losses
            )
    for upload in lost_previews:
        found["previews_recovered"] += previews.recover(site, upload)
    for kind in JobKind:
        due = _due(site, kind)
        notifier.notify(kind, due)
        found[f"jobs_due_{kind}"] = due
    return found


def _due(site: SiteContext, kind: JobKind) -> int:
    with site.database.reading() as session:
        if kind is JobKind.PREVIEW:
            return len(previews.due(session, MAX_WAITING))
        return len(jobs.due(session, kind, MAX_WAITING))


def run(site: SiteContext, notifier: Notifier, stop: Event) -> None:
    """Sweeps until told to stop; says what it found in flight, and what its first round made of it."""
    maintenance.start(site, stop)
    started = resumed = False
    while not stop.wait(site.settings.sweep_every_s):
        try:
            if not started:
                with site.database.reading() as session:
                    log.info("sweep.started", **_in_flight(statistics.in_flight(session)))
                started = True
            found = sweep(site, notifier)
            if not resumed:
                log.info("sweep.resumed", **found)
                resumed = True
        except Transient as error:
            log.warning("sweep.skipped", why=str(error))
        except Exception:  # the loop outlives whatever one round meets
            log.exception("sweep.fault")


def _in_flight(found: statistics.InFlight) -> dict[str, int]:
    return (
        {f"studies_{state}": count for state, count in found.studies.items()}
        | {f"jobs_{kind}_{state}": count for (kind, state), count in found.jobs.items()}
        | {"leases_expired": found.leases_expired}
    )
