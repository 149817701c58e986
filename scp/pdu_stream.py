"""PDUs of one connection, read and sent within limits of size and time (PS3.8 9.3)."""

import socket
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct
from time import monotonic
from typing import NoReturn

from scp.admission import Connection

# Bytes of a PDU. The announced maximum is large, for few PDUs. More is accepted: senders count
# headers differently, and an association request has no negotiated limit.
MAX_PDU_ANNOUNCED = 131072
MAX_PDU_ACCEPTED = 2 * MAX_PDU_ANNOUNCED

ASSOCIATE_RQ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 0x01, 0x04, 0x05, 0x06, 0x07
PDU_TYPES = range(0x01, 0x08)
# A-ABORT by the service provider, no reason given (PS3.8 9.3.8).
ABORT_PDU = bytes.fromhex("07 00 00000004 00 00 02 00")
RELEASE_RP_PDU = bytes.fromhex("06 00 00000004 00 00 00 00")
CLOSING_S = 2.0  # in which a released peer closes the connection

_HEAD = Struct(">BxL")  # type, length


class ConnectionEnded(Exception):
    """The connection has ended, by either side; the reason has been logged."""


@dataclass(frozen=True)
class Limits:
    """Seconds that a connection may take."""

    pdu_s: float  # from a PDU's first byte to its last, and between two PDUs
    association_s: float


class PduStream:
    """Reads PDUs from a connection into one buffer, and sends them.

    What exceeds a limit ends the connection: it is aborted, and ``ConnectionEnded`` is raised.
    """

    def __init__(self, connection: Connection, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._ends = connection.opened_at + limits.association_s
        self._buffer = bytearray(_HEAD.size + MAX_PDU_ACCEPTED)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0  # of what has arrived and was not read

    def read(self) -> tuple[int, memoryview]:
        """The next PDU's type, and its content, which is valid until the next call.

        Raises:
            ConnectionEnded: there is none within the limits.
        """
        deadline = None
        if self._start == self._end:
            self._receive(monotonic() + self._limits.pdu_s, "silent for too long")
        deadline = monotonic() + self._limits.pdu_s
        self._require(_HEAD.size, deadline)
        kind, length = _HEAD.unpack_from(self._buffer, self._start)
        if kind not in PDU_TYPES:
            self.abort("not a PDU")
        if length > MAX_PDU_ACCEPTED:
            self.abort("PDU longer than allowed")
        self._require(_HEAD.size + length, deadline)
        self._connection.last_pdu_at = monotonic()
        start = self._start + _HEAD.size
        self._start = start + length
        return kind, self._view[start : self._start]

    def send(self, content: bytes) -> None:
        """Sends, and waits no longer than a PDU may take for a peer that does not read.

        Raises:
            ConnectionEnded: it could not be sent.
        """
        try:
            self._connection.socket.settimeout(self._limits.pdu_s)
            self._connection.socket.sendall(content)
        except TimeoutError:
            self.abort("did not read its answers")
        except (OSError, ValueError):
            self._end_by_peer()

    def abort(self, why: str) -> NoReturn:
        """Sends an A-ABORT, closes the connection and logs why.

        Raises:
            ConnectionEnded: always.
        """
        if not self._connection.closed:
            send_abort(self._connection.socket)
        self._connection.close(why)
        raise ConnectionEnded

    def wait_until_closed(self) -> None:
        """Waits a little for the peer to close the connection, which has got its last PDU."""
        with suppress(OSError, ValueError):
            self._connection.socket.settimeout(CLOSING_S)
            self._connection.socket.recv(1)

    def peer_aborted(self) -> NoReturn:
        """The peer has sent an A-ABORT.

        Raises:
            ConnectionEnded: always.
        """
        self._end_by_peer()

    def _require(self, count: int, deadline: float) -> None:
        """Waits until so many bytes have arrived."""
        if self._start + count > len(self._buffer):
            unread = self._end - self._start
            self._buffer[:unread] = self._buffer[self._start : self._end]
            self._start, self._end = 0, unread
        while self._end - self._start < count:
            self._receive(deadline, "PDU too slow")

    def _receive(self, deadline: float, late: str) -> None:
        """Adds what arrives next to the buffer.

        Raises:
            ConnectionEnded: nothing does, by the deadline; ``late`` is the reason to log then.
        """
        if self._connection.closed:
            raise ConnectionEnded
        if self._start == self._end:
            self._start = self._end = 0
        if self._ends < deadline:
            deadline, late = self._ends, "association lasted too long"
        remaining_s = deadline - monotonic()
        if remaining_s <= 0:
            self.abort(late)
        try:
            self._connection.socket.settimeout(remaining_s)
            count = self._connection.socket.recv_into(self._view[self._end :])
        except TimeoutError:
            self.abort(late)
        except (OSError, ValueError):  # of TLS, too; ValueError: another thread has closed it
            count = 0
        if count == 0:
            self._end_by_peer()
        self._end += count

    def _end_by_peer(self) -> NoReturn:
        self._connection.close_after_peer()
        raise ConnectionEnded


def send_abort(stream: socket.socket) -> None:
    """Sends an A-ABORT to a peer that may have gone."""
    with suppress(OSError, ValueError):
        stream.settimeout(1)
        stream.sendall(ABORT_PDU)


def read_request(connection: Connection, limits: Limits) -> bytes:
    """A connection's first PDU, which must be an A-ASSOCIATE-RQ (PS3.8 9.3.2), whole.

    Not more than that is read, so that connections without an association need little memory.

    Raises:
        ValueError: something else arrives; the message is the reason to log.
        TimeoutError: it has not arrived in the time that a PDU may take.
    """
    deadline = connection.opened_at + limits.pdu_s
    head = _read_exactly(connection.socket, _HEAD.size, deadline)
    if not head:
        raise ValueError("closed before it requested an association")
    if head[0] != ASSOCIATE_RQ or len(head) < _HEAD.size:
        raise ValueError("not an association request")
    _, length = _HEAD.unpack(head)
    if length > MAX_PDU_ACCEPTED:
        raise ValueError("PDU longer than allowed")
    content = _read_exactly(connection.socket, length, deadline)
    if len(content) < length:
        raise ValueError("not an association request")
    connection.last_pdu_at = monotonic()
    return bytes(head + content)


def _read_exactly(stream: socket.socket, count: int, deadline: float) -> bytearray:
    """``count`` bytes, or fewer where the peer closes the connection.

    Raises:
        TimeoutError: they have not arrived by ``deadline`` (seconds of the monotonic clock).
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
