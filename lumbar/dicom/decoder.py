"""Decodes compressed pixels in a child process: a damaged bitstream can crash a native decoder.

``python -m lumbar.dicom.decoder`` is the child process.
"""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from lumbar.dicom.headers import raising_not_dicom
from lumbar.dicom.part10 import read_up_to_pixels
from lumbar.dicom.pixel_element import PixelElement, find_pixels
from lumbar.errors import NotDicom
from lumbar.sandbox import ChildProcess, ChildProcessDied, serve
from lumbar.untrusted_pipe import Response

# One decoder per transfer syntax: a second would only receive bytes that the first has rejected.
# JPEG Extended is missing, as none of them decodes its 12 bits: it is refused at the door.
DECODERS = {
    RLELossless: "pydicom",
    JPEG2000Lossless: "gdcm",
    JPEG2000: "gdcm",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEGLosslessSV1: "gdcm",
    JPEGLossless: "gdcm",
    JPEGBaseline8Bit: "gdcm",
}
SECONDS = 20  # per slice
MEMORY = 384 * 2**20  # bytes, per slice of at most 2048 × 2048
MAX_FRAME = 8 * 2048 * 2048  # bytes

child = ChildProcess("lumbar.dicom.decoder", seconds=SECONDS, max_content=MAX_FRAME)


def decode(path: Path, index: int, syntax: UID) -> NDArray[Any]:
    """One compressed frame, as ``pixel_array`` returns it, decoded in the child process.

    The caller has checked the file's sizes (see ``lumbar.dicom.pixels``).

    Raises:
        NotDicom: the frame cannot be decoded.
    """
    request = {"path": str(path.resolve()), "index": index, "syntax": syntax}
    try:
        response, pixels = child.request(request)
        if pixels:
            return np.frombuffer(pixels, response["dtype"]).reshape(response["shape"])
    except ChildProcessDied:
        pass
    raise NotDicom(f"the pixels cannot be decoded ({syntax.name})")


def pixel_array(
    stream: BinaryIO, header: Dataset, pixels: PixelElement, index: int, syntax: UID
) -> NDArray[Any]:
    """One frame, (rows, columns), with all allocated bits. ``index`` is 0-based.

    JPEG 2000 and JPEG-LS codestreams state their own number of bits; their values are extended to
    the allocated bits. Raises pydicom's own exceptions.
    """
    stream.seek(pixels.start)
    options: dict[str, Any] = as_pixel_options(
        header, pixel_keyword="PixelData", pixel_vr=pixels.vr, correct_unused_bits=False
    )
    plugin = DECODERS.get(syntax, "")
    array, _ = get_decoder(syntax).as_array(
        stream, index=index, raw=True, decoding_plugin=plugin, **options
    )
    return array


def _respond(request: dict[str, Any]) -> Response:
    try:
        with raising_not_dicom("it cannot be decoded"), Path(request["path"]).open("rb") as stream:
            header = read_up_to_pixels(stream)
            pixels = find_pixels(stream, header)
            frame = pixel_array(stream, header, pixels, request["index"], UID(request["syntax"]))
    except NotDicom:
        return {}, b""
    return {"dtype": frame.dtype.str, "shape": frame.shape}, frame.tobytes()


if __name__ == "__main__":
    serve(_respond, seconds=SECONDS, memory=MEMORY)
