"""Odd messages on an association, by the lines of ``docs/what-is-accepted.md`` that they prove."""

from collections.abc import Callable, Mapping
from struct import pack

from tests.hostile import wire
from tests.hostile.wire import (
    ECHO,
    IMAGE,
    MR,
    p_data,
    pdu,
    pdv,
)
from tests.integration.association_cases import OTHER, Case, Messages, changed, image


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
