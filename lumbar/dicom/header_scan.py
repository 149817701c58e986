"""The UIDs of a data set, found without parsing it: a receiver checks them before it answers.

pydicom builds an object of every element, and of every item of a sequence. This walks over the
elements instead (PS3.5 7.1, 7.5), in time proportional to their number, which is limited.
"""

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct

from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from lumbar.dicom.part10 import LONG_VRS, require_byte_order
from lumbar.errors import NotDicom

MAX_ELEMENTS = 150_000  # up to the end, those in sequences and items included
MAX_DEPTH = 64  # of sequences and items of undefined length in each other
WINDOW = 16384  # bytes read at a time

SOP_CLASS, SOP_INSTANCE, STUDY, SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
PIXELS = 0x7FE00008  # the first tag of pixel data: float, double, integer
BEHIND_UIDS = 0x00210000  # the first tag behind the groups that hold them
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
# UIDs are read from texts, too, and with any padding.
UID_VRS = (None, *b"UI UN LO SH CS ST LT UT".split())
MAX_PADDED_UID = 256

Read = Callable[[int, int], bytes]  # up to so many bytes from an offset


@dataclass(frozen=True)
class InstanceUIDs:
    """The identifying UIDs of a data set, as it states them; empty where it does not."""

    sop_class: str
    sop_instance: str
    series: str
    study: str


def scan_uids(read: Read, transfer_syntax_uid: str, end: int = PIXELS) -> InstanceUIDs:
    """The UIDs of the data set that begins at offset 0 of ``read``, not deflated.

    Its elements are walked over up to the first whose tag is not below ``end``.

    A UID's value that is not ASCII, or much longer than a UID, is left out. Explicit VRs are read
    where implicit ones are stated, and the reverse; in a sequence as UN, either. The end may be
    missing.

    Raises:
        NotDicom: too many elements, too deeply nested, or in another byte order than stated.
    """
    found = _Scan(read, transfer_syntax_uid, end).run()
    return InstanceUIDs(*(found.get(tag, "") for tag in (SOP_CLASS, SOP_INSTANCE, SERIES, STUDY)))


class _Scan:
    def __init__(self, read: Read, transfer_syntax_uid: str, end: int) -> None:
        self._read, self._end = read, end
        little_endian = transfer_syntax_uid != ExplicitVRBigEndian
        order = "<" if little_endian else ">"
        self._tag = Struct(f"{order}HH")
        self._short, self._long = Struct(f"{order}H"), Struct(f"{order}L")
        self._window, self._start = b"", 0
        first = self._bytes(0, 8)
        require_byte_order(first, little_endian)
        stated_implicit = transfer_syntax_uid == ImplicitVRLittleEndian
        self._implicit = stated_implicit and not _is_vr(first[4:6])

    def run(self) -> dict[int, str]:
        found: dict[int, str] = {}
        at, implicit, outer = 0, self._implicit, list[bool]()
        for _ in range(MAX_ELEMENTS):
            head = self._bytes(at, 12)
            if len(head) < 8:
                return found
            group, element = self._tag.unpack_from(head)
            tag = group << 16 | element
            vr, length, at = self._value(head, at, implicit or group == ITEM >> 16)
            if not outer and self._end <= tag < ITEM:
                return found
            if tag in (ITEM_END, SEQUENCE_END):
                implicit = outer.pop() if outer else implicit
            elif length == UNDEFINED:
                if len(outer) >= MAX_DEPTH:
                    raise NotDicom(f"sequences are nested more than {MAX_DEPTH} deep")
                outer.append(implicit)
            else:
                if not outer and tag in (SOP_CLASS, SOP_INSTANCE, STUDY, SERIES):
                    found[tag] = self._uid(at, vr, length)
                at += length
        raise NotDicom(f"the header has more than {MAX_ELEMENTS} elements")

    def _value(self, head: bytes, at: int, implicit: bool) -> tuple[bytes | None, int, int]:
        """An element's VR, the length of its value, and where that begins."""
        vr = head[4:6]
        if implicit or not _is_vr(vr):
            return None, self._long.unpack_from(head, 4)[0], at + 8
        if vr not in LONG_VRS:
            return vr, self._short.unpack_from(head, 6)[0], at + 8
        length = head[8:12]
        return vr, self._long.unpack(length)[0] if len(length) == 4 else 0, at + 12

    def _uid(self, at: int, vr: bytes | None, length: int) -> str:
        value = self._bytes(at, MAX_PADDED_UID)[:length].strip(b" \0")
        if vr not in UID_VRS or length > MAX_PADDED_UID or not value.isascii():
            return ""
        return value.decode("ascii")

    def _bytes(self, at: int, count: int) -> bytes:
        """Up to so many bytes from an offset of the data set."""
        start = at - self._start
        if start < 0 or start + count > len(self._window):
            self._window, self._start, start = self._read(WINDOW, at), at, 0
        return self._window[start : start + count]


def _is_vr(value: bytes) -> bool:
    return value.isalpha() and value.isupper()
