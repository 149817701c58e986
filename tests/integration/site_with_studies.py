"""A site with four studies: one severe with its report, one failed, one refused, one arriving."""

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
from tests.factories.deliveries import claim_delivery, delivered
from tests.factories.instances import ROOT, arrival, make_slice

SEVERE_UID, FAILED_UID, REFUSED_UID, ARRIVING_UID = (f"{ROOT}.{number}" for number in (1, 2, 3, 4))
# Ids of jobs: an analysis that is done, a delivery that is due, one that is done, a dead analysis.
ANALYSIS_JOB, WAITING_JOB, DELIVERED_JOB, DEAD_JOB = range(1, 5)


def open_site(home: Path, **settings) -> SiteContext:
    """A new site on SQLite."""
    database = Database.connect(sqlite_database(home / "lumbar.sqlite"))
    return SiteContext(Settings(home=home, **settings), database, Store(home / "store").create())


def add_studies(site: SiteContext) -> None:
    """Adds the four studies.

    Finding 1 belongs to the severe study; only its canal finding is moderate or severe.
    """
    read = {
        "notes": ["the canal was followed"],
        "caveats": ["the border to the sacrum looks transitional"],
    }
    analysed(
        site,
        1,
        {CANAL: SEVERE},
        report=stored_report(site, 1, 1),
        destinations=["pacs", "archive"],
        **read,
    )
    with site.database.transaction() as session:
        delivered(session, claim_delivery(session, "archive"), "200")
        waiting = claim_delivery(session, "pacs")
        job_lifecycle.release(session, waiting, "the PACS is unavailable", Backoff(2, 0, 0))
    ingest(site.database, site.store, arrival(make_slice(study=2)))
    with site.database.transaction() as session:
        studies.complete(session, studies.find(session, FAILED_UID).id)
        job_lifecycle.dead_letter(
            session, job_lifecycle.claim_analysis(session, lease_s=10), "the disk is full"
        )
        assert session.get_one(Job, DEAD_JOB).kind is JobKind.ANALYSE
    ingest(site.database, site.store, arrival(make_slice(study=3)))
    end(site, 3, StudyEvent.REFUSED, reason="no lumbar spine was found")
    ingest(site.database, site.store, arrival(make_slice(study=4)))


def stored_report(site: SiteContext, study_id: int, revision: int) -> ReportRow:
    """A report whose bytes are in the store."""
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


def all_rows(site: SiteContext) -> dict[str, list[tuple]]:
    """All rows of all tables."""
    with site.database.reading() as session:
        return {
            name: sorted(map(tuple, session.execute(table.select())), key=repr)
            for name, table in Table.metadata.tables.items()
        }
