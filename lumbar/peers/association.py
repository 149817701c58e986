"""An association that we request: messages over one socket (PS3.8 7, PS3.7 8).

Nothing here waits without a limit or keeps more than a limit of what the peer sends. There is one
operation at a time, and its response is the next message that comes.
"""

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from types import TracebackType
from typing import BinaryIO, NoReturn, Self

from pydicom.uid import UID

from lumbar.errors import LumbarError
from lumbar.peers import pdus
from lumbar.peers.deadline import Deadline
from lumbar.peers.destinations import DimseDestination
from lumbar.peers.outcomes import NotConnected, Refused, Unintelligible, Unreachable
from lumbar.peers.pdus import Encoding, Malformed

MAX_CONTEXTS = 128  # PS3.8 section 9.3.2.2: odd numbers from 1 to 255
RELEASE_S = 5  # the outcome is known by then
_LONGEST_MESSAGE = 2**20  # bytes of a response
_COMMAND, _LAST = 1, 2  # bits of a fragment's control
_DATA_SET_TYPE, _NO_DATA_SET = 0x0800, b"\1\1"


class Rejected(Unreachable):
    """The peer rejected the association. ``for_good``: without naming a reason that may pass."""

    def __init__(self, message: str, *, for_good: bool) -> None:
        super().__init__(message)
        self.for_good = for_good


class Ended(Unreachable):
    """The peer ended the connection, or it was lost."""


class _Silent(Unreachable):
    """A wait has ended."""


@dataclass(frozen=True)
class Message:
    """A message's command elements by their number in group 0000, and its data set as encoded."""

    command: Mapping[int, bytes]
    data_set: bytes


class Association:
    """Requested when the ``with`` block begins; released at its end, aborted after an exception.

    Each context has one transfer syntax, so that the peer accepts or rejects each by itself. At
    most ``MAX_CONTEXTS`` are proposed.
    """

    def __init__(
        self, destination: DimseDestination, encodings: Sequence[Encoding], deadline: Deadline
    ) -> None:
        self.accepted: Mapping[Encoding, int] = {}
        self.messages_sent = 0
        self._destination = destination
        self._encodings = encodings
        self._deadline = deadline
        self._socket: socket.socket | None = None
        self._longest = pdus.LONGEST_SENT

    def __enter__(self) -> Self:
        """Requests the association.

        Raises:
            Unreachable: no connection, no response in time, or a rejection (``Rejected``).
            Unintelligible: the response is malformed.
            Refused: the peer accepts none of the contexts.
            LumbarError: any of these.
            OSError: the socket cannot be made.
        """
        to = self._destination
        self._connect()
        try:
            self._write(
                pdus.encode_request(to.called_ae_title, to.calling_ae_title, self._encodings)
            )
            self._negotiate()
        except (LumbarError, OSError):
            self.abort()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._release()
        self.abort()

    @property
    def established(self) -> bool:
        """Whether it has been neither released nor aborted, nor has been lost."""
        return self._socket is not None

    def send(self, context: int, command: bytes, data_set: BinaryIO | None = None) -> None:
        """Sends a message: its command set, and what is left to read of its data set.

        Raises:
            Unreachable: the association is lost, or the peer does not take the message in time.
            OSError: the data set cannot be read.
        """
        self._write_fragments(context, BytesIO(command), _COMMAND)
        if data_set is not None:
            self._write_fragments(context, data_set, 0)

    def receive(self) -> Message:
        """The next message.

        Raises:
            Unreachable: there is none in time, or the association is lost.
            Unintelligible: it is malformed, or larger than any response.
        """
        command: dict[int, bytes] | None = None
        command_set, data_set = bytearray(), bytearray()
        try:
            while True:
                for control, fragment in pdus.decode_values(self._read_data()):
                    part = command_set if control & _COMMAND else data_set
                    part += fragment
                    if len(command_set) + len(data_set) > _LONGEST_MESSAGE:
                        self._raise_malformed()
                    if control & _COMMAND and control & _LAST:
                        command = pdus.decode_command(command_set)
                        if command.get(_DATA_SET_TYPE, _NO_DATA_SET) == _NO_DATA_SET:
                            return Message(command, b"")
                    elif control & _LAST:
                        if command is None:
                            self._raise_malformed()
                        return Message(command, bytes(data_set))
        except Malformed:
            self._raise_malformed()

    def abort(self) -> None:
        """Ends the connection, with an A-ABORT where the association still is. Never fails."""
        if self._socket is None:
            return
        with suppress(OSError):
            self._socket.settimeout(0)
            self._socket.send(pdus.HEADER.pack(pdus.ABORT, 0, 4) + bytes(4))
        self._close()

    def _connect(self) -> None:
        to = self._destination
        try:
            self._socket = socket.create_connection((to.host, to.port), self._deadline.wait_s())
            # Nagle's algorithm with delayed acknowledgements costs 40 ms per message.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (socket.gaierror, UnicodeError):
            raise NotConnected(
                f"{to.name}: the host {to.host} is not known; check its name"
            ) from None
        except OSError:
            self._raise_unanswered(NotConnected)

    def _negotiate(self) -> None:
        """Takes the response to the request.

        Raises:
            Unreachable: there is none, or an A-ABORT.
            Rejected: the peer rejected the association.
            Refused: it accepts none of the contexts.
        """
        try:
            kind, content = self._read_pdu()
            if kind == pdus.ASSOCIATE_AC:
                acceptance = pdus.decode_acceptance(content, self._encodings)
            elif kind == pdus.ASSOCIATE_RJ:
                self._raise_rejected(pdus.decode_rejection(content))
            elif kind == pdus.ABORT:
                raise Unreachable(f"{self._peer} aborted the association; its log says why")
            else:
                self._raise_malformed()
        except (Ended, _Silent):
            self._raise_unanswered()
        except Malformed:
            self._raise_malformed()
        self.accepted, self._longest = acceptance.accepted, acceptance.longest
        if not self.accepted:
            names = ", ".join(dict.fromkeys(UID(abstract).name for abstract, _ in self._encodings))
            raise Refused(f"{self._peer} accepts none of the proposed SOP classes: {names}")

    def _write_fragments(self, context: int, content: BinaryIO, control: int) -> None:
        size = self._longest - pdus.VALUE_HEADER.size
        fragment = content.read(size)
        while following := content.read(size):
            self._write(pdus.encode_value(context, control, fragment))
            fragment = following
        self._write(pdus.encode_value(context, control | _LAST, fragment))

    def _read_data(self) -> bytes:
        """The content of the next PDU, which must be a P-DATA-TF.

        Raises:
            Malformed: it is another.
        """
        kind, content = self._read_pdu()
        if kind == pdus.ABORT:
            self._raise_ended()
        if kind != pdus.P_DATA:
            raise Malformed
        return content

    def _read_pdu(self) -> tuple[int, bytes]:
        """Kind and content of the next PDU.

        Raises:
            Malformed: it is none, or too long.
        """
        kind, _, length = pdus.HEADER.unpack(self._read(pdus.HEADER.size))
        if not pdus.ASSOCIATE_AC <= kind <= pdus.ABORT or length > pdus.LONGEST_TAKEN:
            raise Malformed
        return kind, self._read(length)

    def _read(self, count: int) -> bytes:
        content = bytearray()
        while len(content) < count:
            if self._socket is None:
                self._raise_ended()
            self._socket.settimeout(self._deadline.wait_s())
            try:
                part = self._socket.recv(min(count - len(content), 65_536))
            except TimeoutError:
                self._raise_silent()
            except OSError:
                part = b""
            if not part:
                self._raise_ended()
            content += part
        return bytes(content)

    def _write(self, content: bytes) -> None:
        if self._socket is None:
            self._raise_ended()
        self._socket.settimeout(self._deadline.wait_s())
        try:
            self._socket.sendall(content)
        except TimeoutError:
            self._raise_silent()
        except OSError:
            self._raise_ended()

    def _release(self) -> None:
        """Releases the association. It makes no difference to what was sent how that ends."""
        if self._socket is None:
            return
        self._deadline = Deadline(self._destination.name, RELEASE_S, RELEASE_S)
        with suppress(Unreachable, Malformed):
            self._write(pdus.HEADER.pack(pdus.RELEASE_RQ, 0, 4) + bytes(4))
            self._read_pdu()
            self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def _peer(self) -> str:
        to = self._destination
        return f"{to.name} ({to.called_ae_title} at {to.host}:{to.port})"

    def _raise_rejected(self, rejection: pdus.Rejection) -> NoReturn:
        todo = "check the AE titles on both sides" if rejection.unknown_title else "see its log"
        raise Rejected(
            f"{self._peer} rejected the association: {rejection.reason}; {todo}",
            for_good=rejection.for_good,
        )

    def _raise_unanswered(self, kind: type[Unreachable] = Unreachable) -> NoReturn:
        self._deadline.wait_s()
        raise kind(
            f"{self._peer} does not answer; check host, port and that it is running"
        ) from None

    def _raise_silent(self) -> NoReturn:
        self.abort()
        self._deadline.wait_s()
        raise _Silent(f"{self._destination.name} did not respond in time; try again") from None

    def _raise_ended(self) -> NoReturn:
        self._close()
        raise Ended(f"the connection with {self._destination.name} was lost; try again") from None

    def _raise_malformed(self) -> NoReturn:
        self.abort()
        raise Unintelligible(
            f"{self._peer} sent what is not DICOM, or longer than any response; "
            "check host and port, and its log"
        ) from None
