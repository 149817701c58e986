"""Limits that pynetdicom lacks: how much a peer may send, and how long it may take.

Every PDU has a maximum size and a time in which it must arrive, every message a maximum size.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from select import select
from socket import socket
from struct import unpack
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_CANCEL_RQ, C_ECHO_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.transport import AssociationSocket

from scp.admission import Connection
from scp.spool import Spool

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.pdu_primitives import P_DATA

# Bytes of a PDU. The announced maximum is larger than pynetdicom's 16 KiB, for fewer PDUs. More is
# accepted: senders count headers differently, and an association request has no negotiated limit.
MAX_PDU_ANNOUNCED = 131072
MAX_PDU_ACCEPTED = 2 * MAX_PDU_ANNOUNCED
MAX_OTHER = 2**20  # bytes of a command set, or of the dataset of any message but a C-STORE
MAX_UNANSWERED = 4  # messages; unless negotiated, one may be outstanding (PS3.7 D.3.3.3)
PDU_HEADER = 6  # bytes: type, reserved, length (PS3.8 9.3)
PDU_TYPES = range(0x01, 0x08)
IDLE_POLL_S = 0.05  # a message of an idle peer may be noticed, and answered, so much later
# A-ABORT by the service provider, no reason given (PS3.8 9.3.8).
ABORT = bytes.fromhex("07 00 00000004 00 00 02 00")


@dataclass(frozen=True)
class Limits:
    """The limits of one association, in seconds and bytes."""

    pdu_s: float  # from a PDU's first byte to its last
    association_s: float
    dataset: int  # bytes, of a C-STORE
    spool: Path  # folder for datasets that are arriving


def apply_limits(
    association: "Association", connection: Connection, limits: Limits, request: bytes
) -> None:
    """Applies the limits to an association that has not been started yet.

    ``request`` is its A-ASSOCIATE-RQ, which has been read already. pynetdicom creates the socket,
    the state machine and the message provider itself and has no hook for others.
    """
    stream = cast(LimitedSocket, association.dul.socket)
    stream.__class__ = LimitedSocket
    stream.attach(connection, limits, request)
    association.dul.state_machine = AbortingStateMachine(association.dul)
    association.dimse = LimitedMessages(association, limits)


class LimitedSocket(AssociationSocket):
    """Reads whole PDUs, within limits of size and time."""

    def attach(self, connection: Connection, limits: Limits, request: bytes) -> None:
        """Does what a constructor would, on the socket that pynetdicom has created."""
        self.connection = connection
        self._limits = limits
        self._unread = bytearray(request)
        self._in_pdu = False
        self._deadline = 0.0

    @property
    def ready(self) -> bool:
        """Whether there is something to read.

        pynetdicom polls a thousand times a second. For an idle peer the call waits a little, as
        does ``LimitedMessages.get_msg``, so that idle peers cost little.
        """
        if self._unread:
            return True
        if self.connection.idle and self.socket is not None:
            with suppress(OSError, ValueError):  # it is closed
                select([self.socket], [], [], IDLE_POLL_S)
        return bool(super().ready)

    def recv(self, nr_bytes: int) -> bytearray:
        """The next bytes of a PDU: pynetdicom reads its header, then the rest.

        Fewer bytes than asked for mean that the connection has ended.
        """
        if self.connection.closed:
            return bytearray()  # what had arrived before could still be read
        if self._unread:
            received = self._unread[:nr_bytes]
            del self._unread[:nr_bytes]
            return received
        now, ends = monotonic(), self.connection.opened_at + self._limits.association_s
        if not self._in_pdu:
            self._deadline = now + self._limits.pdu_s
        if now > ends:
            return self.abort("association lasted too long")
        if nr_bytes > MAX_PDU_ACCEPTED:
            return self.abort("PDU longer than allowed")
        try:
            received = read_exactly(cast(socket, self.socket), nr_bytes, min(self._deadline, ends))
        except TimeoutError:
            return self.abort(
                "PDU too slow" if self._deadline < ends else "association lasted too long"
            )
        self._in_pdu = not self._in_pdu
        if self._in_pdu and received and received[0] not in PDU_TYPES:
            return self.abort("not a PDU")
        if not self._in_pdu:
            self.connection.last_pdu_at = monotonic()
        return received

    def send(self, bytestream: bytes) -> None:
        """Sends, and waits no longer than a PDU may take for a peer that does not read."""
        if self.socket is not None:
            with suppress(OSError):  # as in abort
                self.socket.settimeout(self._limits.pdu_s)
            super().send(bytestream)

    def abort(self, why: str) -> bytearray:
        """Sends an A-ABORT, closes the connection and logs why. Returns no bytes."""
        if self.socket is not None and not self.connection.closed:
            with suppress(OSError):  # the association's other thread may have closed it just now
                self.socket.settimeout(1)
                super().send(ABORT)
        self.connection.close(why)
        return bytearray()


class AbortingStateMachine(StateMachine):
    """The upper layer's states (PS3.8 9.2); an undecodable PDU aborts the association.

    pynetdicom's own machine would let the exception end the thread.
    """

    def do_action(self, event: str) -> None:
        try:
            super().do_action(event)
        except Exception:  # noqa: BLE001 - malformed PDUs make pynetdicom raise nearly anything
            cast(LimitedSocket, self.dul.socket).abort("PDU cannot be decoded")


class LimitedMessages(DIMSEServiceProvider):
    """Assembles messages from PDUs, within limits of size and number."""

    def __init__(self, association: "Association", limits: Limits) -> None:
        super().__init__(association)
        self._limits = limits
        self._spool = Spool(limits.spool)

    def receive_primitive(self, primitive: "P_DATA") -> None:
        """Adds a P-DATA to the message it belongs to; aborts where a limit is exceeded."""
        if self._stream.connection.closed:
            return
        if self.message is None:
            self._spool = Spool(self._limits.spool)
            self.message = DIMSEMessage()
            self.message.data_set = self._spool
        message, spool = self.message, self._spool
        try:
            super().receive_primitive(primitive)
        except Exception:  # noqa: BLE001 - malformed PDVs make pynetdicom raise nearly anything
            self._stream.abort("message cannot be decoded")
            return
        self._stream.connection.used |= self.message is None
        if violation := self._violation(message, spool):
            self._stream.abort(violation)

    @property
    def _stream(self) -> LimitedSocket:
        return cast(LimitedSocket, self.dul.socket)

    def get_msg(self, block: bool = False) -> Any:
        """The next message and its context's number, or (None, None); waits for idle peers."""
        if block or not self._stream.connection.idle:
            return self._require_valid(*super().get_msg(block))
        try:
            return self._require_valid(*self.msg_queue.get(timeout=IDLE_POLL_S))
        except Empty:
            return None, None

    def _require_valid(self, context: int | None, request: Any) -> tuple[int | None, Any]:
        """Aborts for a request that lacks an element of its command.

        pynetdicom would leave such a request without an answer.
        """
        if request is not None and not request.is_valid_request:
            self._stream.abort("request lacks a command element")
            return None, None
        return context, request

    def _violation(self, message: DIMSEMessage, spool: Spool) -> str | None:
        """Which limit the message exceeds, or that it is of a kind we do not serve; else None."""
        if type(message) is not DIMSEMessage and not isinstance(
            message, (C_ECHO_RQ, C_STORE_RQ, C_CANCEL_RQ)
        ):
            return "message not supported"
        maximum = self._limits.dataset if isinstance(message, C_STORE_RQ) else MAX_OTHER
        if message.encoded_command_set.tell() > MAX_OTHER or spool.size > maximum:
            return "message larger than allowed"
        if self.msg_queue.qsize() > MAX_UNANSWERED:
            return "did not wait for answers"
        return None


def read_exactly(stream: socket, count: int, deadline: float) -> bytearray:
    """``count`` bytes, or fewer where the peer closes the connection.

    Raises:
        TimeoutError: They have not arrived by ``deadline`` (seconds of the monotonic clock).
    """
    content = bytearray(count)
    view, arrived = memoryview(content), 0
    while arrived < count:
        remaining_s = deadline - monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        stream.settimeout(remaining_s)
        try:
            received = stream.recv_into(view[arrived:])
        except TimeoutError:
            raise
        except OSError:
            received = 0
        if not received:
            break
        arrived += received
    view.release()
    del content[arrived:]
    return content


def read_request(stream: socket, deadline: float) -> bytes:
    """A connection's first PDU, which must be an A-ASSOCIATE-RQ (PS3.8 9.3.2).

    Raises:
        ValueError: Something else arrives; the message is the reason to log.
        TimeoutError: It has not arrived by ``deadline`` (seconds of the monotonic clock).
    """
    header = read_exactly(stream, PDU_HEADER, deadline)
    if not header:
        raise ValueError("closed before it requested an association")
    if header[0] != PDU_TYPES[0] or len(header) < PDU_HEADER:
        raise ValueError("not an association request")
    (length,) = unpack(">L", header[2:])
    if length > MAX_PDU_ACCEPTED:
        raise ValueError("PDU longer than allowed")
    request = bytes(header + read_exactly(stream, length, deadline))
    if len(request) < PDU_HEADER + length:
        raise ValueError("not an association request")
    _require_decodable(request)
    return request


def _require_decodable(request: bytes) -> None:
    """Decodes once what pynetdicom will decode: for a malformed request it would wait 30 s.

    Raises:
        ValueError: An item is malformed, or a presentation context lacks a syntax.
    """
    try:
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(request)
        proposed = pdu.to_primitive().presentation_context_definition_list
        if not all(context.abstract_syntax and context.transfer_syntax for context in proposed):
            raise ValueError
    except Exception:  # noqa: BLE001 - malformed items make pynetdicom raise nearly anything
        raise ValueError("association request cannot be decoded") from None
