"""Uploaded files taken in as if a scanner had sent them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pydicom.filereader import read_partial

from db.context import SiteContext
from db.ingest import Arrival, ingest
from db.preview_results import Answer
from lumbar.dicom.discover import files_in
from lumbar.dicom.headers import raising_not_dicom, text
from lumbar.dicom.instance_identity import Identity
from lumbar.dicom.pixels import TRANSFER_SYNTAXES
from lumbar.errors import NotAnalysable, NotDicom

SOURCE = "UPLOAD"


def keep(site: SiteContext, path: Path, scratch: Path, check: Callable[[Path], Identity]) -> Answer:
    """Takes in every MR image of a file, a folder or a zip; told again, it changes nothing.

    Raises:
        NotAnalysable: there was none. Transient: disk or database.
    """
    studies: dict[str, None] = {}
    taken: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for file in files_in(path, scratch):
        try:
            identity = check(file)
            taken[_ingest(site, file, identity)] += 1
            studies[identity.study_instance_uid] = None
        except NotDicom as error:
            refused[str(error)] += 1
    told = tuple(f"{_counted(count)} not taken: {why}" for why, count in refused.items())
    if not studies:
        raise NotAnalysable("there is no MR image that could be kept", told)
    words = {
        "new": "new",
        "duplicate": "there already",
        "quarantined": "quarantined, for it contradicts what came first",
    }
    kept = (
        f"{_counted(taken[outcome])}: {meaning}"
        for outcome, meaning in words.items()
        if taken[outcome]
    )
    return Answer(studies=tuple(studies), choices=(*kept, *told))


def _ingest(site: SiteContext, file: Path, identity: Identity) -> str:
    with file.open("rb") as stream:
        with raising_not_dicom("the file meta information cannot be read"):
            head = read_partial(
                stream, stop_when=lambda *_: True
            )  # leaves the stream where the dataset begins
            syntax = text(head.file_meta, "TransferSyntaxUID")
        if syntax not in TRANSFER_SYNTAXES:
            raise NotDicom("a transfer syntax that is not read")
        arrival = Arrival(stream, syntax, identity.sop_class_uid, identity.sop_instance_uid, SOURCE)
        return ingest(site.database, site.store, arrival)


def _counted(count: int) -> str:
    return f"{count} {'file' if count == 1 else 'files'}"
