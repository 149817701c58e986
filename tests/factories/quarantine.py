"""Studies with quarantined instances, and files that cannot be registered."""

from contextlib import suppress

from db.database import Database
from db.ingest import ingest
from lumbar.errors import NotDicom
from lumbar.store.files import Store
from tests.factories.instances import arrival, make_slice
from tests.factories.objects import make_secondary_capture

ROWS = b"\x28\0\x02\0"  # the tag of SamplesPerPixel, as it is encoded
# Behind the UIDs, a sequence that begins with something else than an item
NO_SEQUENCE = b"\x21\0\x10\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe1\0\0\0\0"
OTHER = {
    "PatientID": "OTHER",
    "PatientName": "Right^Rita",
    "PatientBirthDate": "19700102",
    "PatientSex": "F",
    "AccessionNumber": "A-OTHER",
}


def send(database: Database, store: Store, source: str = "MR1", **elements: object) -> None:
    """An image as ``make_slice`` makes it arrives."""
    ingest(database, store, arrival(make_slice(**elements), source))  # type: ignore[arg-type]


def send_corrected(
    database: Database,
    store: Store,
    study: int,
    *,
    images: int = 2,
    again: int = 2,
    **other: object,
) -> None:
    """A study of some images, of which some are sent again under another patient."""
    for number in range(1, images + 1):
        send(database, store, study=study, number=number)
    for number in range(1, again + 1):
        send(database, store, "PACS", study=study, number=number, **OTHER | other)


def send_object(database: Database, store: Store, *, study: int, number: int = 1) -> None:
    """An object that is no MR image arrives."""
    ingest(database, store, arrival(make_secondary_capture(number, study)))


def send_unregistrable(database: Database, store: Store, study: int = 1) -> None:
    """A file arrives whose header is damaged behind its UIDs."""
    sent = arrival(make_slice(study=study))
    damaged = sent.dataset.read().replace(ROWS, NO_SEQUENCE + ROWS, 1)
    sent.dataset.seek(0)
    sent.dataset.truncate()
    sent.dataset.write(damaged)
    sent.dataset.seek(0)
    with suppress(NotDicom):
        ingest(database, store, sent)
