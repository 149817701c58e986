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
        """False when nobody can take it now: it is rung again at a later sweep."""
        ...


def sweep(site: Site, doorbell: Doorbell) -> None:
    """One round.

    Raises:
        Transient: the database is away; the next round may find it.
    """
    settings = site.settings
    with site.database.transaction() as session:
        for study_id in studies.quiet_studies(
            session, quiet_s=settings.quiet_s, quiet_incomplete_s=settings.quiet_incomplete_s
        ):
            studies.complete(session, study_id)
        recovered = results.recover(session, site.backoffs)
    if recovered:
        log.warning("sweep.recovered", jobs=recovered)
    with site.database.reading() as session:
        due = jobs.due(session, rering_s=settings.rering_s)
    for job_id, kind in due:
        if doorbell.ring(job_id, kind):
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
