"""Files and rows held against each other: what a kill or a power cut left between the two is put right at start-up.

- A file without a row was safe when its receiver died. Its sender was not told "success" and may never send it again,
  so it is registered now.
- A row without its file cannot be put right here; it is reported, by id.
- The file of an image that retention has removed is removed again.
"""

from dataclasses import dataclass

import structlog
from pydicom.filereader import read_file_meta_info
from sqlalchemy import select

from db import retention
from db.context import SiteContext
from db.ingest import IngestResult, Stored, register, require_uids
from db.models import AuditEvent, Instance, ReportRow
from lumbar.dicom.headers import raising_not_dicom, text
from lumbar.dicom.instance_identity import identify
from lumbar.errors import NotDicom

log = structlog.get_logger()


@dataclass
class Account:
    """What a start-up found."""

    abandoned: int = 0  # half-written files of writers that are gone, removed
    adopted: int = 0  # files without a row, registered
    unreadable: int = 0  # files without a row that are no instance; left where they are
    removed: int = 0  # files that retention was about to remove
    missing: int = 0  # rows whose file is gone


def reconcile(site: SiteContext) -> Account:
    """Goes through the whole store, folder by folder. Raises Transient."""
    account = Account(abandoned=site.store.remove_orphans())
    _instances(site, account)
    _reports(site, account)
    log.info("store.reconciled", **vars(account))
    return account


def _instances(site: SiteContext, account: Account) -> None:
    """Rows first, files second: an image that arrives meanwhile then has both, or counts as a file without a row."""
    for digits in range(256):
        folder = f"instances/{digits:02x}"
        with site.database.reading() as session:
            within = Instance.file.between(f"{folder}/", f"{folder}/~")
            rows = {row.file: row for row in session.scalars(select(Instance).where(within))}
        files = site.store.files(folder)
        for file in sorted(files - rows.keys()):
            _adopt(site, file, account)
        for file in sorted(files & rows.keys()):
            if rows[file].removed_at is not None:
                retention.unlink_removed(site, rows[file].series.study_id)
                account.removed += 1
        lost = [rows[file].id for file in sorted(rows.keys() - files)]
        with (
            site.database.reading() as session
        ):  # retention may have removed some of them meanwhile
            still = select(Instance.id).where(Instance.id.in_(lost), Instance.removed_at.is_(None))
            _report_missing(site, "instance", list(session.scalars(still)), account)


def _reports(site: SiteContext, account: Account) -> None:
    """Reports are named by rows only after they are stored; one without a row is built again, to the same bytes."""
    with site.database.reading() as session:
        rows = session.execute(select(ReportRow.id, ReportRow.file)).all()
    _report_missing(
        site, "report", [row.id for row in rows if not site.store.path(row.file).exists()], account
    )


def _adopt(site: SiteContext, file: str, account: Account) -> None:
    path = site.store.path(file)
    try:
        identity = identify(path)
        require_uids(identity)
        with raising_not_dicom("the file meta information cannot be read"):
            meta = read_file_meta_info(path)
            syntax, source = (
                text(meta, "TransferSyntaxUID"),
                text(meta, "SourceApplicationEntityTitle"),
            )
    except NotDicom as error:
        log.warning("store.unreadable", file=file, why=str(error))
        account.unreadable += 1
        return
    digest = path.name.removesuffix(".dcm")
    stored = Stored(identity, syntax, digest, file, path.stat().st_size, source)
    if register(site.database, site.store, stored) is not IngestResult.DUPLICATE:
        log.info("store.adopted", file=file)
        account.adopted += 1


def _report_missing(site: SiteContext, kind: str, ids: list[int], account: Account) -> None:
    if not ids:
        return
    account.missing += len(ids)
    log.error("store.missing", kind=kind, count=len(ids), ids=ids[:20])
    with site.database.transaction() as session:
        detail = {"kind": kind, "count": len(ids), "ids": ids[:1000]}
        session.add(AuditEvent(event="store.missing", actor="sweep", detail=detail))
