"""Hostile peers: what they send first, what they send once associated, and how it must end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from struct import pack

from tests.hostile import wire
from tests.hostile.datasets import encoded, uid_of
from tests.hostile.wire import (
    ECHO,
    EXPLICIT,
    IMAGE,
    IMPLICIT,
    associate_rq,
    command_set,
    item,
    p_data,
    pdu,
    pdv,
)

ENDED = "by the peer"
UNEXPECTED = "PDU not expected in an association"
NO_REQUEST = "not an association request"
TOO_LONG = "PDU longer than allowed"
NOT_SUPPORTED = "message not supported"
UNDECODED = (
    f"message cannot be decoded|PDU cannot be decoded|request lacks a command element|{ENDED}"
)
UNDECODED_REQUEST = "association request cannot be decoded"
TOO_LARGE = "message larger than allowed"


@dataclass(frozen=True)
class Peer:
    """``request`` is sent first; with ``then``, it is accepted and those PDUs follow."""

    name: str
    request: bytes = field(repr=False)
    ends: tuple[
        int | str, ...
    ]  # allowed: a status, "aborted", "rejected result.source.reason", "closed" …
    event: str | None = None  # which is logged; None: none is required
    reason: str = ".*"
    after_acceptance: Sequence[bytes] | None = field(default=None, repr=False)
    hangs_up: bool = False  # it closes its side afterwards


def _random(count: int) -> bytes:
    return b"".join(sha256(pack(">L", n)).digest() for n in range(count // 32))


def without_request() -> list[Peer]:
    """Peers that do not request an association."""
    contents = {
        "an HTTP request": b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n",
        "an SSH banner": b"SSH-2.0-OpenSSH_9.2\r\n",
        "a TLS ClientHello": bytes.fromhex("16030100c8010000c40303") + bytes(194),
        "an SMB negotiation": b"\x00\x00\x00\x85\xffSMBr" + bytes(128),
        "1 MiB of random bytes": b"\xaa" + _random(2**20),
        "1 MiB of zeros": bytes(2**20),
        "a line of text": b"\r\n\r\nhelp\r\n",
    }
    peers = [
        Peer(
            f"{name} first",
            content,
            ("aborted", "closed"),
            "connection.refused",
            f"{NO_REQUEST}|{TOO_LONG}",
        )
        for name, content in contents.items()
    ]
    peers += [
        Peer(
            f"PDU type {kind} first",
            pdu(kind, bytes(4)),
            ("aborted", "closed"),
            "connection.refused",
            NO_REQUEST,
        )
        for kind in (*range(9), 9, 16, 42, 127, 128, 254, 255)
        if kind != wire.ASSOCIATE_RQ
    ]
    peers += [
        Peer("P-DATA before any association", wire.echo_rq(), ("aborted", "closed"), "connection.refused", NO_REQUEST),
        Peer("nothing, and hangs up", b"", ("closed", "aborted"), "connection.refused", "closed before .*", hangs_up=True),
        Peer("half a head, and hangs up", b"\1\0\0", ("aborted", "closed"), "connection.refused", NO_REQUEST, hangs_up=True),
        Peer("half a request, and hangs up", associate_rq()[:100], ("aborted", "closed"), "connection.refused", NO_REQUEST, hangs_up=True),
    ]  # fmt: skip
    for length in (262145, 2**31, 2**32 - 1):
        overlong = pdu(1, bytes(1000), length)
        peers.append(
            Peer(
                f"a request of {length} bytes",
                overlong,
                ("aborted", "closed"),
                "connection.refused",
                TOO_LONG,
            )
        )
    return peers


def requests() -> list[Peer]:
    """Malformed or unusual association requests."""
    application = item(0x10, wire.APPLICATION)
    context = wire.context_item(1, wire.VERIFICATION, (IMPLICIT,))
    undecodable = {
        "length 0": pdu(1, b""),
        "length 1": pdu(1, b"\0"),
        "an item longer than the PDU": associate_rq(items=item(0x10, wire.APPLICATION, 60000) + context),
        "a context longer than its item": associate_rq(items=application + item(0x20, context[4:], 9) + wire.USER),
        "random items": associate_rq(items=_random(2048)),
    }  # fmt: skip
    without_contexts = {
        "only its fixed part": pdu(1, associate_rq()[6:74]),
        "items of no length": associate_rq(items=item(0x10, b"", 0) + item(0x20, b"", 0) + item(0x50, b"", 0)),
    }  # fmt: skip
    odd = {
        "a sub-item longer than its item": (associate_rq(items=application + item(0x20, b"\1\0\0\0" + item(0x30, b"1.2", 500)) + wire.USER), "presentation context cut short"),
        "unknown items": (associate_rq(items=application + item(0x99, b"x" * 50) + context + wire.USER), "unknown item 99"),
        "no application context": (associate_rq(items=context + wire.USER), "no application context"),
        "no user information": (associate_rq(items=application + context), "no maximum length"),
        "a context without transfer syntaxes": (associate_rq(((1, wire.VERIFICATION, ()),)), "presentation context without a transfer syntax"),
        "a context without an abstract syntax": (associate_rq(items=application + item(0x20, b"\1\0\0\0" + item(0x40, b"1.2")) + wire.USER), "presentation context without an abstract syntax"),
        "a maximum length of three bytes": (associate_rq(user=item(0x50, item(0x51, b"\0\0\1") + item(0x52, b"1.2"))), "no maximum length"),
        "an abstract syntax of 1,000 characters": (associate_rq(((1, "1." * 499 + "1", (IMPLICIT,)),)), "name that is not a UID"),
        "a transfer syntax that is text": (associate_rq(((1, wire.VERIFICATION, ("../../etc",)),)), "name that is not a UID"),
    }  # fmt: skip
    peers = [
        Peer(f"a request with {name}", request, ("aborted",), "connection.refused", UNDECODED_REQUEST)
        for name, request in undecodable.items()
    ]  # fmt: skip
    peers += [
        Peer(f"a request with {name}", request, ("rejected 1.1.1",), "association.rejected", "no presentation context proposed")
        for name, request in without_contexts.items()
    ]  # fmt: skip
    peers += [
        Peer(f"a request with {name}", request, ("accepted",), "association.odd", why)
        for name, (request, why) in odd.items()
    ]
    huge = item(
        0x50, item(0x51, pack(">L", 16384)) + item(0x52, b"1.2.3") + item(0x55, b"v" * 60000)
    )
    contexts = tuple((n, wire.CT, (IMPLICIT,)) for n in range(1, 256, 2))
    even = associate_rq(((2, wire.VERIFICATION, (IMPLICIT,)), (4, wire.MR, (EXPLICIT,))))
    twice = associate_rq(((1, wire.VERIFICATION, (IMPLICIT,)), (1, wire.MR, (EXPLICIT,))))
    accepted = ("accepted",)
    peers += [
        Peer("128 contexts", associate_rq(contexts), accepted),
        Peer("200 contexts", associate_rq((*contexts, *contexts[:72])), accepted),
        Peer("1,000 contexts", associate_rq(contexts * 8), accepted),
        Peer("even context ids", even, accepted),
        Peer("one context id twice", twice, accepted),
        Peer("60 KB of user information", associate_rq(user=huge), accepted),
        Peer(
            "200 transfer syntaxes",
            associate_rq(((1, wire.VERIFICATION, ("1.2.3",) * 200),)),
            accepted,
        ),
        Peer("queries only", associate_rq(((1, wire.FIND, (EXPLICIT,)),)), accepted),
        Peer("deflated images only", associate_rq(((1, wire.MR, (wire.DEFLATED,)),)), accepted),
        Peer(
            "an unknown transfer syntax only", associate_rq(((1, wire.MR, ("1.2.3.4",)),)), accepted
        ),
    ]
    other = "application context not supported"
    peers += [
        Peer(f"an application context {name}", associate_rq(application=content), ("rejected 1.1.2",), "association.rejected", other)
        for name, content in {"of another kind": b"1.2.3.4", "of 100 characters": b"1." * 49 + b"11", "that is a path": b"../../etc"}.items()
    ]  # fmt: skip
    return peers


def ae_titles() -> list[Peer]:
    """AE titles that are not ours, or not valid."""
    rejected = ("rejected 1.1.7",)
    called = "called AE title not recognised"
    titles = {
        "ANOTHER": b"ANOTHER",
        "empty": b"",
        "in small letters": b"lumbar",
        "with a newline": b"LUMBAR\nlevel=err",
        "of NULs": bytes(16),
        "not ASCII": "LÜMBAR".encode("latin-1"),
        "of 0xFF": b"\xff" * 16,
        "a path": b"../../LUMBAR",
    }
    peers = [
        Peer(f"a called AE title {name}", associate_rq(called=title), rejected, "association.rejected", called)
        for name, title in titles.items()
    ]  # fmt: skip
    callings = {
        "with a newline": b"MR\nevent=forged",
        "with an escape": b"MR\x1b[2J\x1b[31m",
        "of NULs": bytes(16),
        "a backslash": b"MR\\1",
        "not ASCII": b"\xe9\xe8\xff",
        "empty": b"",
    }
    peers += [
        Peer(f"a calling AE title {name}", associate_rq(calling=title), ("accepted",), "association.odd", "calling AE title blank or not valid")
        for name, title in callings.items()
    ]  # fmt: skip
    peers += [
        Peer(f"AE titles {name}", associate_rq(called=called, calling=calling), ("accepted",))
        for name, called, calling in (
            ("with NULs after them", b"LUMBAR\0", b"MR1".ljust(16, b"\0")),
            ("that a log must quote", b"LUMBAR", b'MR" why="forged'),
            ("that a spreadsheet would run", b"LUMBAR", b"=cmd|' /C calc'!"),
        )
    ]
    return peers


def messages() -> list[Peer]:
    """Malformed or unexpected messages in an established association."""

    def established(
        name: str,
        after_acceptance: Sequence[bytes],
        ends: Sequence[int | str],
        reason: str = ENDED,
        **more: bool,
    ) -> Peer:
        logged = None if reason == "" else "association.aborted"
        return Peer(
            name, associate_rq(), tuple(ends), logged, reason or ".*", after_acceptance, **more
        )

    echo = command_set(wire.C_ECHO_RQ, wire.VERIFICATION)
    uid = uid_of("a peer's")
    store = wire.store_command(uid)
    aborted = ("aborted", "closed")
    peers = [
        established(f"a {name} on the storage context", [p_data(IMAGE, command_set(kind, dataset=wire.DATASET, e1000=b"1.2"), command=True), p_data(IMAGE, b"\0" * 8, command=False)], aborted, f"{NOT_SUPPORTED}|{UNDECODED}")
        for name, kind in {"C-FIND": wire.C_FIND_RQ, "C-GET": wire.C_GET_RQ, "C-MOVE": wire.C_MOVE_RQ, "N-ACTION": wire.N_ACTION_RQ, "N-CREATE": wire.N_CREATE_RQ, "N-SET": wire.N_SET_RQ, "N-GET": wire.N_GET_RQ, "N-DELETE": wire.N_DELETE_RQ, "N-EVENT-REPORT": wire.N_EVENT_RQ}.items()
    ]  # fmt: skip
    peers += [
        established(f"a response {kind:04X} to no request", [p_data(ECHO, command_set(kind, wire.VERIFICATION, e0120=b"\1\0", e0900=b"\0\0"), command=True)], aborted, f"{NOT_SUPPORTED}|{UNDECODED}")
        for kind in (0x8001, 0x8020, 0x8030, 0x8130)
    ]  # fmt: skip
    peers += [
        established(f"command field {kind:04X}", [p_data(ECHO, command_set(kind, wire.VERIFICATION), command=True)], aborted, f"{NOT_SUPPORTED}|{UNDECODED}")
        for kind in (0x0000, 0x0002, 0xBEEF, 0xFFFF)
    ]  # fmt: skip
    peers += [
        established(
            f"a PDV on context {number}", [p_data(number, echo, command=True)], aborted, ".*"
        )
        for number in (0, 2, 5, 255)
    ]
    peers += [
        established(f"a PDV that claims {length} bytes", [pdu(wire.P_DATA, pdv(ECHO, echo, command=True, length=length))], aborted, ".*")
        for length in (0, 1, 2, 5, len(echo) + 200, 2**31, 2**32 - 1)
    ]  # fmt: skip
    peers += [
        established(
            f"PDU type {kind} in an association",
            [pdu(kind, bytes(4))],
            aborted,
            f"not a PDU|{UNEXPECTED}|{ENDED}",
        )
        for kind in (0, 1, 2, 3, 6, 8, 42, 255)
    ]
    peers += [
        established("a PDV with every control bit", [pdu(wire.P_DATA, pack(">LBB", len(echo) + 2, ECHO, 0xFF) + echo)], (0x0000, *aborted), ""),
        established("a P-DATA of nothing", [pdu(wire.P_DATA, b"")], aborted, ".*", hangs_up=True),
        established("a dataset before its command", [p_data(IMAGE, encoded(uid), command=False)], aborted, UNDECODED, hangs_up=True),
        established("two PDVs cut in one", [pdu(wire.P_DATA, pdv(ECHO, echo, command=True) + b"\0\0\0")], (0x0000, *aborted), ""),
        established("a command of random bytes", [p_data(ECHO, _random(512), command=True)], aborted, f"{UNDECODED}|.*"),
        established("a command of nothing", [p_data(ECHO, b"", command=True)], aborted, ".*"),
        established("a command of one element", [p_data(ECHO, wire.group_0000({0x0100: pack("<H", wire.C_ECHO_RQ)}), command=True)], aborted, ".*"),
        established("a command in explicit VR", [p_data(ECHO, wire.element(0x100, b"US", pack("<H", 0x30)), command=True)], aborted, ".*"),
        established("a command whose UID claims 4 GiB", [p_data(ECHO, pack("<HHL", 0, 2, 2**32 - 1) + b"1.2", command=True)], aborted, ".*"),
        established("a message id missing", [p_data(ECHO, wire.group_0000({2: wire.padded(wire.VERIFICATION.encode()), 0x100: b"\x30\0", 0x800: b"\1\1"}), command=True)], aborted, UNDECODED),
        established("command fragments without end", [p_data(ECHO, bytes(65536), command=True, last=False)] * 40, aborted, TOO_LARGE),
        established("a C-ECHO with 2 MiB of dataset", [p_data(ECHO, command_set(wire.C_ECHO_RQ, wire.VERIFICATION, wire.DATASET), command=True), *[p_data(ECHO, bytes(65536), command=False, last=False)] * 40], aborted, TOO_LARGE),
        established("a C-STORE without dataset", [p_data(IMAGE, command_set(wire.C_STORE_RQ, e0700=b"\0\0", e1000=uid), command=True)], (0xC000, *aborted), ""),
        established("a C-STORE on Verification's context", [p_data(ECHO, store, command=True), p_data(ECHO, encoded(uid), command=False)], (0x0000, 0x0122, *aborted), ""),
        established("a C-ECHO on the storage context", [p_data(IMAGE, echo, command=True)], (0x0000, 0x0122, *aborted), ""),
        established("a dataset on another context", [p_data(IMAGE, store, command=True), p_data(ECHO, encoded(uid), command=False)], (0xA900, 0xC000, 0x0000, *aborted), ""),
        established("a command within a command", [p_data(IMAGE, store, command=True, last=False), p_data(ECHO, echo, command=True)], (0x0000, *aborted), ""),
        established("a command within a dataset", [p_data(IMAGE, store, command=True), p_data(IMAGE, encoded(uid)[:50], command=False, last=False), wire.echo_rq()], aborted, ".*", hangs_up=True),
        established("half a dataset, and hangs up", [p_data(IMAGE, store, command=True), p_data(IMAGE, bytes(500_00), command=False, last=False)], ("closed", "aborted"), "", hangs_up=True),
        established("half a PDU, and hangs up", [wire.echo_rq()[:20]], ("closed", "aborted"), "", hangs_up=True),
        established("5,000 C-ECHOs without reading", [wire.echo_rq() * 5000], (0x0000, *aborted), ""),
        established("1,000 C-CANCELs", [p_data(IMAGE, command_set(wire.C_CANCEL_RQ, e0120=b"\1\0"), command=True) * 1000], (0x0000, *aborted), "", hangs_up=True),
        established("a second association request", [associate_rq()], aborted, UNEXPECTED),
        established("an acceptance", [pdu(wire.ASSOCIATE_AC, associate_rq()[6:])], aborted, UNEXPECTED),
        established("a release, and goes on", [pdu(wire.RELEASE_RQ, bytes(4)), wire.echo_rq()], ("released", "closed", "aborted"), ""),
        established("a release of no length", [pdu(wire.RELEASE_RQ, b"")], ("released", "closed", "aborted"), "", hangs_up=True),
        established("an answer to a release", [pdu(wire.RELEASE_RP, bytes(4))], aborted, UNEXPECTED),
        established("an abort for no known reason", [pdu(wire.ABORT, b"\0\0\xff\xff")], aborted, ENDED),
        established("a PDU of 262,145 bytes", [pdu(wire.P_DATA, b"", 262145)], aborted, TOO_LONG),
        established("a PDU of 4 GiB", [pdu(wire.P_DATA, b"", 2**32 - 1)], aborted, TOO_LONG),
        established("10,000 PDVs of one byte", [pdu(wire.P_DATA, pdv(IMAGE, b"\0", command=True, last=False) * 10_000)], ("closed", "aborted"), "", hangs_up=True),
        established("a malformed move originator", [p_data(IMAGE, wire.store_command(uid) + pack("<HHL", 0, 0x1030, 4) + b"\n\n\n\n", command=True), p_data(IMAGE, encoded(uid), command=False)], (0x0000, 0xC000, *aborted), ""),
    ]  # fmt: skip
    return peers


PEERS = [*without_request(), *requests(), *ae_titles(), *messages()]
