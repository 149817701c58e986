"""Command sets: the commands of DIMSE messages (PS3.7 6.3.1 and annex E), in Implicit VR."""

from dataclasses import dataclass
from struct import Struct, error, pack

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0FFF
RESPONSE = 0x8000  # the bit of Command Field that marks a response
NO_DATA_SET = 0x0101

_GROUP_LENGTH, _SOP_CLASS, _COMMAND_FIELD, _MESSAGE_ID = 0x0000, 0x0002, 0x0100, 0x0110
_RESPONDED_TO, _DATA_SET_TYPE, _STATUS, _SOP_INSTANCE = 0x0120, 0x0800, 0x0900, 0x1000
_ELEMENT = Struct("<HHL")


class CommandError(Exception):
    """The command set is malformed, or lacks an element; the text is the reason to log."""


@dataclass(frozen=True)
class Command:
    """What a request's command set states."""

    field: int
    message_id: int
    sop_class_uid: str  # as sent, without padding; not validated
    sop_instance_uid: str  # empty where the command has none
    has_data_set: bool


def decode(content: bytes | bytearray) -> Command:
    """The command.

    Raises:
        CommandError: it is malformed, or lacks an element that a request of its kind must have.
    """
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(content):
        try:
            group, element, length = _ELEMENT.unpack_from(content, at)
        except error:
            raise CommandError("message cannot be decoded") from None
        at += _ELEMENT.size
        if group != 0 or length > len(content) - at:
            raise CommandError("message cannot be decoded")
        elements[element] = bytes(content[at : at + length])
        at += length
    field = _number(elements, _COMMAND_FIELD)
    has_data_set = _number(elements, _DATA_SET_TYPE) != NO_DATA_SET
    if field == C_CANCEL_RQ:
        return Command(field, 0, "", "", has_data_set=False)
    sop_class, instance = (_uid(elements, tag) for tag in (_SOP_CLASS, _SOP_INSTANCE))
    if not sop_class or (field == C_STORE_RQ and not instance):
        raise CommandError("request lacks a command element")
    return Command(field, _number(elements, _MESSAGE_ID), sop_class, instance, has_data_set)


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
