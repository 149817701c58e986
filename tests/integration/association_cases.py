"""Association requests and messages that are not as they should be.

By the lines of the section "Association requests" of ``docs/what-is-accepted.md``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from struct import pack

from tests.hostile import wire
from tests.hostile.wire import (
    ECHO,
    EXPLICIT,
    IMAGE,
    IMPLICIT,
    MR,
    ORDINARY,
    associate_rq,
    context_item,
    item,
    p_data,
    pdu,
    pdv,
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


def with_command(change: Callable[[bytes], bytes]) -> Messages:
    """An image whose command, an ordinary one, is changed so; without a change of its length."""

    def messages(uid: bytes, dataset: bytes) -> list[bytes]:
        command = p_data(IMAGE, change(uid), command=True)
        return [command, p_data(IMAGE, dataset, command=False)]

    return messages


def store_elements(uid: bytes) -> dict[int, bytes]:
    """The elements of a C-STORE-RQ."""
    return {
        0x0002: wire.padded(MR.encode()),
        0x0100: pack("<H", wire.C_STORE_RQ),
        0x0110: pack("<H", 1),
        0x0700: pack("<H", 0),
        0x0800: pack("<H", wire.DATASET),
        0x1000: wire.padded(uid),
    }


def store_with(elements: Mapping[int, bytes | None]) -> Messages:
    """An image whose command has these elements instead; None: it lacks the element."""

    def command(uid: bytes) -> bytes:
        values = {**store_elements(uid), **elements}
        return wire.group_0000({tag: value for tag, value in values.items() if value is not None})

    return with_command(command)


def echo(command: bytes) -> Messages:
    return lambda uid, dataset: [p_data(ECHO, command, command=True)]


PRIVATE = pack("<HHL", 0x0009, 0x0010, 8) + b"PRIVATE "  # an element of another group


def fragments(*sizes: int) -> Messages:
    """An image in fragments of these sizes, again and again."""

    def messages(uid: bytes, dataset: bytes) -> list[bytes]:
        pdus = []
        for content, command in ((wire.store_command(uid), True), (dataset, False)):
            at = 0
            while at < len(content):
                for size in sizes:
                    part = content[at : at + size]
                    pdus.append(p_data(IMAGE, part, command=command, last=False))
                    at += size
            pdus.append(p_data(IMAGE, b"", command=command))
        return pdus

    return messages


def in_one_pdu(uid: bytes, dataset: bytes) -> list[bytes]:
    command = wire.store_command(uid)
    values = (
        pdv(IMAGE, command[:20], command=True, last=False),
        pdv(IMAGE, command[20:], command=True),
        pdv(IMAGE, dataset[:100], command=False, last=False),
        pdv(IMAGE, dataset[100:], command=False),
    )
    return [pdu(wire.P_DATA, b"".join(values))]


def with_reserved_bits(uid: bytes, dataset: bytes) -> list[bytes]:
    pdus = []
    for content, control in ((wire.store_command(uid), 0xFF), (dataset, 0xFE)):
        value = pack(">LBB", len(content) + 2, IMAGE, control) + content
        pdus.append(changed(pdu(wire.P_DATA, value), 1, b"\xff"))
    return pdus


def released_early(content: bytes) -> Messages:
    """A release request with this content in the middle of an image."""

    def messages(uid: bytes, dataset: bytes) -> list[bytes]:
        begun = p_data(IMAGE, dataset[:90], command=False, last=False)
        return [*image(uid, dataset)[:1], begun, pdu(wire.RELEASE_RQ, content)]

    return messages


ECHO_ELEMENTS = {0x0100: pack("<H", wire.C_ECHO_RQ), 0x0110: b"\1\0", 0x0800: b"\1\1"}
LACKS_CLASS, LACKS_TYPE = "no affected SOP class UID", "no command data set type"
PRIORITY = "priority missing or unknown"
GROUP_LENGTH = "command group length missing or wrong"

MESSAGES: dict[str, list[Case]] = {
    "a C-STORE with no priority, or an unknown one": [
        Case(odd=PRIORITY, messages=store_with({0x0700: value}))
        for value in (None, pack("<H", 5), b"")
    ],
    "a command group length that is missing or wrong": [
        Case(odd=GROUP_LENGTH, messages=with_command(change))
        for change in (
            lambda uid: wire.store_command(uid)[12:],
            lambda uid: changed(wire.store_command(uid), 8, pack("<L", 4)),
            lambda uid: changed(wire.store_command(uid), 8, b"\xff" * 4),
        )
    ],
    "elements in a command that are not known, or not needed": [
        Case(messages=store_with({0x1030: b"MOVER\\\x1b ", 0x1031: pack("<H", 7)})),
        Case(messages=store_with({0x0001: b"old", 0x5010: b"x" * 999, 0xFFFF: b""})),
        Case(
            odd=GROUP_LENGTH,
            messages=with_command(lambda uid: wire.store_command(uid) + PRIVATE),
        ),
    ],
    "UIDs in a command of odd length, or padded with spaces": [
        Case(messages=store_with({0x0002: MR.encode()})),
        Case(messages=store_with({0x0002: MR.encode() + b" ", 0x0110: b"\7\0"})),
        Case(messages=store_with({0x0002: MR.encode() + b"\0\0 \0"})),
        Case(
            messages=with_command(
                lambda uid: wire.group_0000({**store_elements(uid), 0x1000: uid + b" \0"})
            )
        ),
    ],
    "message ID 0": [Case(messages=store_with({0x0110: pack("<H", 0)}))],
    "a C-STORE with no SOP class": [
        Case(odd=LACKS_CLASS, messages=store_with({0x0002: value}))
        for value in (None, b"", b"\0\0")
    ],
    "a C-ECHO with no SOP class": [
        Case(odd=LACKS_CLASS, messages=echo(wire.group_0000(ECHO_ELEMENTS)))
    ],
    "a command that does not say whether a data set follows": [
        Case(odd=LACKS_TYPE, messages=store_with({0x0800: value})) for value in (None, b"")
    ],
    "bytes after a command's last element that are too few for one": [
        Case(messages=with_command(lambda uid: wire.store_command(uid) + b"\0" * 1)),
        Case(messages=with_command(lambda uid: wire.store_command(uid) + b"\0" * 7)),
    ],
    "fragments of no length, or of an odd one": [
        Case(messages=fragments(50, 0)),
        Case(messages=fragments(1, 33)),
    ],
    "several fragments in one PDU, command and data set together": [Case(messages=in_one_pdu)],
    "a P-DATA-TF without a fragment": [
        Case(
            odd="P-DATA-TF without a value",
            messages=lambda uid, dataset: [pdu(wire.P_DATA, b""), *image(uid, dataset)],
        )
    ],
    "reserved bits and bytes in PDUs and fragments that are not zero": [
        Case(messages=with_reserved_bits)
    ],
    "a release request in the middle of a message": [
        Case(messages=released_early(content)) for content in (bytes(4), b"\xff" * 4, b"", bytes(9))
    ],
    "a C-STORE with no SOP instance, or no message ID": [
        Case(messages=store_with({tag: None})) for tag in (0x1000, 0x0110)
    ],
    "a command that is cut short": [
        Case(messages=with_command(lambda uid: wire.store_command(uid)[:-9]))
    ],
    "a PDU of unknown type": [
        Case(messages=lambda uid, dataset: [pdu(8, bytes(4))]),
        Case(messages=lambda uid, dataset: [pdu(0xFF, b"")]),
    ],
    "a fragment on a context that was not accepted": [
        Case(messages=lambda uid, dataset: [p_data(OTHER, wire.store_command(uid), command=True)])
    ],
}
