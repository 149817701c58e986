"""The one loop that makes things happen: it completes studies, gives lost jobs to others and tells workers of due ones.

Receivers only write rows. Whatever is lost on the way, a message, a worker, this process, the next sweep finds the row.
"""

from threading import Event
from typing import Protocol

import structlog

from db import jobs, queries, results, studies
from db.site import Site
from db.tables import JobKind
from lumbar.errors import Transient

log = structlog.get_logger()


class Doorbell(Protocol):
    """Tells a worker that a job is due; the job itself stays in its row."""

    def ring(self, job_id: int, kind: JobKind) -> bool:
        """False when nobody can take a job of this kind now: a later sweep rings again."""
        ...


def sweep(site: Site, doorbell: Doorbell) -> None:
    """One round; each study and each job in a transaction of its own.

    Raises:
        Transient: the database or the broker is away; the next round may find it.
    """
    with site.database.reading() as session:
        quiet = studies.quiet_studies(session, site.quiet)
        lost = jobs.expired(session)
    for study_id in quiet:
        with site.database.transaction() as session:
            studies.complete(session, study_id, site.quiet)
    for claimed in lost:
        with site.database.transaction() as session:
            results.recover(session, claimed, most_losses=site.settings.worker_losses)
    for kind in JobKind:
        with site.database.reading() as session:
            due = jobs.due(session, kind, rering_s=site.settings.rering_s)
        for job_id in due:
            if not doorbell.ring(job_id, kind):
                break
            with site.database.transaction() as session:
                jobs.rung(session, job_id)


def run(site: Site, doorbell: Doorbell, stop: Event) -> None:
    """Sweeps until told to stop; first says what it found in flight."""
    with site.database.reading() as session:
        in_flight = {str(state): count for state, count in queries.studies_by_state(session).items()}
    log.info("sweep.started", **in_flight)
    while not stop.wait(site.settings.sweep_every_s):
        try:
            sweep(site, doorbell)
        except Transient as error:
            log.warning("sweep.skipped", why=str(error))
        except Exception as error:  # the loop outlives whatever one round meets
            log.error("sweep.fault", error=type(error).__name__, exc_info=True)
