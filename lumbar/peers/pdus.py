"""What an association's requestor sends and receives, as it is encoded (PS3.8 9.3, PS3.7 6.3.1)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct, pack, unpack

from pydicom.uid import PYDICOM_IMPLEMENTATION_UID

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
HEADER = Struct(">BBL")  # of a PDU
VALUE_HEADER = Struct(">LBB")  # of a presentation data value
LONGEST_TAKEN = 2**20  # PDU that we take, although we ask for shorter ones
LONGEST_SENT, SHORTEST_SENT = 131_072, 64  # PDUs to the peer, whatever it asks for

_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_WANTED = 65_536
_ITEM, _ELEMENT = Struct(">BBH"), Struct("<HHL")

# PS3.8 table 9-21: by source and reason
_REJECTIONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
_UNKNOWN_TITLES = ((1, 3), (1, 7))

Encoding = tuple[str, str]  # abstract syntax, transfer syntax


class Malformed(Exception):
    """The peer does not keep to the encoding."""


@dataclass(frozen=True)
class Acceptance:
    """The accepted contexts' numbers, and the length of the longest PDU that the peer takes."""

    accepted: Mapping[Encoding, int]
    longest: int


@dataclass(frozen=True)
class Rejection:
    """Why the peer rejected the association. ``for_good``: it says so and blames no AE title."""

    reason: str
    unknown_title: bool
    for_good: bool


def encode_request(called: str, calling: str, encodings: Sequence[Encoding]) -> bytes:
    """The A-ASSOCIATE-RQ. Each context has one transfer syntax; the first has the number 1."""
    contexts = (
        _item(
            0x20,
            bytes((2 * number + 1, 0, 0, 0)),
            _item(0x30, abstract.encode()),
            _item(0x40, transfer.encode()),
        )
        for number, (abstract, transfer) in enumerate(encodings)
    )
    user_information = (
        _item(0x51, pack(">L", _WANTED)),
        _item(0x52, PYDICOM_IMPLEMENTATION_UID.encode()),
        _item(0x55, b"LUMBAR-TRIAGE"),
    )
    content = b"".join(
        (
            pack(">HH", 1, 0),
            called.encode().ljust(16),
            calling.encode().ljust(16),
            bytes(32),
            _item(0x10, _APPLICATION_CONTEXT),
            *contexts,
            _item(0x50, *user_information),
        )
    )
    return HEADER.pack(ASSOCIATE_RQ, 0, len(content)) + content


def decode_acceptance(content: bytes, encodings: Sequence[Encoding]) -> Acceptance:
    """The A-ASSOCIATE-AC to that request.

    Raises:
        Malformed: it is none.
    """
    accepted: dict[Encoding, int] = {}
    longest = LONGEST_SENT
    for kind, item in _items(content[68:]):
        if kind == 0x21 and item[2:3] == b"\0":
            number = item[0]
            syntaxes = [uid.rstrip(b"\0 ") for sub, uid in _items(item[4:]) if sub == 0x40]
            if number % 2 and number // 2 < len(encodings):
                encoding = encodings[number // 2]
                if syntaxes == [encoding[1].encode()]:
                    accepted[encoding] = number
        elif kind == 0x50:
            for sub, value in _items(item):
                if sub == 0x51 and len(value) == 4:  # 0: of any length
                    longest = min(unpack(">L", value)[0] or LONGEST_SENT, LONGEST_SENT)
    if longest < SHORTEST_SENT:
        raise Malformed
    return Acceptance(accepted, longest)


def decode_rejection(content: bytes) -> Rejection:
    """The A-ASSOCIATE-RJ.

    Raises:
        Malformed: it is none.
    """
    if len(content) < 4:
        raise Malformed
    why = content[2], content[3]
    unknown_title = why in _UNKNOWN_TITLES
    for_good = content[1] == 1 and not unknown_title
    return Rejection(_REJECTIONS.get(why, "no known reason"), unknown_title, for_good)


def encode_value(context: int, control: int, fragment: bytes) -> bytes:
    """A P-DATA-TF with one presentation data value."""
    value = VALUE_HEADER.pack(len(fragment) + 2, context, control) + fragment
    return HEADER.pack(P_DATA, 0, len(value)) + value


def decode_values(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Control and fragment of each presentation data value of a P-DATA-TF.

    Raises:
        Malformed: it is none.
    """
    at = 0
    while at < len(content):
        if at + VALUE_HEADER.size > len(content):
            raise Malformed
        length, _, control = VALUE_HEADER.unpack_from(content, at)
        end = at + 4 + length
        if length < 2 or end > len(content):
            raise Malformed
        yield control, content[at + VALUE_HEADER.size : end]
        at = end


def decode_command(content: bytes | bytearray) -> dict[int, bytes]:
    """A command set's elements, by their number in group 0000.

    Raises:
        Malformed: it is none.
    """
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(content):
        if at + _ELEMENT.size > len(content):
            raise Malformed
        group, element, length = _ELEMENT.unpack_from(content, at)
        at += _ELEMENT.size
        if group != 0 or length > len(content) - at:
            raise Malformed
        elements[element] = bytes(content[at : at + length])
        at += length
    return elements


def _item(kind: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return _ITEM.pack(kind, 0, len(content)) + content


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The items of an A-ASSOCIATE-AC, or the sub-items of an item.

    Raises:
        Malformed: one is longer than what is left.
    """
    at = 0
    while at < len(content):
        if at + _ITEM.size > len(content):
            raise Malformed
        kind, _, length = _ITEM.unpack_from(content, at)
        at += _ITEM.size
        if at + length > len(content):
            raise Malformed
        yield kind, content[at : at + length]
        at += length
