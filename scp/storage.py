"""The storage SCP's side of a C-STORE (PS3.4 annex B): received, checked, durable, acknowledged.

What is known before the answer: the sender, the SOP class and instance announced, the size, the
header as far as its pixels, and that the file is durable. What needs the database is found out
afterwards (``db.registration``).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from db.database import Database
from lumbar.errors import NotDicom, Transient
from lumbar.log import get_logger
from lumbar.store.arrivals import Announcement, ArrivingInstance, HeaderDisagrees
from lumbar.store.files import StagingFile, Store, StoreFull
from scp.admission import STORING_BYTES, Connection
from scp.backlog import Backlog
from scp.command_set import Command
from scp.negotiation import AcceptedContext

log = get_logger()

# Statuses of a C-STORE response (PS3.4 table B.2-1, PS3.7 annex C).
STORED = 0x0000
OUT_OF_RESOURCES = 0xA700
HEADER_DISAGREES = 0xA900
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110
NOT_SUPPORTED = 0x0122


class _WrongContext(NotDicom):
    """The SOP class is not the one that the presentation context was accepted for."""

    def __init__(self) -> None:
        super().__init__("the SOP class is not the presentation context's")


class _TooLarge(Transient):
    """The data set is larger than allowed; the association goes on, with the rest of the study."""

    def __init__(self, max_size: int) -> None:
        super().__init__(f"larger than {max_size // 2**20} MiB (LUMBAR_MAXIMUM_INSTANCE_MIB)")


@dataclass(frozen=True)
class Storage:
    """What all associations store into."""

    store: Store
    database: Database  # the images' rows will be written there
    backlog: Backlog
    max_size: int  # bytes of a data set
    refuse_above: float  # disk usage, 0–1


class StorageService:
    """C-STORE on one association."""

    def __init__(self, storage: Storage, source: str, connection: Connection) -> None:
        self._storage = storage
        self._source = source
        self._connection = connection
        self._spare: StagingFile | None = None

    def receive(self, context: AcceptedContext, command: Command) -> "Reception":
        """Begins to receive the data set of a C-STORE request."""
        announced = Announcement(
            context.transfer_syntax,
            command.sop_class_uid,
            command.sop_instance_uid,
            self._source,
            self._connection.peer,
        )
        staging, self._spare = self._spare, None
        if staging is not None and not staging.share.exists():  # its folder was removed
            staging.close()
            staging = None
        reception = Reception(self._storage, announced, self._connection)
        reception.begin(context, staging)
        return reception

    def prepare(self) -> None:
        """Makes the file for the next data set, while the peer prepares to send it."""
        if self._spare is None:
            with suppress(StoreFull):  # the next data set is refused for it
                self._spare = StagingFile(self._storage.store)

    def close(self) -> None:
        """The association has ended."""
        if self._spare is not None:
            self._spare.close()


class Reception:
    """One data set on its way; what cannot be kept is read nevertheless, and then refused."""

    def __init__(self, storage: Storage, announced: Announcement, connection: Connection) -> None:
        self.limit: int | None = None
        self._size = 0
        self._storage = storage
        self._announced = announced
        self._connection = connection
        self._arriving: ArrivingInstance | None = None
        self._failure: Exception | None = None

    def begin(self, context: AcceptedContext, staging: StagingFile | None) -> None:
        """Checks what can be checked before the data set, which goes into ``staging``.

        Raises:
            _WrongContext: never to the caller, like any failure: it is kept for the answer.
        """
        with ExitStack() as unused, self._keeping_failure():
            if staging is not None:
                unused.callback(staging.close)
            abstract_syntax = context.abstract_syntax
            if abstract_syntax in (Verification, "") or (
                abstract_syntax != self._announced.sop_class_uid
            ):
                raise _WrongContext
            self._storage.database.require_same_file()
            self._storage.store.require_room(self._storage.refuse_above)
            self._storage.backlog.require_room()
            self._arriving = ArrivingInstance(self._storage.store, self._announced, staging)
            unused.pop_all()

    def write(self, fragment: memoryview) -> None:
        """Writes a fragment; after a failure, or beyond the largest size, the rest is dropped.

        Raises:
            _TooLarge: never to the caller, like any failure: it is kept for the answer.
        """
        before, self._size = self._size, self._size + len(fragment)
        if self._failure is None and self._arriving is not None:
            with self._keeping_failure():
                if self._size > self._storage.max_size:
                    raise _TooLarge(self._storage.max_size)
                self._arriving.write(fragment)
                if self._size // STORING_BYTES > before // STORING_BYTES:
                    self._connection.note_stored()

    def finish(self) -> int:
        """The status, once the file is durable or must be refused."""
        self._connection.busy = True
        try:
            if self._failure is None and self._arriving is not None:
                with self._keeping_failure():
                    self._arriving.arrive()
                    self._connection.note_stored()
            return STORED if self._failure is None else self._refuse(self._failure)
        finally:
            self._connection.busy = False

    def discard(self) -> None:
        """Removes what has not arrived."""
        if self._arriving is not None:
            self._arriving.close()

    @contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        """Remembers a failure, for the answer, and makes room at once."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - ``_refuse`` logs it
            self._failure = error
            self.discard()

    def _refuse(self, error: Exception) -> int:
        source = self._announced.source
        status = _status_of(error)
        if status == PROCESSING_FAILURE:  # our own fault; its text may hold patient data
            log.error("receiver.fault", source=source, error=type(error).__name__)
        else:
            log.warning("instance.refused", status=f"{status:04X}", source=source, why=str(error))
        return status


def _status_of(error: Exception) -> int:
    match error:
        case _WrongContext():
            return NOT_SUPPORTED
        case HeaderDisagrees():
            return HEADER_DISAGREES
        case NotDicom():
            return CANNOT_UNDERSTAND
        case Transient() | OSError():
            return OUT_OF_RESOURCES
        case _:
            return PROCESSING_FAILURE
