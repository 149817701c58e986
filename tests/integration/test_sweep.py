"""What the sweep logs at the start: what was in flight, and what its first round resumed."""

from threading import Event

from sqlalchemy import update
from structlog.testing import capture_logs

from db import job_lifecycle, jobs, studies
from db.ingest import ingest
from db.models import Job, JobKind
from tests.factories.instances import ROOT, arrival, make_slice
from worker import sweep


class OneRound:
    """A notifier that ends the sweep once it was notified of every kind."""

    def __init__(self):
        self.stop = Event()
        self.notified = {}

    def notify(self, kind, due):
        self.notified[kind] = due
        if len(self.notified) == len(sweep.NOTIFIED_KINDS):
            self.stop.set()


def test_a_start_logs_what_was_in_flight_and_what_it_resumed(site, monkeypatch):
    monkeypatch.setattr(
        sweep.maintenance, "start", lambda *_: None
    )  # a thread beside the sweep, tested by itself
    for number in (1, 2, 3):
        ingest(site.database, site.store, arrival(make_slice(study=number)))
    for number in (1, 2):
        with site.database.transaction() as session:
            studies.complete(session, studies.find(session, f"{ROOT}.{number}").id)
    with site.database.transaction() as session:
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)
        session.execute(
            update(Job)
            .where(Job.id == claimed.lease.row_id)
            .values(lease_expires_at=jobs.db_now(-1))
        )
    notifier = OneRound()
    with capture_logs() as events:
        sweep.run(site, notifier, notifier.stop)
    logged = {event.pop("event"): event for event in events}
    assert (
        logged["sweep.started"].items()
        >= {
            "studies_receiving": 1,
            "studies_queued": 1,
            "studies_analysing": 1,
            "jobs_analyse_pending": 1,
            "jobs_analyse_running": 1,
            "leases_expired": 1,
        }.items()
    )
    assert logged["job.worker_lost"]["job"] == claimed.lease.row_id
    assert logged["sweep.resumed"].items() >= {"jobs_recovered": 1, "jobs_due_analyse": 2}.items()
    assert notifier.notified == {JobKind.ANALYSE: 2, JobKind.PREVIEW: 0}
