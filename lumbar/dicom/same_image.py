"""Whether two files hold the same MR image, however their headers and pixels are encoded.

An archive that keeps an image often changes its file: it compresses the pixels, converts the data
set, adds or corrects attributes. ``python -m lumbar.dicom.same_image`` is the child process that
reads the files, some frames of one file per request.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID

from lumbar.dicom.decoder import DECODERS, pixel_array
from lumbar.dicom.functional_groups import frame_count, frame_datasets
from lumbar.dicom.headers import IMAGE_CLASSES, MULTI_FRAME, raising_not_dicom
from lumbar.dicom.part10 import read_up_to_pixels
from lumbar.dicom.pixel_element import check_bytes, find_pixels
from lumbar.dicom.pixels import WORDS, check_kind, padding_of, rescale_of, stored_values
from lumbar.elements import numbers, text
from lumbar.errors import NotDicom, Unreadable
from lumbar.sandbox import ChildProcess, ChildProcessDied, serve
from lumbar.untrusted_pipe import Response

SECONDS = 30  # per request
MEMORY = 512 * 2**20  # bytes, per request
BATCH_PIXELS = 2**24  # decoded in one request; one frame at least
MAX_PIXELS = 2**31  # in all frames
MAX_DESCRIPTION = 2**25  # bytes that one request's frames are described in
# Decimal strings of 16 characters are rewritten with other roundings (PS3.5 6.2, DS).
GEOMETRY = {  # in mm, and as cosines; with what two values may differ by
    "ImagePositionPatient": 1e-4,
    "ImageOrientationPatient": 1e-5,
    "PixelSpacing": 1e-5,
}
RESCALE_TOLERANCE = 1e-6  # of the value

child = ChildProcess("lumbar.dicom.same_image", seconds=SECONDS, max_line=MAX_DESCRIPTION)


@dataclass(frozen=True)
class Comparison:
    """What two files hold; ``readable``: the header, and all pixels of all frames, an MR image's.

    ``same`` implies that both are readable.
    """

    a_readable: bool
    b_readable: bool
    same: bool


def compare(a: Path, b: Path) -> Comparison:
    """Whether two files hold the same image.

    That is: the same SOP class, rows, columns, frames, and stored bits and their sign; of each
    frame the same position, orientation and pixel spacing, rescaling, photometric interpretation,
    padding and stored pixel values; and the same frame of reference. Nothing else is compared, so
    not the patient nor the UIDs. Files of other classes than the MR images are not readable.

    A file that kills the child process twice is not readable.

    Raises:
        Unreadable: the disk cannot be read.
    """
    first, second = _read(a), _read(b)
    if first is None or second is None:
        return Comparison(first is not None, second is not None, same=False)
    return Comparison(True, True, same=_same(first, second))


# Of each request's answer: what its frames have in common, each frame's geometry and rescaling, and
# a digest of all of its pixels.
_Image = list[dict[str, Any]]


def _read(path: Path) -> _Image | None:
    """An image as the child process describes it, request by request; None if it is unreadable.

    Raises:
        Unreadable: the disk cannot be read.
    """
    image, frame = _Image(), 0
    while not image or frame < image[0]["common"]["frames"]:
        response = _request(path, frame)
        if "error" in response:
            if response["unreadable"]:
                raise Unreadable(response["error"])
            return None
        frame += len(response["frames"])
        image.append(response)
    return image


def _request(path: Path, first: int) -> dict[str, Any]:
    for _ in range(2):  # another process may be to blame for the first death
        try:
            return child.request({"path": str(path.resolve()), "first": first})[0]
        except ChildProcessDied:
            continue
    return {"error": "reading the image exceeds the time or memory limit", "unreadable": False}


def _same(a: _Image, b: _Image) -> bool:
    return len(a) == len(b) and all(
        one["common"] == other["common"]
        and one["digest"] == other["digest"]
        and len(one["frames"]) == len(other["frames"])
        and all(map(_same_frame, one["frames"], other["frames"]))
        for one, other in zip(a, b, strict=True)
    )


def _same_frame(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return (
        a["photometric"] == b["photometric"]
        and all(_close(a[keyword], b[keyword], absolute=GEOMETRY[keyword]) for keyword in GEOMETRY)
        and _close(a["rescale"], b["rescale"], relative=RESCALE_TOLERANCE)
    )


def _close(
    a: Sequence[float], b: Sequence[float], absolute: float = 0.0, relative: float = 0.0
) -> bool:
    return len(a) == len(b) and all(
        math.isclose(one, other, rel_tol=relative, abs_tol=absolute)
        for one, other in zip(a, b, strict=True)
    )


def _described(path: Path, first: int) -> dict[str, Any]:
    """The frames from ``first``, 0-based, as many as one request may decode.

    Raises:
        NotDicom: they cannot be decoded, or the file holds no MR image.
    """
    with raising_not_dicom("the image cannot be read"), path.open("rb") as stream:
        header = read_up_to_pixels(stream)
        syntax = UID(text(header.file_meta, "TransferSyntaxUID"))
        frames = _checked_frames(header, syntax)
        pixels = find_pixels(stream, header)
        check_bytes(stream, header, pixels, compressed=syntax in DECODERS)
        size = header.Rows * header.Columns
        if size * frames > MAX_PIXELS:
            raise NotDicom("the image is too large to be compared")
        digest, described = sha256(), []
        for index in range(first, min(frames, first + max(1, BATCH_PIXELS // size))):
            words = pixel_array(stream, header, pixels, index, syntax)
            if words.shape != (header.Rows, header.Columns):
                raise NotDicom("the decoded pixels do not have the header's rows and columns")
            datasets = frame_datasets(header, _number(header, index))
            stored = stored_values(words, header, shifted=syntax in WORDS)
            digest.update(stored.astype("<i4").tobytes())
            digest.update(padding_of(words, stored, datasets).tobytes())
            described.append(_frame(datasets))
        return {"common": _common(header), "frames": described, "digest": digest.hexdigest()}


def _checked_frames(header: Dataset, syntax: UID) -> int:
    """How many frames there are.

    Raises:
        NotDicom: it is no MR image that can be decoded.
    """
    if text(header, "SOPClassUID") not in IMAGE_CLASSES:
        raise NotDicom("not an MR image")
    check_kind(header, syntax, _number(header, 0))
    return frame_count(header)


def _number(header: Dataset, index: int) -> int | None:
    """A frame's 1-based number; None in a single-frame instance."""
    return index + 1 if text(header, "SOPClassUID") in MULTI_FRAME else None


def _common(header: Dataset) -> dict[str, Any]:
    return {
        "class": text(header, "SOPClassUID"),
        "rows": int(header.Rows),
        "columns": int(header.Columns),
        "frames": frame_count(header),
        "bits": int(header.BitsStored),
        "signed": int(header.PixelRepresentation),
        "frame of reference": text(header, "FrameOfReferenceUID"),
    }


def _frame(datasets: list[Dataset]) -> dict[str, Any]:
    stated = {keyword: _first_numbers(datasets, keyword) for keyword in GEOMETRY}
    photometric = text(datasets[-1], "PhotometricInterpretation")
    return {**stated, "rescale": rescale_of(datasets), "photometric": photometric}


def _first_numbers(datasets: list[Dataset], keyword: str) -> tuple[float, ...]:
    return next(filter(None, (numbers(each, keyword) for each in datasets)), ())


def _respond(request: dict[str, Any]) -> Response:
    try:
        return _described(Path(request["path"]), request["first"]), b""
    except NotDicom as error:
        return {"error": str(error), "unreadable": isinstance(error, Unreadable)}, b""


if __name__ == "__main__":
    serve(_respond, seconds=SECONDS, memory=MEMORY)
