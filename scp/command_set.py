"""Command sets: the commands of DIMSE messages (PS3.7 6.3.1 and annex E), in Implicit VR.

What a request states beyond its meaning (its own length, a priority) is not needed, and elements
that are not known are ignored.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, pack

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0FFF
RESPONSE = 0x8000  # the bit of Command Field that marks a response
NO_DATA_SET = 0x0101

_GROUP_LENGTH, _SOP_CLASS, _COMMAND_FIELD, _MESSAGE_ID = 0x0000, 0x0002, 0x0100, 0x0110
_RESPONDED_TO, _PRIORITY, _DATA_SET_TYPE = 0x0120, 0x0700, 0x0800
_STATUS, _SOP_INSTANCE = 0x0900, 0x1000
_PRIORITIES = [pack("<H", priority) for priority in (0, 1, 2)]  # PS3.7 table E.1-1
_ELEMENT = Struct("<HHL")
_GROUP_LENGTH_SIZE = 12  # bytes of the first element, which states the length of the others


class CommandError(Exception):
    """The command set is malformed, or lacks an element; the text is the reason to log."""


@dataclass(frozen=True)
class Command:
    """What a request's command set states."""

    field: int
    message_id: int
    sop_class_uid: str  # as sent, without padding; not validated; empty where there is none
    sop_instance_uid: str  # the same
    has_data_set: bool
    # what is not as it should be and was ignored
    oddities: tuple[str, ...] = dataclasses.field(default=(), compare=False)


def decode(content: bytes | bytearray) -> Command:
    """The command.

    Raises:
        CommandError: it is malformed, or lacks an element that a request of its kind must have.
    """
    elements = _elements(content)
    kind = _number(elements, _COMMAND_FIELD)
    oddities = tuple(_oddities(kind, elements, len(content)))
    if kind == C_CANCEL_RQ:
        return Command(kind, 0, "", "", has_data_set=False, oddities=oddities)
    sop_class, instance = (_uid(elements, tag) for tag in (_SOP_CLASS, _SOP_INSTANCE))
    if kind == C_STORE_RQ and not instance:
        raise CommandError("request lacks a command element")
    has_data_set = kind == C_STORE_RQ  # where it does not say
    if len(elements.get(_DATA_SET_TYPE, b"")) == 2:
        has_data_set = _number(elements, _DATA_SET_TYPE) != NO_DATA_SET
    message_id = _number(elements, _MESSAGE_ID)
    return Command(kind, message_id, sop_class, instance, has_data_set, oddities)


def _elements(content: bytes | bytearray) -> dict[int, bytes]:
    """The elements of group 0000. A rest that is too short for an element is ignored.

    Raises:
        CommandError: an element is longer than what is left.
    """
    elements: dict[int, bytes] = {}
    at = 0
    while at + _ELEMENT.size <= len(content):
        group, element, length = _ELEMENT.unpack_from(content, at)
        at += _ELEMENT.size
        if length > len(content) - at:
            raise CommandError("message cannot be decoded")
        if group == 0:
            elements[element] = bytes(content[at : at + length])
        at += length
    return elements


def _oddities(kind: int, elements: dict[int, bytes], size: int) -> Iterator[str]:
    """What a request should state otherwise, and what nothing depends on."""
    if elements.get(_GROUP_LENGTH) != pack("<L", max(size - _GROUP_LENGTH_SIZE, 0)):
        yield "command group length missing or wrong"
    if kind == C_CANCEL_RQ:
        return
    if kind == C_STORE_RQ and elements.get(_PRIORITY) not in _PRIORITIES:
        yield "priority missing or unknown"
    if not _uid(elements, _SOP_CLASS):
        yield "no affected SOP class UID"
    if len(elements.get(_DATA_SET_TYPE, b"")) != 2:
        yield "no command data set type"


def encode_response(request: Command, status: int) -> bytes:
    """The command set of the response to a request, with no data set."""
    elements = [
        (_SOP_CLASS, _padded(request.sop_class_uid)),
        (_COMMAND_FIELD, pack("<H", request.field | RESPONSE)),
        (_RESPONDED_TO, pack("<H", request.message_id)),
        (_DATA_SET_TYPE, pack("<H", NO_DATA_SET)),
        (_STATUS, pack("<H", status)),
    ]
    if request.sop_instance_uid:
        elements.append((_SOP_INSTANCE, _padded(request.sop_instance_uid)))
    content = b"".join(_ELEMENT.pack(0, tag, len(value)) + value for tag, value in elements)
    return _ELEMENT.pack(0, _GROUP_LENGTH, 4) + pack("<L", len(content)) + content


def _number(elements: dict[int, bytes], element: int) -> int:
    value = elements.get(element, b"")
    if len(value) != 2:
        raise CommandError("request lacks a command element")
    return int.from_bytes(value, "little")


def _uid(elements: dict[int, bytes], element: int) -> str:
    return elements.get(element, b"").rstrip(b" \0").decode("ascii", "replace")


def _padded(uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    return value + b"\0" * (len(value) % 2)
