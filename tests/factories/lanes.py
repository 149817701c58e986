"""A lane to a peer in memory, and studies whose reports it delivers."""

from sqlalchemy import select, update

from db import (
    held_destinations,
    job_lifecycle,
    studies,
)
from db.context import SiteContext
from db.models import (
    Delivery,
    Job,
    JobKind,
    ReportRow,
)
from db.studies import StudyEvent
from tests.factories.analyses import analysed
from tests.factories.deliveries import PeerInMemory
from tests.factories.instances import ROOT
from tests.integration.site_with_studies import stored_report
from worker import lanes
from worker.lanes import Lane

SR = "1.2.840.10008.5.1.4.1.1.88.34"


class LaneInMemory:
    """A lane to a peer in memory."""

    def __init__(self, site, monkeypatch, **settings):
        given = {"attempts": 2, "retry_base_s": 60, "confirm": "", **settings}
        confirm = given.pop("confirm")
        url = f"dicom://PACS@127.0.0.1:104{confirm}"
        destinations = {"pacs": url, "archive": url}
        configured = site.settings.model_copy(update={"destinations": destinations, **given})
        self.site = SiteContext(configured, site.database, site.store)
        self.peer = PeerInMemory()
        monkeypatch.setattr(lanes, "Peer", lambda *_, **__: self.peer)
        self.do_next = Lane(self.site, "pacs").do_next

    def send_all(self, at_most=20):
        """Delivers what is due; returns how many jobs it took."""
        count = 0
        while count < at_most and self.do_next():
            count += 1
        return count

    def fails(self, error):
        def fail():
            raise error

        self.peer.fails = fail

    def works(self):
        self.peer.fails = lambda: None

    def jobs(self):
        with self.site.database.reading() as session:
            return session.scalars(
                select(Job).where(Job.kind == JobKind.DELIVER).order_by(Job.id)
            ).all()

    def states(self):
        return [str(job.state) for job in self.jobs()]

    def outcomes(self):
        with self.site.database.reading() as session:
            return [str(row.outcome) for row in session.scalars(select(Delivery))]

    def hold(self):
        with self.site.database.reading() as session:
            return held_destinations.hold_of(session, "pacs")

    def change(self, **values):
        with self.site.database.transaction() as session:
            session.execute(update(Job).where(Job.kind == JobKind.DELIVER).values(**values))

    def later(self):
        """The next probe is due."""
        with self.site.database.transaction() as session:
            held_destinations.probe_now(session, "pacs")


def report(site, number, revision=1):
    """A study with a report to be sent."""
    analysed(site, number, report=stored_report(site, number, revision), destinations=["pacs"])


def report_again(site, number, revision):
    with site.database.transaction() as session:
        assert studies.requeue(session, studies.find(session, f"{ROOT}.{number}").id)
    analyse(site, stored_report(site, number, revision))


def analyse(site, report):
    """A queued study is analysed, with this report."""
    with site.database.transaction() as session:
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)
        job_lifecycle.end_analysis(
            session, claimed, StudyEvent.ANALYSED, report=report, destinations=["pacs"]
        )


def files_of(site):
    with site.database.reading() as session:
        return session.scalars(select(ReportRow.file).order_by(ReportRow.id)).all()


def study(site, number):
    with site.database.reading() as session:
        return studies.find(session, f"{ROOT}.{number}")
