"""Ingests one instance at a time: it arrives, is made durable and is registered at once.

The receiver answers as soon as the file is durable, and leaves the rows to ``db.registrar``.
"""

from dataclasses import dataclass
from typing import IO

from db.database import Database
from db.registration import Registration
from db.stored_instances import NO_ONE, IngestResult, TrustedSources
from lumbar.errors import NotDicom, Transient
from lumbar.store.arrivals import Announcement, ArrivingInstance
from lumbar.store.files import Store

CHUNK = 2**20  # bytes copied at a time


@dataclass(frozen=True)
class Arrival:
    """An encoded instance as it arrives."""

    # positioned at its start; in the announced transfer syntax, without file meta information
    dataset: IO[bytes]
    announced: Announcement


def ingest(
    database: Database, store: Store, arrival: Arrival, trusted: TrustedSources = NO_ONE
) -> IngestResult:
    """Stores and registers one instance; on return it survives any failure.

    Raises:
        NotDicom: the dataset cannot be read, or lacks its identifiers. What was found out only
            after it was durable is kept in quarantine; otherwise nothing is.
        HeaderDisagrees: the dataset is not the instance announced. Nothing was kept.
        Transient: the disk or the database failed; give it again.
    """
    with ArrivingInstance(store, arrival.announced) as arriving:
        while chunk := arrival.dataset.read(CHUNK):
            arriving.write(chunk)
        with arriving.share.registering(wait=True):  # a registrar would have the outcome instead
            arrived = arriving.arrive()
            try:
                (outcome,) = Registration(database, store, trusted).register([arrived])
            except Transient:  # nothing was acknowledged; the caller gives it again
                arrived.path.unlink(missing_ok=True)
                raise
            if isinstance(outcome, Transient):
                arrived.path.unlink(missing_ok=True)
    if isinstance(outcome, NotDicom | Transient):
        raise outcome
    return outcome
