"""The pixel element of a file: where it is, and whether its bytes are those of its image."""

from dataclasses import dataclass
from struct import Struct
from typing import BinaryIO

from pydicom.dataset import Dataset

from lumbar.dicom.codestreams import declared_size
from lumbar.dicom.functional_groups import frame_count
from lumbar.errors import NotDicom

UNDEFINED = 0xFFFFFFFF
ITEM, SEQUENCE_DELIMITER = 0xFFFEE000, 0xFFFEE0DD
FRAGMENT_HEAD = 65536  # bytes within which a codestream states its size


@dataclass(frozen=True)
class PixelElement:
    """The element's VR (empty with implicit VRs), its declared length, and offsets in the file."""

    vr: str
    length: int
    start: int  # of its value
    end: int  # of the file


def find_pixels(stream: BinaryIO, header: Dataset) -> PixelElement:
    """Reads the start of the element at which ``read_up_to_pixels`` has left the stream.

    Raises:
        NotDicom: the file ends before it, or its pixels are in an element other than PixelData.
    """
    implicit, little_endian = header.original_encoding
    layout = Struct(("<" if little_endian else ">") + ("HHL" if implicit else "HH2s2xL"))
    head = stream.read(layout.size)
    start = stream.tell()
    end = stream.seek(0, 2)
    if len(head) < layout.size:
        raise NotDicom("the file holds no pixels, or is cut short before them")
    group, element, *vr, length = layout.unpack(head)
    if (group, element) != (0x7FE0, 0x0010):
        raise NotDicom("the pixels are not in PixelData")
    return PixelElement(b"".join(vr).decode("latin-1"), length, start, end)


def check_bytes(
    stream: BinaryIO, header: Dataset, pixels: PixelElement, *, compressed: bool
) -> None:
    """Checks the size that the header declares against the bytes present, before any decoding.

    Raises:
        NotDicom: the bytes are too few or implausibly many, or a fragment declares another size.
    """
    expected = header.Rows * header.Columns * header.BitsAllocated // 8 * frame_count(header)
    if not compressed:
        present = min(pixels.length, pixels.end - pixels.start)
        if pixels.length == UNDEFINED or present < expected:
            raise NotDicom(f"the pixels are cut short: {present} of {expected} bytes")
        return
    if pixels.length != UNDEFINED:
        raise NotDicom("the compressed pixels are not in fragments")
    fragments = _fragments(stream, pixels.start, pixels.end)[1:]  # the first is the offset table
    if not fragments:
        raise NotDicom("the pixels are cut short: there are no fragments")
    if sum(size for _, size in fragments) > 2 * expected + FRAGMENT_HEAD:
        raise NotDicom("the compressed pixels are larger than the image they encode")
    for offset, size in fragments:
        stream.seek(offset)
        declared = declared_size(stream.read(min(size, FRAGMENT_HEAD)))
        if declared not in (None, (header.Rows, header.Columns)):
            raise NotDicom("the compressed pixels do not have the header's rows and columns")


def _fragments(stream: BinaryIO, start: int, end: int) -> list[tuple[int, int]]:
    """(offset, size) of every item. A missing closing delimiter is tolerated.

    Raises:
        NotDicom: a fragment is cut short.
    """
    layout = Struct("<HHL")
    fragments: list[tuple[int, int]] = []
    while start + layout.size <= end:
        stream.seek(start)
        group, element, size = layout.unpack(stream.read(layout.size))
        tag = group << 16 | element
        if tag == SEQUENCE_DELIMITER:
            break
        start += layout.size + size
        if tag != ITEM or start > end:
            raise NotDicom("the pixels are cut short: a fragment runs past the end of the file")
        fragments.append((start - size, size))
    return fragments
