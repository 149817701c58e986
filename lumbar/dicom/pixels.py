"""Pixels of untrusted files: checked against the header first, then decoded frame by frame."""

from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lumbar.dicom.codestreams import declared_size
from lumbar.dicom.decoder import DECODERS, decode
from lumbar.dicom.headers import (
    first_number,
    frame_count,
    frame_datasets,
    raising_not_dicom,
    read_header,
    read_up_to_pixels,
    text,
)
from lumbar.errors import NotDicom

MAX_PIXELS = 2048 * 2048  # per slice; MR matrices reach 1024
UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
TRANSFER_SYNTAXES = (*UNCOMPRESSED, *DECODERS)  # all that can be read, so all that is accepted

UNDEFINED = 0xFFFFFFFF
ITEM, SEQUENCE_DELIMITER = 0xFFFEE000, 0xFFFEE0DD
FRAGMENT_HEAD = 65536  # bytes within which a codestream states its size


def read_slice(path: Path, frame: int | None) -> NDArray[np.float32]:
    """One slice's pixels, (rows, columns), rescaled by the header's slope and intercept.

    Bright tissue has high values, in MONOCHROME1 images too. ``frame`` is 1-based; None in a
    single-frame instance. Only that frame is decoded.

    Raises:
        NotDicom: the pixels are missing, cut short, too large, of an unsupported kind, or cannot be
            decoded.
    """
    header = read_header(path)
    with raising_not_dicom("the header cannot be read; it may be damaged"):
        syntax = UID(text(header.file_meta, "TransferSyntaxUID"))
        _check_kind(header, syntax, frame)
        datasets = frame_datasets(header, frame)
    with (
        raising_not_dicom(f"the pixels cannot be decoded ({syntax.name})"),
        path.open("rb") as stream,
    ):
        _check_bytes(stream, header, syntax)
        index = (frame or 1) - 1
        stored = (
            decode(path, index, syntax)
            if syntax in DECODERS
            else pixel_array(stream, index=index, raw=True)
        )
        if stored.shape != (header.Rows, header.Columns):
            raise NotDicom("the decoded pixels do not have the header's rows and columns")
        return _rescaled(stored, datasets)


def _rescaled(stored: NDArray[Any], datasets: list[Dataset]) -> NDArray[np.float32]:
    image = stored.astype(np.float32)
    with np.errstate(all="ignore"):
        image *= first_number(datasets, "RescaleSlope") or 1
        image += first_number(datasets, "RescaleIntercept") or 0
    if not np.isfinite(image).all():
        raise NotDicom("RescaleSlope and RescaleIntercept overflow the pixels")
    if text(datasets[-1], "PhotometricInterpretation") == "MONOCHROME1":
        image = image.max() + image.min() - image
    return image


def _check_kind(header: Dataset, syntax: UID, frame: int | None) -> None:
    if syntax not in TRANSFER_SYNTAXES:
        name = syntax.name if syntax.is_transfer_syntax else "unknown"
        raise NotDicom(f"the transfer syntax is not supported: {name}")
    photometric = header.get("PhotometricInterpretation")
    if header.get("SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise NotDicom("not a greyscale image")
    allocated = header.get("BitsAllocated")
    if allocated not in (8, 16) or not 1 <= header.BitsStored <= allocated:
        raise NotDicom("BitsAllocated is not 8 or 16, or BitsStored does not fit it")
    if not 1 <= header.Rows * header.Columns <= MAX_PIXELS:
        raise NotDicom(f"the image is empty or larger than {MAX_PIXELS} pixels")
    frames = frame_count(header)
    if frame is None and frames != 1:
        raise NotDicom(f"the image has {frames} frames; state which one")
    if frame is not None and not 1 <= frame <= frames:
        raise NotDicom(f"there is no frame {frame}; the image has {frames}")


def _check_bytes(stream: BinaryIO, header: Dataset, syntax: UID) -> None:
    """Checks the size that the header declares against the bytes present, before any decoding.

    Raises:
        NotDicom: the bytes are too few or implausibly many, or a fragment declares another size.
    """
    expected = header.Rows * header.Columns * header.BitsAllocated // 8 * frame_count(header)
    length, start, end = _pixel_element(stream, syntax)
    if syntax in UNCOMPRESSED:
        present = min(length, end - start)
        if length == UNDEFINED or present < expected:
            raise NotDicom(f"the pixels are cut short: {present} of {expected} bytes")
        return
    if length != UNDEFINED:
        raise NotDicom("the compressed pixels are not in fragments")
    fragments = _fragments(stream, start, end)[1:]  # the first is the offset table
    if not fragments:
        raise NotDicom("the pixels are cut short: there are no fragments")
    if sum(size for _, size in fragments) > 2 * expected + FRAGMENT_HEAD:
        raise NotDicom("the compressed pixels are larger than the image they encode")
    for offset, size in fragments:
        stream.seek(offset)
        declared = declared_size(stream.read(min(size, FRAGMENT_HEAD)))
        if declared not in (None, (header.Rows, header.Columns)):
            raise NotDicom("the compressed pixels do not have the header's rows and columns")


def _pixel_element(stream: BinaryIO, syntax: UID) -> tuple[int, int, int]:
    """The pixel element's declared length, the offset of its value, and the end of the file.

    Raises:
        NotDicom: the file ends before it, or its pixels are in an element other than PixelData.
    """
    read_up_to_pixels(stream)
    byte_order = "<" if syntax.is_little_endian else ">"
    layout = Struct(byte_order + ("HHL" if syntax.is_implicit_VR else "HH4xL"))
    head = stream.read(layout.size)
    start = stream.tell()
    end = stream.seek(0, 2)
    if len(head) < layout.size:
        raise NotDicom("the file holds no pixels, or is cut short before them")
    group, element, length = layout.unpack(head)
    if (group, element) != (0x7FE0, 0x0010):
        raise NotDicom("the pixels are not in PixelData")
    return length, start, end


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
