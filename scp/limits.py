"""What pynetdicom's associations lack: bounds on what a peer may send, and on how long it may take.

Every PDU has a largest size and a time to arrive in, every message a largest size. Datasets lie in unnamed files, so
memory stays bounded whatever is sent, and no kill leaves them behind.
"""

from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from queue import Empty
from select import select
from struct import unpack
from tempfile import TemporaryFile
from time import monotonic
from typing import IO, Any, cast

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_CANCEL_RQ, C_ECHO_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.transport import AssociationSocket

from scp.admission import Connection

MAXIMUM_PDU = 131072  # bytes, as we announce it; fewer, larger PDUs than pynetdicom's 16 KiB
LONGEST_PDU = (
    2 * MAXIMUM_PDU
)  # as we take it: senders count headers differently, and an association request has no limit
IN_MEMORY = 262144  # bytes of a dataset before it goes to disk
LONGEST_ASIDE = 2**20  # bytes of a command set, or of a dataset of anything but a C-STORE
MAX_WAITING = (
    4  # messages without an answer yet; unless negotiated there may be one (PS3.7 D.3.3.3)
)
HEAD = 6  # bytes of a PDU before its variable part (PS3.8 9.3)
NAP_S = 0.05  # an answer of ours to an idle peer may come so much later
PDU_TYPES = range(0x01, 0x08)
ABORT = bytes.fromhex(
    "07 00 00000004 00 00 02 00"
)  # A-ABORT by the service provider, no reason given (PS3.8 9.3.8)


@dataclass(frozen=True)
class Limits:
    """Of one association; seconds and bytes."""

    pdu_s: float  # for a PDU to be wholly there
    association_s: float
    instance: int  # of a dataset
    spool: Path  # folder for datasets that are arriving


def guard(association: Any, connection: Connection, limits: Limits, request: bytes) -> None:
    """Puts an association that was not started yet under its limits; ``request`` is its A-ASSOCIATE-RQ, read already.

    pynetdicom makes both objects itself and has no hook for others.
    """
    association.dul.socket.__class__ = GuardedSocket
    association.dul.socket.take_over(connection, limits, request)
    association.dul.state_machine = Machine(association.dul)
    association.dimse = Messages(association, limits)


class GuardedSocket(AssociationSocket):
    """Reads whole PDUs, within limits of size and time."""

    def take_over(self, connection: Connection, limits: Limits, request: bytes) -> None:
        """As a constructor would, on the socket that pynetdicom has made."""
        self.connection = connection
        self._limits = limits
        self._unread = bytearray(request)
        self._in_pdu = False
        self._deadline = 0.0

    @property
    def ready(self) -> bool:
        """Whether there is something to read. pynetdicom asks a thousand times a second; of an idle peer it then waits
        here for a while, and in ``Messages.get_msg``, so that idle peers cost little.
        """
        if self._unread:
            return True
        if self.connection.idle and self.socket is not None:
            with suppress(OSError, ValueError):  # it is closed
                select([self.socket], [], [], NAP_S)
        return bool(super().ready)

    def recv(self, nr_bytes: int) -> bytearray:
        """The next bytes of a PDU: pynetdicom asks for its head, then for its body. Fewer mean that it has ended."""
        if self.connection.closed:
            return bytearray()  # what had arrived before could still be read
        if self._unread:
            taken = self._unread[:nr_bytes]
            del self._unread[:nr_bytes]
            return taken
        now, ends = monotonic(), self.connection.opened_at + self._limits.association_s
        if not self._in_pdu:
            self._deadline = now + self._limits.pdu_s
        if now > ends:
            return self.abort("association lasted too long")
        if nr_bytes > LONGEST_PDU:
            return self.abort("PDU longer than allowed")
        try:
            taken = read_exactly(self.socket, nr_bytes, min(self._deadline, ends))
        except TimeoutError:
            return self.abort(
                "PDU too slow" if self._deadline < ends else "association lasted too long"
            )
        self._in_pdu = not self._in_pdu
        if self._in_pdu and taken and taken[0] not in PDU_TYPES:
            return self.abort("not a PDU")
        if not self._in_pdu:
            self.connection.heard_at = monotonic()
        return taken

    def send(self, bytestream: bytes) -> None:
        if self.socket is not None:
            with suppress(OSError):  # as in abort
                self.socket.settimeout(self._limits.pdu_s)  # for a peer that does not read
            super().send(bytestream)

    def abort(self, why: str) -> bytearray:
        """Ends the association, by its own thread, and says why."""
        if self.socket is not None and not self.connection.closed:
            with suppress(OSError):  # the association's other thread may have closed it just now
                self.socket.settimeout(1)
                super().send(ABORT)
        self.connection.close(why)
        return bytearray()


class Machine(StateMachine):
    """The upper layer's states (PS3.8 9.2), where a PDU that means nothing ends the association and not its thread."""

    def do_action(self, event: str) -> None:
        try:
            super().do_action(event)
        except Exception:  # noqa: BLE001 - PDUs that lie make pynetdicom raise nearly anything
            cast(GuardedSocket, self.dul.socket).abort("PDU cannot be decoded")


class Messages(DIMSEServiceProvider):
    """Puts PDUs together to messages, within limits of size and number."""

    def __init__(self, association: Any, limits: Limits) -> None:
        super().__init__(association)
        self._limits = limits
        self._spool = Spool(limits.spool)

    def receive_primitive(self, primitive: Any) -> None:
        if cast(GuardedSocket, self.dul.socket).connection.closed:
            return
        if self.message is None:
            self._spool = Spool(self._limits.spool)
            self.message = DIMSEMessage()
            self.message.data_set = self._spool
        message, spool = self.message, self._spool
        try:
            super().receive_primitive(primitive)
        except Exception:  # noqa: BLE001 - PDVs that lie make pynetdicom raise nearly anything
            self._abort("message cannot be decoded")
            return
        cast(GuardedSocket, self.dul.socket).connection.used |= self.message is None
        if refusal := self._refusal(message, spool):
            self._abort(refusal)

    def _abort(self, why: str) -> None:
        cast(GuardedSocket, self.dul.socket).abort(why)

    def get_msg(self, block: bool = False) -> Any:
        if block or not cast(GuardedSocket, self.dul.socket).connection.idle:
            return self._whole(*super().get_msg(block))
        try:
            return self._whole(*self.msg_queue.get(timeout=NAP_S))
        except Empty:
            return None, None

    def _whole(self, context: int | None, request: Any) -> tuple[int | None, Any]:
        """A request, or none: pynetdicom would leave one without answer that lacks an element of its command."""
        if request is not None and not request.is_valid_request:
            self._abort("request lacks a command element")
            return None, None
        return context, request

    def _refusal(self, message: DIMSEMessage, spool: "Spool") -> str | None:
        """Why what has arrived so far is too much, or of the wrong kind."""
        if type(message) is not DIMSEMessage and not isinstance(
            message, (C_ECHO_RQ, C_STORE_RQ, C_CANCEL_RQ)
        ):
            return "message not supported"
        longest = self._limits.instance if isinstance(message, C_STORE_RQ) else LONGEST_ASIDE
        if message.encoded_command_set.tell() > LONGEST_ASIDE or spool.size > longest:
            return "message larger than allowed"
        if self.msg_queue.qsize() > MAX_WAITING:
            return "did not wait for answers"
        return None


class Spool(BytesIO):
    """A dataset that is arriving: in memory while it is small, then in a file without a name."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._file: IO[bytes] | None = None
        self.size = 0
        self.failure: OSError | None = None  # of the disk; what comes after it is thrown away

    def write(self, content: Any, /) -> int:
        self.size += len(content)
        try:
            if self._file is None and self.size > IN_MEMORY:
                self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115 - it ends with the dataset
                self._file.write(self.getbuffer())
                self.truncate(0)
            if self._file is not None:
                return self._file.write(content)
            return super().write(content)
        except OSError as error:
            self.failure = self.failure or error
            return len(content)

    def rewound(self) -> IO[bytes]:
        """The dataset, to be read from its start."""
        stream = self._file or self
        stream.seek(0)
        return stream

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


def read_exactly(stream: Any, count: int, deadline: float) -> bytearray:
    """``count`` bytes, or fewer where the peer hangs up. Raises TimeoutError at ``deadline`` (monotonic seconds)."""
    taken = bytearray(count)
    view, got = memoryview(taken), 0
    while got < count:
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        stream.settimeout(left)
        try:
            received = stream.recv_into(view[got:])
        except TimeoutError:
            raise
        except OSError:
            received = 0
        if not received:
            break
        got += received
    view.release()
    del taken[got:]
    return taken


def read_request(stream: Any, deadline: float) -> bytes:
    """A connection's first PDU, which must be an A-ASSOCIATE-RQ (PS3.8 9.3.2).

    Raises:
        ValueError: what comes is something else, for the reason given. TimeoutError: it does not come in time.
    """
    head = read_exactly(stream, HEAD, deadline)
    if not head:
        raise ValueError("ended before it asked for an association")
    if head[0] != PDU_TYPES[0] or len(head) < HEAD:
        raise ValueError("not an association request")
    (length,) = unpack(">L", head[2:])
    if length > LONGEST_PDU:
        raise ValueError("PDU longer than allowed")
    request = bytes(head + read_exactly(stream, length, deadline))
    if len(request) < HEAD + length:
        raise ValueError("not an association request")
    try:
        asked = A_ASSOCIATE_RQ()
        asked.decode(request)
        offered = asked.to_primitive().presentation_context_definition_list
        if not all(context.abstract_syntax and context.transfer_syntax for context in offered):
            raise ValueError
    except Exception:  # noqa: BLE001 - items that lie make pynetdicom raise nearly anything, and it would wait 30 s
        raise ValueError("association request cannot be decoded") from None
    return request
