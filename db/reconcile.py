"""Reconciles files and rows at start-up, after a kill or a power cut.

- A file without a row was durable when its receiver died. Its sender was not acknowledged and may
  never send it again, so it is registered now.
- A row without its file cannot be repaired here; it is reported by id.
- The file of an image that is marked as removed by retention is deleted.
"""

from dataclasses import dataclass

from sqlalchemy import select

from db import retention
from db.context import SiteContext
from db.ingest import IngestResult, StoredInstance, register, require_uids
from db.models import AuditEvent, Instance, ReportRow
from lumbar.dicom.headers import raising_not_dicom
from lumbar.dicom.instance_identity import identify
from lumbar.dicom.part10 import read_file_meta
from lumbar.elements import text
from lumbar.errors import NotDicom
from lumbar.log import get_logger

log = get_logger()


@dataclass
class ReconcileCounts:
    """Counts of what was reconciled."""

    abandoned: int = 0  # half-written files of processes that have ended; removed
    adopted: int = 0  # files without a row, registered
    unreadable: int = 0  # files without a row that are not an instance; left where they are
    removed: int = 0  # files that retention was about to remove
    missing: int = 0  # rows whose file is gone


def reconcile(site: SiteContext) -> ReconcileCounts:
    """Reconciles the whole store, folder by folder.

    Raises:
        Transient: the disk or the database failed; the caller tries again later.
    """
    counts = ReconcileCounts(abandoned=site.store.remove_orphans())
    _instances(site, counts)
    _reports(site, counts)
    log.info("store.reconciled", **vars(counts))
    return counts


def _instances(site: SiteContext, counts: ReconcileCounts) -> None:
    """Lists rows before files.

    An image that arrives meanwhile then has both, or is treated as a file without a row.
    """
    for digits in range(256):
        folder = f"instances/{digits:02x}"
        with site.database.reading() as session:
            within = Instance.file.between(f"{folder}/", f"{folder}/~")
            rows = {row.file: row for row in session.scalars(select(Instance).where(within))}
        files = site.store.files(folder)
        for file in sorted(files - rows.keys()):
            _adopt(site, file, counts)
        for file in sorted(files & rows.keys()):
            if rows[file].removed_at is not None:
                retention.unlink_removed(site, rows[file].series.study_id)
                counts.removed += 1
        without_file = [rows[file].id for file in sorted(rows.keys() - files)]
        # retention may have removed some of them meanwhile
        with site.database.reading() as session:
            missing = select(Instance.id).where(
                Instance.id.in_(without_file), Instance.removed_at.is_(None)
            )
            _report_missing(site, "instance", list(session.scalars(missing)), counts)


def _reports(site: SiteContext, counts: ReconcileCounts) -> None:
    """Counts the reports whose file is missing.

    A report's row is written after its file. A file without a row needs nothing: its analysis is
    repeated and builds the same report.
    """
    with site.database.reading() as session:
        rows = session.execute(select(ReportRow.id, ReportRow.file)).all()
    _report_missing(
        site, "report", [row.id for row in rows if not site.store.path(row.file).exists()], counts
    )


def _adopt(site: SiteContext, file: str, counts: ReconcileCounts) -> None:
    path = site.store.path(file)
    try:
        identity = identify(path)
        require_uids(identity)
        with (
            raising_not_dicom("the file meta information cannot be read"),
            path.open("rb") as stream,
        ):
            meta = read_file_meta(stream)
            syntax, source = (
                text(meta, "TransferSyntaxUID"),
                text(meta, "SourceApplicationEntityTitle"),
            )
    except NotDicom as error:
        log.warning("store.unreadable", file=file, why=str(error))
        counts.unreadable += 1
        return
    digest = path.name.removesuffix(".dcm")
    stored = StoredInstance(identity, syntax, digest, file, path.stat().st_size, source)
    if register(site.database, site.store, stored) is not IngestResult.DUPLICATE:
        log.info("store.adopted", file=file)
        counts.adopted += 1


def _report_missing(site: SiteContext, kind: str, ids: list[int], counts: ReconcileCounts) -> None:
    if not ids:
        return
    counts.missing += len(ids)
    log.error("store.missing", kind=kind, count=len(ids), ids=ids[:20])
    with site.database.transaction() as session:
        detail = {"kind": kind, "count": len(ids), "ids": ids[:1000]}
        session.add(AuditEvent(event="store.missing", actor="sweep", detail=detail))
