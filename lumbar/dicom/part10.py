"""A DICOM file as it is encoded: its meta information, then its data set (PS3.10 7).

The file states the data set's transfer syntax, but the data set may be encoded otherwise, and may
have elements of the meta information's group again. pydicom would add those to the file's own.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from struct import pack, unpack
from typing import BinaryIO
from urllib.parse import urlsplit

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    PYDICOM_IMPLEMENTATION_UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from lumbar.elements import as_list, text
from lumbar.errors import NotDicom

PREAMBLE = 128
COMMAND, META = 0x0000, 0x0002  # groups
TRANSFER_SYNTAX = 0x00020010
GROUP_LENGTH = 12  # bytes of the element (0002,0000)
LONG_VRS = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()  # PS3.5 7.1.2
TEXT_VRS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")  # in the data set's character set (PS3.5 6.1)
PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
DEFAULT_REPERTOIRE = ("", "ISO_IR 6", "ISO 2022 IR 6")  # ASCII (PS3.3 C.12.1.1.2)


def file_head(
    sop_class: str, sop_instance: str, transfer_syntax: str, source: str, address: str = ""
) -> bytes:
    """A new file up to its data set: preamble, prefix and file meta information (PS3.10 7.1).

    ``source`` is the sender's AE title, of which the first 16 characters are kept; ``address``
    that of its host, if it is known.
    """
    host = f"[{address}]" if ":" in address else address
    elements = b"".join(
        (
            pack("<HH2sHL2s", META, 0x0001, b"OB", 0, 2, b"\0\1"),
            _meta_element(0x0002, b"UI", sop_class),
            _meta_element(0x0003, b"UI", sop_instance),
            _meta_element(0x0010, b"UI", transfer_syntax),
            _meta_element(0x0012, b"UI", PYDICOM_IMPLEMENTATION_UID),
            _meta_element(0x0016, b"AE", source[:16]),
            _meta_element(0x0026, b"UR", f"dicom://{host}") if address else b"",
        )
    )
    group_length = pack("<HH2sHL", META, 0x0000, b"UL", 4, len(elements))
    return b"\0" * PREAMBLE + b"DICM" + group_length + elements


def _meta_element(element: int, vr: bytes, value: str) -> bytes:
    content = value.encode("ascii", "replace")
    content += (b"\0" if vr == b"UI" else b" ") * (len(content) % 2)
    if vr in LONG_VRS:
        return pack("<HH2sHL", META, element, vr, 0, len(content)) + content
    return pack("<HH2sH", META, element, vr, len(content)) + content


def sender_address(meta: FileMetaDataset) -> str:
    """The address of the host that sent a file, as ``file_head`` wrote it; empty: not known."""
    try:
        return urlsplit(text(meta, "SourcePresentationAddress")).hostname or ""
    except ValueError:
        return ""


def read_file_meta(stream: BinaryIO) -> FileMetaDataset:
    """The file meta information; leaves the stream where the data set begins.

    It ends where it says, unless that is before the transfer syntax or within an element; then it
    ends where its tags cease to ascend.

    Raises:
        InvalidDicomError: the file is not DICOM.
    """
    stream.seek(PREAMBLE)
    if stream.read(4) != b"DICM":
        raise InvalidDicomError
    start = stream.tell()
    end = _meta_end(stream)
    stream.seek(start)
    meta = FileMetaDataset(
        read_dataset(BytesIO(stream.read(end - start)), is_implicit_VR=False, is_little_endian=True)
    )
    stream.seek(end)
    return meta


def read_up_to_pixels(stream: BinaryIO) -> Dataset:
    """All elements before the pixels; ``file_meta`` has the file meta information.

    Leaves the stream at the pixel element, or at its end if there is none. Explicit VRs are read
    where implicit ones are stated, and the reverse; ``original_encoding`` says what was found.

    Raises:
        NotDicom: the data set is deflated, or its byte order is not the one stated.
    """
    return _read(stream, lambda tag: tag in PIXELS)


def read_up_to(stream: BinaryIO, end: int, keywords: Sequence[str] | None = None) -> Dataset:
    """As ``read_up_to_pixels``, up to the first element whose tag is not below ``end``.

    ``keywords``: only these elements; the values of others are not read.

    Raises:
        NotDicom: the data set is deflated, or its byte order is not the one stated.
    """
    return _read(stream, lambda tag: tag >= end, keywords)


def skip_foreign_groups(stream: BinaryIO) -> None:
    """Moves behind elements of groups 0000 and 0002 at the start of a data set.

    Neither belongs there (PS3.7 6.3, PS3.10 7.1); both are little endian.
    """
    while (tag := _next_tag(stream)) is not None and tag >> 16 in (COMMAND, META):
        _skip_element(stream)


def _read(
    stream: BinaryIO, is_end: Callable[[BaseTag], bool], keywords: Sequence[str] | None = None
) -> Dataset:
    meta = read_file_meta(stream)
    syntax = text(meta, "TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        raise NotDicom("the file is deflated, which is not supported; send it uncompressed")
    little_endian = syntax != ExplicitVRBigEndian
    skip_foreign_groups(stream)
    require_byte_order(_peek(stream, 2), little_endian)
    ds = read_dataset(
        stream,
        is_implicit_VR=syntax == ImplicitVRLittleEndian,
        is_little_endian=little_endian,
        stop_when=lambda tag, vr, length: is_end(tag),
        specific_tags=list(map(Tag, keywords)) if keywords else None,
    )
    _decode_undeclared_utf8(ds)
    ds.file_meta = meta
    return ds


def _meta_end(stream: BinaryIO) -> int:
    """Where the file meta information ends that begins at the stream's position."""
    stated = _stated_end(stream)
    descent = None  # where a tag first fails to ascend
    tag, seen = -1, set[int]()
    while (following := _next_tag(stream)) is not None and following >> 16 == META:
        if following <= tag and descent is None:
            descent = stream.tell()
        tag = following
        seen.add(tag)
        _skip_element(stream)
        if stream.tell() == stated and TRANSFER_SYNTAX in seen:
            return stated
    return stream.tell() if descent is None else descent


def _stated_end(stream: BinaryIO) -> int | None:
    """Where the meta information ends according to its group length; None if it states none."""
    start = stream.tell()
    head = _peek(stream, GROUP_LENGTH)
    if head[:8] != b"\2\0\0\0UL\4\0" or len(head) < GROUP_LENGTH:
        return None
    return start + GROUP_LENGTH + int(unpack("<L", head[8:])[0])


def _skip_element(stream: BinaryIO) -> None:
    """Moves past a little-endian element, whichever VR encoding it is in (PS3.5 7.1)."""
    head = stream.read(8)
    vr = head[4:6]
    if vr in LONG_VRS:
        length = unpack("<L", stream.read(4).ljust(4, b"\0"))[0]
    elif vr.isalpha() and vr.isupper():
        length = unpack("<H", head[6:].ljust(2, b"\0"))[0]
    else:
        length = unpack("<L", head[4:].ljust(4, b"\0"))[0]
    stream.seek(length, 1)


def _next_tag(stream: BinaryIO) -> int | None:
    """The tag of a little-endian element; None at the end of the file."""
    head = _peek(stream, 4)
    if len(head) < 4:
        return None
    group, element = unpack("<HH", head)
    return int(group) << 16 | int(element)


def _peek(stream: BinaryIO, size: int) -> bytes:
    start = stream.tell()
    content = stream.read(size)
    stream.seek(start)
    return content


def require_byte_order(start: bytes, little_endian: bool) -> None:
    """Requires that the first group of a data set, always a low one, is read as such.

    Raises:
        NotDicom: its bytes are in the other order.
    """
    first, second = start[:2].ljust(2, b"\0")
    high, low = (second, first) if little_endian else (first, second)
    if high and not low:
        raise NotDicom(
            "the file cannot be read in the byte order of its transfer syntax; it may be damaged"
        )


def _decode_undeclared_utf8(ds: Dataset) -> None:
    """Decodes as UTF-8 each text that is valid UTF-8 beyond ASCII, if no known set is declared.

    Without a declaration such bytes are illegal (PS3.5 6.1.2.1); pydicom takes them for Latin-1.
    """
    declared = (str(name).strip() for name in as_list(ds.get("SpecificCharacterSet")))
    if any(name in python_encoding and name not in DEFAULT_REPERTOIRE for name in declared):
        return
    for tag, element in list(ds.items()):
        if isinstance(element, RawDataElement) and _is_undeclared_utf8(tag, element):
            ds[tag] = convert_raw_data_element(element, encoding=["utf8"], ds=ds)


def _is_undeclared_utf8(tag: BaseTag, element: RawDataElement) -> bool:
    value = element.value
    if not value or value.isascii() or tag.is_private:
        return False
    vr = element.VR
    if vr in (None, "UN"):
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            return False
    try:
        value.decode("utf8")
    except UnicodeDecodeError:
        return False
    return vr in TEXT_VRS
