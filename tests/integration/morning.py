"""A site as it may stand one morning: a severe study with its report, one that failed, one refused, one arriving."""

from pathlib import Path

from db import job_lifecycle, studies
from db.context import SiteContext
from db.database import Database
from db.ingest import ingest
from db.leases import Backoff
from db.models import Job, JobKind, ReportRow, Table
from db.studies import StudyEvent
from lumbar.settings import Settings
from lumbar.store.files import Store, digest_of
from tests.databases import sqlite_database
from tests.factories.analyses import CANAL, SEVERE, analysed, end
from tests.factories.instances import ROOT, arrival, make_slice

SEVERE_UID, FAILED_UID, REFUSED_UID, ARRIVING_UID = (f"{ROOT}.{number}" for number in (1, 2, 3, 4))
ANALYSIS, WAITING, DELIVERED, DEAD = (
    1,
    2,
    3,
    4,
)  # jobs: done, due, done, and one that a person must look at


def open_site(home: Path, **settings) -> SiteContext:
    """A new site on SQLite."""
    database = Database.connect(sqlite_database(home / "lumbar.sqlite"))
    return SiteContext(Settings(home=home, **settings), database, Store(home / "store"))


def fill(site: SiteContext) -> None:
    """Finding 1 is of the severe study, and a moderate or severe one only its canal's."""
    told = {
        "notes": ["the canal was followed"],
        "caveats": ["the border to the sacrum looks transitional"],
    }
    analysed(
        site,
        1,
        {CANAL: SEVERE},
        report=report(site, 1, 1),
        destinations=["pacs", "archive"],
        **told,
    )
    with site.database.transaction() as session:
        for _ in range(2):
            job = job_lifecycle.claim(session, JobKind.DELIVER, lease_s=10)
            if job.destination == "archive":
                job_lifecycle.end_delivery(session, job, "200")
            else:
                job_lifecycle.release(session, job, "the PACS is away", Backoff(2, 0, 0))
    ingest(site.database, site.store, arrival(make_slice(study=2)))
    with site.database.transaction() as session:
        studies.complete(session, studies.find(session, FAILED_UID).id)
        job_lifecycle.dead_letter(
            session, job_lifecycle.claim(session, JobKind.ANALYSE, lease_s=10), "the disk is full"
        )
        assert session.get_one(Job, DEAD).kind is JobKind.ANALYSE
    ingest(site.database, site.store, arrival(make_slice(study=3)))
    end(site, 3, StudyEvent.REFUSED, reason="no lumbar spine was found")
    ingest(site.database, site.store, arrival(make_slice(study=4)))


def report(site: SiteContext, study_id: int, revision: int) -> ReportRow:
    """A report whose bytes lie in the store."""
    content = f"report {study_id} {revision}".encode()
    digest = digest_of(content)
    uids = {
        "sop_class_uid": "1.2",
        "series_instance_uid": "1.3",
        "sop_instance_uid": f"1.4.{study_id}.{revision}",
    }
    return ReportRow(
        study_id=study_id,
        revision=revision,
        sha256=digest,
        file=site.store.put("reports", digest, content),
        **uids,
    )


def everything(site: SiteContext) -> dict[str, list[tuple]]:
    """All rows of all tables."""
    with site.database.reading() as session:
        return {
            name: sorted(map(tuple, session.execute(table.select())), key=repr)
            for name, table in Table.metadata.tables.items()
        }
