"""DICOM encoded byte by byte, so that any part of it can be wrong (PS3.8 9.3, PS3.7 6.3 and E.1, PS3.5 7.1)."""

import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import inf
from struct import pack, unpack, unpack_from
from time import monotonic

VERIFICATION = "1.2.840.10008.1.1"
MR, ENHANCED_MR, CT = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "4.1", "2"))
FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root Query/Retrieve; no class of ours
IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN, RLE, JPEG, JPEG_LS, JPEG_2000 = (
    f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".1.99", ".2", ".5", ".4.50", ".4.80", ".4.90")
)
APPLICATION = b"1.2.840.10008.3.1.1.1"
ECHO, IMAGE = 1, 3  # the presentation contexts of an ordinary request below

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
C_STORE_RQ, C_GET_RQ, C_FIND_RQ, C_MOVE_RQ, C_ECHO_RQ, C_CANCEL_RQ = (
    0x0001,
    0x0010,
    0x0020,
    0x0021,
    0x0030,
    0x0FFF,
)
N_EVENT_RQ, N_GET_RQ, N_SET_RQ, N_ACTION_RQ, N_CREATE_RQ, N_DELETE_RQ = (
    0x100,
    0x110,
    0x120,
    0x130,
    0x140,
    0x150,
)
NO_DATASET, DATASET = 0x0101, 0x0000
STATUS = b"\x00\x00\x00\x09\x02\x00\x00\x00"  # (0000,0900), two bytes

Contexts = Sequence[tuple[int, str, Sequence[str]]]
ORDINARY: Contexts = ((ECHO, VERIFICATION, (IMPLICIT,)), (IMAGE, MR, (EXPLICIT,)))


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    return pack(">BBL", kind, 0, len(body) if length is None else length) + body


def item(kind: int, body: bytes, length: int | None = None) -> bytes:
    """An item of an A-ASSOCIATE PDU."""
    return pack(">BBH", kind, 0, len(body) if length is None else length) + body


def context_item(number: int, abstract: str, transfers: Sequence[str]) -> bytes:
    parts = item(0x30, abstract.encode()) + b"".join(
        item(0x40, syntax.encode()) for syntax in transfers
    )
    return item(0x20, bytes((number, 0, 0, 0)) + parts)


USER = item(0x50, item(0x51, pack(">L", 16384)) + item(0x52, b"1.2.3.4"))


def associate_rq(
    contexts: Contexts = ORDINARY,
    called: bytes = b"LUMBAR",
    calling: bytes = b"HOSTILE",
    user: bytes = USER,
    application: bytes | None = None,
    items: bytes | None = None,
) -> bytes:
    """An A-ASSOCIATE-RQ; ``items`` replaces all its variable items."""
    if items is None:
        offered = b"".join(context_item(*context) for context in contexts)
        items = item(0x10, APPLICATION if application is None else application) + offered + user
    return pdu(
        ASSOCIATE_RQ, pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + bytes(32) + items
    )


def pdv(
    context: int, content: bytes, *, command: bool, last: bool = True, length: int | None = None
) -> bytes:
    head = pack(
        ">LBB", len(content) + 2 if length is None else length, context, command | last << 1
    )
    return head + content


def p_data(context: int, content: bytes, *, command: bool, last: bool = True) -> bytes:
    return pdu(P_DATA, pdv(context, content, command=command, last=last))


def command_set(
    field: int, uid: str | bytes = MR, dataset: int = NO_DATASET, **more: bytes
) -> bytes:
    """A command set; ``more`` adds or replaces elements of group 0000: ``e1000=b"1.2.3"``."""
    abstract = uid.encode() if isinstance(uid, str) else uid
    values = {
        0x0002: padded(abstract),
        0x0100: pack("<H", field),
        0x0110: pack("<H", 1),
        0x0800: pack("<H", dataset),
    }
    values |= {int(name[1:], 16): padded(value) for name, value in more.items()}
    return group_0000(values)


def group_0000(values: Mapping[int, bytes]) -> bytes:
    elements = b"".join(
        pack("<HHL", 0, number, len(value)) + value for number, value in sorted(values.items())
    )
    return pack("<HHLL", 0, 0, 4, len(elements)) + elements


def padded(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def echo_rq() -> bytes:
    return p_data(ECHO, command_set(C_ECHO_RQ, VERIFICATION), command=True)


def store_command(uid: bytes, abstract: str | bytes = MR) -> bytes:
    return command_set(C_STORE_RQ, abstract, DATASET, e0700=b"\0\0", e1000=uid)


def store_rq(
    uid: bytes, dataset: bytes, context: int = IMAGE, abstract: str | bytes = MR
) -> Iterable[bytes]:
    """A C-STORE-RQ as PDUs of at most 64 KiB."""
    yield p_data(context, store_command(uid, abstract), command=True)
    for start in range(0, max(len(dataset), 1), 65536):
        part = dataset[start : start + 65536]
        yield p_data(context, part, command=False, last=start + 65536 >= len(dataset))


LONG_VRS = {
    b"OB",
    b"OW",
    b"OF",
    b"OD",
    b"SQ",
    b"UN",
    b"UT",
    b"UC",
    b"UR",
    b"OL",
    b"OV",
    b"SV",
    b"UV",
}


def element(
    tag: int, vr: bytes, value: bytes, length: int | None = None, order: str = "<"
) -> bytes:
    """An element in an explicit transfer syntax; values are padded but not checked."""
    if length is None:
        value += (
            b" " if vr in (b"PN", b"LO", b"SH", b"CS", b"DS", b"IS", b"DA", b"LT", b"ST") else b"\0"
        ) * (len(value) % 2)
        length = len(value)
    form = "HH2s2xL" if vr in LONG_VRS else "HH2sH"
    return pack(order + form, tag >> 16, tag & 0xFFFF, vr, length) + value


class RawConnection:
    """A TCP connection to the receiver, on which PDUs are sent and read directly."""

    def __init__(
        self, port: int, timeout_s: float = 10, stream: socket.socket | None = None
    ) -> None:
        self.stream = stream or socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.stream.settimeout(timeout_s)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, *parts: bytes) -> None:
        """Sends; whether the receiver has closed the connection is found out by reading."""
        with suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                self.stream.sendall(part)

    def associate(self, request: bytes | None = None) -> None:
        self.send(request or associate_rq())
        kind, _ = self.read()
        assert kind == ASSOCIATE_AC, f"PDU {kind} is not an acceptance"

    def read(self) -> tuple[int, bytes]:
        """The next PDU; kind 0 if the receiver closed the connection.

        Raises:
            TimeoutError: It did neither in time.
        """
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        return head[0], self._exactly(unpack(">L", head[2:])[0])

    def status(self) -> int | str:
        """The status of the next response, or what was received instead."""
        kind, body = self.read()
        if kind != P_DATA:
            return described(kind, body)
        at = body.find(STATUS)
        return int(unpack_from("<H", body, at + 8)[0]) if at >= 0 else "a response without a status"

    def ending(self) -> str:
        """How the receiver ends the connection: what its next PDU is."""
        return described(*self.read())

    def reset(self) -> None:
        """Resets the connection (RST)."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.stream.close()

    def _exactly(self, count: int) -> bytes:
        content = bytearray()
        deadline = monotonic() + (self.stream.gettimeout() or 10)
        while len(content) < count and monotonic() < deadline:
            try:
                received = self.stream.recv(count - len(content))
            except ConnectionResetError:
                break
            if not received:
                break
            content += received
        return bytes(content)


def described(kind: int, body: bytes) -> str:
    """What a PDU means to a peer that waits for a response."""
    if kind == ASSOCIATE_RJ:
        return (
            f"rejected {body[1]}.{body[2]}.{body[3]}"  # result, source, reason (PS3.8 table 9-21)
        )
    return {
        0: "closed",
        ASSOCIATE_AC: "accepted",
        P_DATA: "response",
        RELEASE_RP: "released",
        ABORT: "aborted",
    }.get(kind, f"PDU {kind}")


def echo_s(port: int) -> float:
    """Seconds that a C-ECHO took, from connecting to its response; infinite if there was none."""
    began = monotonic()
    try:
        line = RawConnection(port)
        try:
            line.associate()
            line.send(echo_rq())
            return monotonic() - began if line.status() == 0x0000 else inf
        finally:
            line.close()
    except (OSError, AssertionError):
        return inf
