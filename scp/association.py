"""An established association: its messages, one after the other, until it is released or aborted.

The next message is read only once the one before it is answered, so that a peer that does not wait
for answers (PS3.7 D.3.3.3) waits for us.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Protocol

from scp.admission import Connection
from scp.command_set import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_STORE_RQ,
    Command,
    CommandError,
    decode,
    encode_response,
)
from scp.negotiation import AcceptedContext
from scp.pdu_stream import ABORT, P_DATA, RELEASE_RP_PDU, RELEASE_RQ, PduStream

MAX_OTHER = 2**20  # bytes of a command set, or of the data set of any message but a C-STORE
SUCCESS = 0x0000

_PDV = Struct(">LBB")  # length of what follows it, context, message control header (PS3.8 E.2)
_PDV_LENGTH_COUNTS = 2  # bytes of that head are counted by its length
_COMMAND, _LAST = 0x01, 0x02  # bits of the control header


class DataSet(Protocol):
    """What becomes of a message's data set."""

    limit: int  # bytes

    def write(self, fragment: memoryview) -> None:
        """Takes the next fragment, which is valid only within the call."""

    def finish(self) -> int:
        """The status to answer with, once the data set is complete."""

    def discard(self) -> None:
        """The message is answered, or its association has ended."""


class Storage(Protocol):
    """The C-STORE service of one association."""

    def receive(self, context: AcceptedContext, command: Command) -> DataSet:
        """What takes the data set of a request."""

    def prepare(self) -> None:
        """A request was answered, and the next may come."""

    def close(self) -> None:
        """The association has ended."""


@dataclass
class _Message:
    """A request whose data set is arriving."""

    context_id: int
    command: Command
    data_set: DataSet
    size: int = 0  # bytes of the data set so far


class Association:
    """Serves C-ECHO and C-STORE on an accepted association."""

    def __init__(
        self,
        stream: PduStream,
        contexts: Mapping[int, AcceptedContext],
        storage: Storage,
        connection: Connection,
    ) -> None:
        self._stream = stream
        self._contexts = contexts
        self._storage = storage
        self._connection = connection
        self._command = bytearray()
        self._command_context: int | None = None
        self._message: _Message | None = None

    def serve(self) -> None:
        """Answers messages until the peer releases the association.

        Raises:
            ConnectionEnded: it has ended otherwise.
        """
        try:
            while True:
                kind, content = self._stream.read()
                if kind == P_DATA:
                    for context_id, control, fragment in self._fragments(content):
                        self._take(context_id, control, fragment)
                elif kind == RELEASE_RQ:
                    self._stream.send(RELEASE_RP_PDU)
                    self._stream.wait_until_closed()
                    return
                elif kind == ABORT:
                    self._stream.peer_aborted()
                else:
                    self._stream.abort("PDU not expected in an association")
        finally:
            if self._message is not None:
                self._message.data_set.discard()
            self._storage.close()

    def _fragments(self, content: memoryview) -> Iterator[tuple[int, int, memoryview]]:
        """The presentation data values of a P-DATA-TF: context, control header, fragment."""
        if not content:
            self._stream.abort("PDU cannot be decoded")
        at = 0
        while at < len(content):
            if len(content) - at < _PDV.size:
                self._stream.abort("PDU cannot be decoded")
            length, context_id, control = _PDV.unpack_from(content, at)
            end = at + _PDV.size - _PDV_LENGTH_COUNTS + length
            if length < _PDV_LENGTH_COUNTS or end > len(content):
                self._stream.abort("PDU cannot be decoded")
            yield context_id, control, content[at + _PDV.size : end]
            at = end

    def _take(self, context_id: int, control: int, fragment: memoryview) -> None:
        if context_id not in self._contexts:
            self._stream.abort("presentation context not accepted")
        if control & _COMMAND:
            self._take_command(context_id, fragment, last=bool(control & _LAST))
        else:
            self._take_data(context_id, fragment, last=bool(control & _LAST))

    def _take_command(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
        if self._message is not None or self._command_context not in (None, context_id):
            self._stream.abort("message cannot be decoded")
        self._command_context = context_id
        self._command += fragment
        if len(self._command) > MAX_OTHER:
            self._stream.abort("message larger than allowed")
        if last:
            command = self._decoded()
            self._command, self._command_context = bytearray(), None
            self._begin(context_id, command)

    def _decoded(self) -> Command:
        try:
            return decode(self._command)
        except CommandError as error:
            self._stream.abort(str(error))

    def _begin(self, context_id: int, command: Command) -> None:
        if command.field == C_CANCEL_RQ:  # nothing that it could cancel takes long
            return
        if command.field == C_STORE_RQ:
            data_set = self._storage.receive(self._contexts[context_id], command)
        elif command.field == C_ECHO_RQ:
            data_set = _Ignored()
        else:
            self._stream.abort("message not supported")
        self._message = _Message(context_id, command, data_set)
        self._connection.begin_message()
        if not command.has_data_set:
            self._answer(self._message)

    def _take_data(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
        message = self._message
        if message is None or message.context_id != context_id:
            self._stream.abort("message cannot be decoded")
        message.size += len(fragment)
        if message.size > message.data_set.limit:
            self._stream.abort("message larger than allowed")
        message.data_set.write(fragment)
        if last:
            self._answer(message)

    def _answer(self, message: _Message) -> None:
        self._connection.end_message()
        status = message.data_set.finish()
        message.data_set.discard()
        self._message = None
        response = encode_response(message.command, status)
        length = len(response) + _PDV_LENGTH_COUNTS
        pdv = _PDV.pack(length, message.context_id, _COMMAND | _LAST) + response
        self._stream.send(P_DATA.to_bytes() + b"\0" + len(pdv).to_bytes(4) + pdv)
        if message.command.field == C_STORE_RQ:
            self._storage.prepare()


class _Ignored:
    """The data set that a C-ECHO does not have."""

    limit = MAX_OTHER

    def write(self, fragment: memoryview) -> None:
        """Drops it."""

    def finish(self) -> int:
        """Always success."""
        return SUCCESS

    def discard(self) -> None:
        """Nothing is kept."""
