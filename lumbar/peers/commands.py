"""DIMSE operations: a request's command set, and its responses (PS3.7 9.3 and annex E)."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from struct import pack
from typing import BinaryIO

from lumbar.peers.association import Association, Message
from lumbar.peers.outcomes import Unintelligible

C_STORE, C_FIND, C_ECHO = 0x0001, 0x0020, 0x0030
PENDING = (0xFF00, 0xFF01)

_RESPONSE = 0x8000  # the bit of Command Field that marks a response
_NO_DATA_SET, _DATA_SET = 0x0101, 0x0000
_MEDIUM = 0x0000  # priority
_COMMAND_FIELD, _RESPONDED_TO, _STATUS, _SOP_INSTANCE = 0x0100, 0x0120, 0x0900, 0x1000


@dataclass(frozen=True)
class Request:
    """What is asked of a peer. ``sop_instance_uid``: of the instance to store."""

    field: int
    sop_class_uid: str
    sop_instance_uid: str = ""


@dataclass(frozen=True)
class Response:
    """``sop_instance_uid``: the one it names, or empty; ``identifier``: as it is encoded."""

    status: int
    sop_instance_uid: str
    identifier: bytes


def responses(
    association: Association,
    peer: str,
    context: int,
    request: Request,
    data_set: BinaryIO | bytes | None = None,
) -> Iterator[Response]:
    """Sends a request and yields its responses, up to the first that is not pending.

    Raises:
        Unreachable: there is no response in time, or the association is lost.
        Unintelligible: what comes is not a response to this request.
        OSError: the data set cannot be read.
    """
    association.messages_sent += 1
    message_id = association.messages_sent % 0x10000
    content = BytesIO(data_set) if isinstance(data_set, bytes) else data_set
    command = _encode(request, message_id, has_data_set=content is not None)
    association.send(context, command, content)
    while True:
        response = _decode(association.receive(), request, message_id)
        if response is None:
            association.abort()
            raise Unintelligible(f"{peer} sent what is not a response to the request; try again")
        yield response
        if response.status not in PENDING:
            return


def respond(
    association: Association,
    peer: str,
    context: int,
    request: Request,
    data_set: BinaryIO | None = None,
) -> Response:
    """The one response to a request; see ``responses``."""
    return next(responses(association, peer, context, request, data_set))


def _encode(request: Request, message_id: int, *, has_data_set: bool) -> bytes:
    elements = [
        (0x0002, _padded(request.sop_class_uid)),
        (_COMMAND_FIELD, pack("<H", request.field)),
        (0x0110, pack("<H", message_id)),
        (0x0800, pack("<H", _DATA_SET if has_data_set else _NO_DATA_SET)),
    ]
    if has_data_set:
        elements.insert(3, (0x0700, pack("<H", _MEDIUM)))
    if request.sop_instance_uid:
        elements.append((_SOP_INSTANCE, _padded(request.sop_instance_uid)))
    content = b"".join(pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)
    return pack("<HHLL", 0, 0, 4, len(content)) + content


def _decode(message: Message, request: Request, message_id: int) -> Response | None:
    """The response; None if it is none to this request, or states no status."""
    numbers = {
        tag: int.from_bytes(value, "little")
        for tag, value in message.command.items()
        if len(value) == 2
    }
    if numbers.get(_COMMAND_FIELD) != request.field | _RESPONSE:
        return None
    if numbers.get(_RESPONDED_TO) != message_id or _STATUS not in numbers:
        return None
    uid = message.command.get(_SOP_INSTANCE, b"").rstrip(b" \0").decode("ascii", "replace")
    return Response(numbers[_STATUS], uid, message.data_set)


def _padded(uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    return value + b"\0" * (len(value) % 2)
