"""Pixels of untrusted files: checked against the header first, then decoded frame by frame."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from lumbar.dicom.decoder import DECODERS, decode, pixel_array
from lumbar.dicom.functional_groups import frame_count, frame_datasets
from lumbar.dicom.headers import raising_not_dicom
from lumbar.dicom.part10 import read_up_to_pixels
from lumbar.dicom.pixel_element import check_bytes, find_pixels
from lumbar.elements import first_number, numbers, text
from lumbar.errors import NotDicom

MAX_PIXELS = 2048 * 2048  # per slice; MR matrices reach 1024
UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
TRANSFER_SYNTAXES = (*UNCOMPRESSED, *DECODERS)  # all that can be read, so all that is accepted
# Others are codestreams, whose values begin at bit 0 (PS3.5 8.2).
WORDS = (*UNCOMPRESSED, RLELossless)


def read_slice(path: Path, frame: int | None) -> NDArray[np.float32]:
    """One slice's pixels, (rows, columns), rescaled by the header's slope and intercept.

    Bright tissue has high values, in MONOCHROME1 images too. Padding, which shows nothing of the
    patient, is NaN. ``frame`` is 1-based; None in a single-frame instance. Only that frame is
    decoded.

    Raises:
        NotDicom: the pixels are missing, cut short, too large, of an unsupported kind, or cannot be
            decoded.
    """
    damaged = "the header cannot be read; it may be damaged"
    with raising_not_dicom(damaged), path.open("rb") as stream:
        header = read_up_to_pixels(stream)
        syntax = UID(text(header.file_meta, "TransferSyntaxUID"))
        check_kind(header, syntax, frame)
        datasets = frame_datasets(header, frame)
        pixels = find_pixels(stream, header)
        with raising_not_dicom(f"the pixels cannot be decoded ({syntax.name})"):
            compressed = syntax in DECODERS
            check_bytes(stream, header, pixels, compressed=compressed)
            index = (frame or 1) - 1
            words = (
                decode(path, index, syntax)
                if compressed
                else pixel_array(stream, header, pixels, index, syntax)
            )
            if words.shape != (header.Rows, header.Columns):
                raise NotDicom("the decoded pixels do not have the header's rows and columns")
            stored = stored_values(words, header, shifted=syntax in WORDS)
            return _rescaled(stored, padding_of(words, stored, datasets), datasets)


def stored_values(words: NDArray[Any], header: Dataset, *, shifted: bool) -> NDArray[np.int32]:
    """The stored bits of each word as a number.

    The other bits may hold anything, once also overlays (PS3.5 8.1.1).
    """
    shift = _high_bit(header) + 1 - header.BitsStored if shifted else 0
    bits, signed = header.BitsStored, header.PixelRepresentation
    stored: NDArray[np.int32] = _as_number(words.astype(np.int32) >> shift, bits, signed)
    return stored


def padding_of(
    words: NDArray[Any], stored: NDArray[np.int32], datasets: list[Dataset]
) -> NDArray[np.bool_]:
    """Which pixels are padding (PS3.3 C.7.5.1.1.2).

    The whole words are compared, too, because padding may not fit the stored bits. Some scanners
    state it with the other VR, as 32768 for -32768 (GE); its 16 bits are the same. The lowest
    number of 16 signed bits is padding without being stated: no signal has it.
    """
    header = datasets[-1]
    signed = header.PixelRepresentation
    padding: NDArray[np.bool_] = stored == np.iinfo(np.int16).min
    first = first_number(datasets, "PixelPaddingValue")
    if first is None:
        return padding
    last = first_number(datasets, "PixelPaddingRangeLimit")
    limits = (first, first if last is None else last)
    low, high = sorted(_as_number(int(limit), 16, signed) for limit in limits)
    for values in (stored, _as_number(words.astype(np.int32), header.BitsAllocated, signed)):
        padding |= (low <= values) & (values <= high)
    return padding


def _as_number(bits: Any, count: int, signed: int) -> Any:
    """The lowest bits as a number, in two's complement if signed."""
    unsigned = bits & ((1 << count) - 1)
    return unsigned - ((unsigned & (signed << count - 1)) << 1)


def _rescaled(
    stored: NDArray[np.int32], padding: NDArray[np.bool_], datasets: list[Dataset]
) -> NDArray[np.float32]:
    slope, intercept = rescale_of(datasets)
    image = stored.astype(np.float32)
    with np.errstate(all="ignore"):
        image *= slope
        image += intercept
    if not np.isfinite(image).all():
        raise NotDicom("RescaleSlope and RescaleIntercept overflow the pixels")
    shown = image[~padding]
    if shown.size and text(datasets[-1], "PhotometricInterpretation") == "MONOCHROME1":
        image = shown.max() - image  # 0 is the darkest, as in a magnitude image
    image[padding] = np.nan
    return image


def rescale_of(datasets: list[Dataset]) -> tuple[float, float]:
    """Slope and intercept, which belong together; a slope of zero is none."""
    source = next((d for d in datasets if any(numbers(d, "RescaleSlope"))), datasets[-1])
    return (
        first_number([source], "RescaleSlope") or 1.0,
        first_number([source], "RescaleIntercept") or 0.0,
    )


def check_kind(header: Dataset, syntax: UID, frame: int | None) -> None:
    """Requires an image that can be decoded, and that it has the frame.

    Raises:
        NotDicom: it is of another kind, or its header is not consistent.
    """
    if syntax not in TRANSFER_SYNTAXES:
        name = syntax.name if syntax.is_transfer_syntax else "unknown"
        raise NotDicom(f"the transfer syntax is not supported: {name}")
    photometric = header.get("PhotometricInterpretation")
    if header.get("SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise NotDicom("not a greyscale image")
    allocated = header.get("BitsAllocated")
    if allocated not in (8, 16) or not 1 <= header.BitsStored <= allocated:
        raise NotDicom("BitsAllocated is not 8 or 16, or BitsStored does not fit it")
    if not header.BitsStored - 1 <= _high_bit(header) < allocated:
        raise NotDicom("HighBit does not fit BitsStored and BitsAllocated")
    if not 1 <= header.Rows * header.Columns <= MAX_PIXELS:
        raise NotDicom(f"the image is empty or larger than {MAX_PIXELS} pixels")
    frames = frame_count(header)
    if frame is None and frames != 1:
        raise NotDicom(f"the image has {frames} frames; state which one")
    if frame is not None and not 1 <= frame <= frames:
        raise NotDicom(f"there is no frame {frame}; the image has {frames}")


def _high_bit(header: Dataset) -> int:
    high_bit = header.get("HighBit")
    return int(header.BitsStored - 1 if high_bit is None else high_bit)
