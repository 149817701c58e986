"""Reconciles files and rows at start-up, after a kill or a power cut.

- A file without a row was acknowledged, and its row lost: the database is an older copy than the
  store. It is put among the arrived files, and registered like them.
- A row without its file cannot be repaired here; it is reported by id.
- The file of an image that is marked as removed by retention is deleted.
"""

import os
import shutil
from dataclasses import dataclass

from sqlalchemy import func, select

from db import audit, retention
from db.context import SiteContext
from db.models import Instance, ReportRow
from lumbar.audit_messages import Outcome
from lumbar.dicom.instance_identity import identify
from lumbar.errors import NotDicom
from lumbar.log import get_logger
from lumbar.store.arrivals import require_uid
from lumbar.store.files import INSTANCES, raising_store_full
from lumbar.store.shares import arrived_name

log = get_logger()

ADOPTED = "reconcile"  # the source that such files count as
LEGACY_STAGING = "incoming"  # where earlier versions kept their staging files


@dataclass
class ReconcileCounts:
    """Counts of what was reconciled."""

    abandoned: int = 0  # half-written files of processes that have ended; removed
    adopted: int = 0  # files without a row, put among the arrived ones
    unreadable: int = 0  # files without a row that are not an instance; left where they are
    removed: int = 0  # files that retention was about to remove
    missing: int = 0  # rows whose file is gone


def reconcile(site: SiteContext) -> ReconcileCounts:
    """Reconciles the whole store, folder by folder.

    Raises:
        Transient: the disk or the database failed; the caller tries again later.
    """
    site.store.require_mounted()
    shutil.rmtree(site.store.root / LEGACY_STAGING, ignore_errors=True)
    counts = ReconcileCounts(abandoned=sum(share.remove_if_dead() for share in site.store.shares()))
    _instances(site, counts)
    _reports(site, counts)
    log.info("store.reconciled", **vars(counts))
    return counts


def _instances(site: SiteContext, counts: ReconcileCounts) -> None:
    """Lists rows before files.

    An image that arrives meanwhile then has both, or is treated as a file without a row.
    """
    for folder in _folders(site):
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


def _folders(site: SiteContext) -> list[str]:
    """The folders of instances that hold a file, or should."""
    prefix = func.substr(Instance.file, 1, len(f"{INSTANCES}/00"))
    with site.database.reading() as session:
        named = set(session.scalars(select(prefix).distinct()))
    found = {
        f"{INSTANCES}/{path.name}"
        for path in site.store.path(INSTANCES).glob("[0-9a-f][0-9a-f]")
        if path.is_dir()
    }
    return sorted(named | found)


def _reports(site: SiteContext, counts: ReconcileCounts) -> None:
    """Counts the reports whose file is missing.

    A file without a row is left where it is: its process ended before it wrote the row, or the
    database is an older copy. Nothing sends it.
    """
    with site.database.reading() as session:
        stored = select(ReportRow.id, ReportRow.file).where(ReportRow.file.is_not(None))
        rows = session.execute(stored).all()
    _report_missing(
        site, "report", [row.id for row in rows if not site.store.path(row.file).exists()], counts
    )


def _adopt(site: SiteContext, file: str, counts: ReconcileCounts) -> None:
    """Puts a stored file among the arrived ones, where the registrar finds it."""
    path = site.store.path(file)
    try:
        study = identify(path).study_instance_uid
        require_uid(study, "StudyInstanceUID")
    except NotDicom as error:
        log.warning("store.unreadable", file=file, why=str(error))
        counts.unreadable += 1
        return
    with raising_store_full(site.store.root):
        share = site.store.share()
        try:
            os.link(path, share.folder / arrived_name(study, ADOPTED))
        except PermissionError:  # somebody else's file
            log.warning("store.unreadable", file=file, why="it may not be linked")
            counts.unreadable += 1
            return
        share.fsync()
    log.info("store.adopted", file=file)
    counts.adopted += 1


def _report_missing(site: SiteContext, kind: str, ids: list[int], counts: ReconcileCounts) -> None:
    if not ids:
        return
    counts.missing += len(ids)
    log.error("store.missing", kind=kind, count=len(ids), ids=ids[:20])
    with site.database.transaction() as session:
        audit.note(
            session,
            "store.missing",
            audit.on_this_host("sweep"),
            outcome=Outcome.SERIOUS_FAILURE,
            kind=kind,
            count=len(ids),
            ids=ids[:1000],
        )
