"""Ingests uploaded files as if a scanner had sent them."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from db import disk_usage
from db.context import SiteContext
from db.ingest import Arrival, ingest
from db.preview_results import PreviewResult
from db.stored_instances import IngestResult
from lumbar.dicom.discover import files_in
from lumbar.dicom.headers import raising_not_dicom
from lumbar.dicom.instance_identity import Identity
from lumbar.dicom.part10 import read_file_meta
from lumbar.dicom.pixels import TRANSFER_SYNTAXES
from lumbar.elements import text
from lumbar.errors import NotAnalysable, NotDicom
from lumbar.store.arrivals import IMAGE_CLASSES, Announcement

SOURCE = "UPLOAD"

MEANINGS = {
    IngestResult.NEW: "new",
    IngestResult.DUPLICATE: "received before",
    IngestResult.SAME_IMAGE: "the same image as received before",
    IngestResult.QUARANTINED: "quarantined, because it contradicts what was received before",
}


def ingest_files(
    site: SiteContext, path: Path, scratch: Path, check: Callable[[Path], Identity]
) -> PreviewResult:
    """Ingests every MR image of a file, a folder or a zip; doing so again changes nothing.

    Raises:
        NotAnalysable: there is no MR image.
        Transient: the disk or the database failed.
    """
    studies: dict[str, None] = {}
    results: Counter[IngestResult] = Counter()
    refused: Counter[str] = Counter()
    for file in files_in(path, scratch, partial(disk_usage.require_room, site)):
        try:
            identity = check(file)
            results[_ingest(site, file, identity)] += 1
            studies[identity.study_instance_uid] = None
        except NotDicom as error:
            refused[str(error)] += 1
    not_ingested = [f"{_files(count)} not ingested: {why}" for why, count in refused.items()]
    if not studies:
        raise NotAnalysable("there is no MR image that could be kept", tuple(not_ingested))
    ingested = [f"{_files(results[r])}: {meaning}" for r, meaning in MEANINGS.items() if results[r]]
    return PreviewResult(studies=tuple(studies), choices=(*ingested, *not_ingested))


def _ingest(site: SiteContext, file: Path, identity: Identity) -> IngestResult:
    with file.open("rb") as stream:
        with raising_not_dicom("the file meta information cannot be read"):
            syntax = text(read_file_meta(stream), "TransferSyntaxUID")
        if syntax not in TRANSFER_SYNTAXES:
            raise NotDicom("a transfer syntax that is not supported")
        if identity.sop_class_uid not in IMAGE_CLASSES:
            raise NotDicom("not an MR image")
        announced = Announcement(syntax, identity.sop_class_uid, identity.sop_instance_uid, SOURCE)
        return ingest(site.database, site.store, Arrival(stream, announced))


def _files(count: int) -> str:
    return f"{count} {'file' if count == 1 else 'files'}"
