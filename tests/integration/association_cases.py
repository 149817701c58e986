"""Association requests that are not as they should be.

By the lines of the section "Association requests" of ``docs/what-is-accepted.md``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from struct import pack

from tests.hostile import wire
from tests.hostile.wire import (
    EXPLICIT,
    IMAGE,
    IMPLICIT,
    MR,
    ORDINARY,
    associate_rq,
    context_item,
    item,
    pdu,
)

OTHER = 5  # a presentation context beside the two ordinary ones
APPLICATION = item(0x10, wire.APPLICATION)
CONTEXTS = b"".join(context_item(*context) for context in ORDINARY)
LENGTH, CLASS = item(0x51, pack(">L", 16384)), item(0x52, b"1.2.3.4")

Messages = Callable[[bytes, bytes], list[bytes]]  # PDUs, of an image's UID and its data set


def image(uid: bytes, dataset: bytes) -> list[bytes]:
    return list(wire.store_rq(uid, dataset))


@dataclass(frozen=True)
class Case:
    """One way to do what a line says."""

    request: bytes = field(default_factory=associate_rq, repr=False)
    odd: str = ""  # the reason that is logged, if it is logged as odd
    messages: Messages = image
    known_aes: str = ""
    limit: int = 0  # the maximum length that it states


def changed(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def user(*sub_items: bytes) -> bytes:
    return associate_rq(user=item(0x50, b"".join(sub_items)))


def items(*parts: bytes) -> bytes:
    return associate_rq(items=b"".join(parts))


def beside(*sub_items: bytes, number: int = OTHER) -> bytes:
    """An ordinary request with another context, which consists of these sub-items."""
    other = item(0x20, bytes((number, 0, 0, 0)) + b"".join(sub_items))
    return items(APPLICATION, CONTEXTS, other, wire.USER)


def abstract(name: bytes = MR.encode()) -> bytes:
    return item(0x30, name)


def transfer(name: bytes = EXPLICIT.encode()) -> bytes:
    return item(0x40, name)


def padded_contexts(pad: str) -> wire.Contexts:
    return [(n, uid + pad, [name + pad for name in syntaxes]) for n, uid, syntaxes in ORDINARY]


def role(uid: bytes, scu: int, scp: int) -> bytes:
    return item(0x54, pack(">H", len(uid)) + uid + bytes((scu, scp)))


BLANK = "calling AE title blank or not valid"
INVALID = (b"MR\\1", b"MR\x1b[31m", b"\xe9\xe8\xff", b"MR\nevent=forged", b"M\0R", b"\xff" * 16)
NO_SYNTAX, NO_CLASS = (
    f"presentation context without {what}" for what in ("a transfer syntax", "an abstract syntax")
)
NO_LENGTH, NO_APPLICATION = "no maximum length", "no application context"
NO_UID = "name that is not a UID"
CALLED_NUL, CALLING_NUL = (f"{which} AE title with NUL" for which in ("called", "calling"))
NO_IMPLEMENTATION = "no implementation class UID"
PADDED = "UID with padding"
REPEATED = "repeated presentation context number"
NO_NUMBER = "presentation context without a number"

REQUESTS: dict[str, list[Case]] = {
    "a blank calling AE title": [
        Case(associate_rq(calling=title), BLANK) for title in (b"", bytes(16), b" \0 \0")
    ],
    "a calling AE title with characters that none may have": [
        Case(associate_rq(calling=title), BLANK) for title in INVALID
    ],
    "a blank or invalid calling AE title, where `LUMBAR_KNOWN_AES` is set": [
        Case(associate_rq(calling=title), BLANK, known_aes="MR1,UNKNOWN")
        for title in (b"", bytes(16), b"MR1\0x", b"MR1\n", *INVALID)
    ],
    "AE titles padded with NUL, or with spaces before them": [
        Case(associate_rq(called=b"LUMBAR".ljust(16, b"\0")), CALLED_NUL),
        Case(associate_rq(called=b"LUMBAR\0", calling=b"HOSTILE".ljust(16, b"\0")), CALLING_NUL),
        Case(associate_rq(called=b"  LUMBAR", calling=b" HOSTILE")),
        Case(associate_rq(called=b"\0LUMBAR \0", calling=b"\0HOSTILE\0 "), CALLED_NUL),
    ],
    "a known calling AE title padded with NUL, where `LUMBAR_KNOWN_AES` is set": [
        Case(associate_rq(calling=title), CALLING_NUL, known_aes="HOSTILE")
        for title in (b"HOSTILE\0", b"HOSTILE".ljust(16, b"\0"))
    ],
    "a called AE title with anything after a NUL": [
        Case(associate_rq(called=title), CALLED_NUL)
        for title in (b"LUMBAR\0\xcc\xcc", b"LUMBAR\0PACS")
    ],
    "another called AE title, or a blank one": [
        Case(associate_rq(called=title)) for title in (b"", b"lumbar", b"LUMBAR\n", b"LUMBAR2")
    ],
    "a protocol version with more bits than the first": [
        Case(changed(associate_rq(), 6, version)) for version in (b"\0\3", b"\xff\xff")
    ],
    "a protocol version without the first bit": [
        Case(changed(associate_rq(), 6, version)) for version in (b"\0\0", b"\0\2", b"\1\0")
    ],
    "reserved bytes that are not zero": [
        Case(changed(associate_rq(), 1, b"\xff")),
        Case(changed(changed(associate_rq(), 8, b"\xff\xff"), 42, bytes(range(1, 33)))),
        Case(
            items(
                APPLICATION,
                *(
                    changed(changed(c, 1, b"\x7f"), 5, b"\1\2\3")
                    for c in (context_item(*context) for context in ORDINARY)
                ),
                changed(wire.USER, 1, b"\xff"),
            )
        ),
    ],
    "items that no standard defines": [
        Case(items(item(0x99, b"x" * 50), APPLICATION, CONTEXTS, wire.USER), "unknown item 99"),
        Case(items(APPLICATION, CONTEXTS, wire.USER, item(0x00, b"")), "unknown item 00"),
        Case(items(APPLICATION, item(0x21, b"\3\0\0\0"), CONTEXTS, wire.USER), "unknown item 21"),
    ],
    "bytes after the last item that are too few for one": [
        Case(items(APPLICATION, CONTEXTS, wire.USER, rest)) for rest in (b"\0", b"\x20\0\0")
    ],
    "no application context": [
        Case(items(CONTEXTS, wire.USER), NO_APPLICATION),
        Case(associate_rq(application=b""), NO_APPLICATION),
    ],
    "another application context": [
        Case(associate_rq(application=name)) for name in (b"1.2.3.4", b"\xe9", b"1." * 40 + b"1")
    ],
    "UIDs padded with NUL or spaces": [
        Case(associate_rq(application=wire.APPLICATION + b"\0"), PADDED),
        *(Case(associate_rq(padded_contexts(pad)), PADDED) for pad in ("\0", " ", "\0\0 ")),
    ],
    "no user information": [
        Case(items(APPLICATION, CONTEXTS), NO_LENGTH),
        Case(associate_rq(user=item(0x50, b"")), NO_IMPLEMENTATION),
    ],
    "user information that is cut short": [
        Case(user(LENGTH, CLASS, item(0x55, b"V1", 40)), "user information cut short"),
        Case(user(item(0x51, b"\0\0", 4)), "user information cut short"),
    ],
    "user information of types that no standard defines": [
        Case(user(item(kind, b"x" * 9), LENGTH, CLASS), f"unknown sub-item {kind:02X}")
        for kind in (0x00, 0x59, 0x99, 0xFF)
    ],
    "a maximum length that is missing, malformed or 0": [
        Case(user(CLASS), NO_LENGTH),
        Case(user(item(0x51, b"\0\0\1"), CLASS), NO_LENGTH),
        Case(user(item(0x51, b""), CLASS), NO_LENGTH),
        Case(user(item(0x51, bytes(4)), CLASS)),
        Case(user(item(0x51, b"\xff" * 4), CLASS)),
    ],
    "a maximum length that is shorter than our answers": [
        Case(user(item(0x51, pack(">L", limit)), CLASS), limit=limit)
        for limit in (1, 6, 7, 8, 9, 64, 128)
    ],
    "no implementation class UID": [
        Case(user(LENGTH), NO_IMPLEMENTATION),
        Case(user(LENGTH, item(0x52, b"")), NO_IMPLEMENTATION),
    ],
    "an implementation version name that is empty or too long": [
        Case(user(LENGTH, CLASS, item(0x55, name)), "implementation version name empty or too long")
        for name in (b"", b"V" * 17, b"\xff" * 1000)
    ],
    "roles other than ours": [
        Case(user(LENGTH, CLASS, role(MR.encode(), *roles)))
        for roles in ((0, 1), (0, 0), (1, 1), (2, 255))
    ],
    "an operations window, extended negotiation or user identity": [
        Case(user(LENGTH, CLASS, item(0x53, pack(">HH", 0, 0)))),
        Case(user(LENGTH, CLASS, item(0x56, pack(">H", len(MR)) + MR.encode() + b"\2\1\1"))),
        Case(user(LENGTH, CLASS, item(0x57, pack(">H", 3) + b"1.2" + pack(">H", 0) + bytes(2)))),
        Case(user(LENGTH, CLASS, item(0x58, b"\2\1\0\4user\0\4pass"))),
    ],
    "malformed roles, operations window, extended negotiation or user identity": [
        Case(user(LENGTH, CLASS, item(kind, content)))
        for kind in (0x53, 0x54, 0x56, 0x57, 0x58)
        for content in (b"", b"\xff", b"\xff\xff1.2", b"\0\x001.2.x")
    ],
    "a context without a transfer syntax": [
        Case(beside(abstract()), NO_SYNTAX),
        Case(beside(abstract(), transfer(b"")), NO_SYNTAX),
        Case(beside(abstract(), transfer(b"../../etc")), NO_SYNTAX),
        Case(beside(abstract(), transfer(b"\xe91.2")), NO_SYNTAX),
        Case(beside(abstract(), transfer(b"1." * 40 + b"1")), NO_SYNTAX),
    ],
    "a context with a transfer syntax of ours and one that is not a UID": [
        Case(beside(abstract(), transfer(b""), transfer()), NO_UID),
        Case(beside(abstract(), transfer(), transfer(b"x")), NO_UID),
    ],
    "a context without an abstract syntax": [
        Case(beside(transfer()), NO_CLASS),
        Case(beside(abstract(b""), transfer()), NO_CLASS),
        Case(beside(abstract(b"1.2.\xe9\xff"), transfer()), NO_CLASS),
        Case(beside(abstract(b"1." * 499 + b"1"), transfer()), NO_CLASS),
        Case(beside(), NO_CLASS),
    ],
    "a context that is cut short": [
        Case(beside(abstract(), item(0x40, b"1.2", 500)), "presentation context cut short"),
    ],
    "a context with sub-items that no standard defines": [
        Case(beside(item(0x77, b"x"), abstract(), transfer()), "unknown sub-item 77"),
    ],
    "a context with an even number": [
        Case(beside(abstract(), transfer(), number=number), "even presentation context number")
        for number in (0, 2, 254)
    ],
    "a context number twice": [
        Case(beside(abstract(name), transfer(), number=IMAGE), REPEATED)
        for name in (MR.encode(), wire.CT.encode(), b"")
    ],
    "a context too short for a number": [
        Case(items(APPLICATION, item(0x20, short), CONTEXTS, wire.USER), NO_NUMBER)
        for short in (b"", b"\5", b"\5\0\0")
    ],
    "128 contexts, most of them not ours": [
        Case(associate_rq((*ORDINARY, *((n, wire.FIND, (IMPLICIT,)) for n in range(5, 256, 2)))))
    ],
    "no contexts": [Case(items(APPLICATION, wire.USER)), Case(items(), NO_APPLICATION)],
    "an item that is longer than the request": [
        Case(items(item(0x10, wire.APPLICATION, 60000), CONTEXTS)),
        Case(items(APPLICATION, CONTEXTS, item(0x50, LENGTH, 500))),
    ],
    "a request shorter than its fixed part": [
        Case(pdu(1, b"")),
        Case(pdu(1, associate_rq()[6:73])),
    ],
}
