"""An established association: its messages, one after the other, until it is released or aborted.

The next message is read only once the one before it is answered, so that a peer that does not wait
for answers (PS3.7 D.3.3.3) waits for us.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from struct import Struct
from typing import Protocol

from scp.admission import Connection
from scp.association_request import NO_LIMIT
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

_P_DATA_HEAD = Struct(">BxL")  # type, length of what follows it
_PDV = Struct(">LBB")  # length of what follows it, context, message control header (PS3.8 E.2)
_PDV_LENGTH_COUNTS = 2  # bytes of that head are counted by its length
_COMMAND, _LAST = 0x01, 0x02  # bits of the control header


class DataSet(Protocol):
    """What becomes of a message's data set."""

    limit: int | None  # bytes after which the association ends; None: it refuses the rest itself

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
        maximum_length: int = NO_LIMIT,
    ) -> None:
        """``maximum_length``: of the content of a PDU that the peer receives; NO_LIMIT: any."""
        self._stream = stream
        self._contexts = contexts
        self._storage = storage
        self._connection = connection
        self._maximum_length = maximum_length
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
        if not content:  # it says nothing; PS3.8 9.3.5 demands one
            self._connection.note("P-DATA-TF without a value")
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
        for oddity in command.oddities:
            self._connection.note(oddity)
        if command.field == C_CANCEL_RQ:  # nothing that it could cancel takes long
            return
        if not command.sop_class_uid:  # the context states it as well
            command = replace(command, sop_class_uid=self._contexts[context_id].abstract_syntax)
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
        limit = message.data_set.limit
        if limit is not None and message.size > limit:
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
        self._stream.send(encode_command(response, message.context_id, self._maximum_length))
        if message.command.field == C_STORE_RQ:
            self._storage.prepare()


def encode_command(command: bytes, context_id: int, maximum_length: int) -> bytes:
    """A command set as P-DATA-TF PDUs that the peer can receive (PS3.8 9.3.5, D.1 and E.2).

    Fragments are even, so a peer that receives less than 8 bytes gets 8 nevertheless.
    """
    size = len(command)
    if maximum_length != NO_LIMIT:
        size = max(2, (maximum_length - _PDV.size) // 2 * 2)
    pdus = bytearray()
    for start in range(0, len(command), size):
        fragment = command[start : start + size]
        control = _COMMAND | (_LAST if start + size >= len(command) else 0)
        pdus += _P_DATA_HEAD.pack(P_DATA, _PDV.size + len(fragment))
        pdus += _PDV.pack(len(fragment) + _PDV_LENGTH_COUNTS, context_id, control) + fragment
    return bytes(pdus)


class _Ignored:
    """The data set that a C-ECHO does not have."""

    limit: int | None = MAX_OTHER

    def write(self, fragment: memoryview) -> None:
        """Drops it."""

    def finish(self) -> int:
        """Always success."""
        return SUCCESS

    def discard(self) -> None:
        """Nothing is kept."""
