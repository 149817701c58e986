"""Decodes compressed pixels in a child process: a damaged bitstream can crash a native decoder.

``python -m lumbar.dicom.decoder`` is the child process.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from lumbar.dicom.headers import raising_not_dicom
from lumbar.dicom.sandbox import ChildProcess, ChildProcessDied, Response, serve
from lumbar.errors import NotDicom

# One decoder per transfer syntax: a second would only receive bytes that the first has rejected.
DECODERS = {
    RLELossless: "pydicom",
    JPEG2000Lossless: "gdcm",
    JPEG2000: "gdcm",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEGLosslessSV1: "gdcm",
    JPEGLossless: "gdcm",
    JPEGBaseline8Bit: "gdcm",
    JPEGExtended12Bit: "gdcm",
}
SECONDS = 20  # per slice
MEMORY = 384 * 2**20  # bytes, per slice of at most 2048 × 2048

child = ChildProcess("lumbar.dicom.decoder")


def decode(path: Path, index: int, syntax: UID) -> NDArray[Any]:
    """One frame as stored, (rows, columns). ``index`` is 0-based.

    The caller has checked the file's sizes (see ``lumbar.dicom.pixels``).

    Raises:
        NotDicom: the frame cannot be decoded.
    """
    request = {"path": str(path.resolve()), "index": index, "plugin": DECODERS[syntax]}
    try:
        response, pixels = child.request(request)
        if pixels:
            return np.frombuffer(pixels, response["dtype"]).reshape(response["shape"])
    except ChildProcessDied:
        pass
    raise NotDicom(f"the pixels cannot be decoded ({syntax.name})")


def _respond(request: dict[str, Any]) -> Response:
    try:
        with raising_not_dicom("it cannot be decoded"):
            frame = pixel_array(
                request["path"], index=request["index"], raw=True, decoding_plugin=request["plugin"]
            )
    except NotDicom:
        return {}, b""
    return {"dtype": frame.dtype.str, "shape": frame.shape}, frame.tobytes()


if __name__ == "__main__":
    serve(_respond, seconds=SECONDS, memory=MEMORY)
