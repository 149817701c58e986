"""Compressed pixels, decoded in a child process: a damaged bitstream can crash a native decoder.

``python -m lumbar.dicom.decoder`` is the child.
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

from lumbar.dicom.headers import refusing
from lumbar.dicom.sandbox import Answer, Child, Died, serve
from lumbar.errors import NotDicom

DECODERS = {  # one each: the next one would only be handed the bytes that the first has refused
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
SECONDS = 20  # for one slice
MEMORY = 384 * 2**20  # bytes, for one slice of at most 2048 × 2048

child = Child("lumbar.dicom.decoder")


def decode(path: Path, index: int, syntax: UID) -> NDArray[Any]:
    """One frame as stored, (rows, columns). ``index`` is 0-based. Raises NotDicom where it cannot be decoded.

    Whoever calls this has checked the file's sizes: see ``lumbar.dicom.pixels``.
    """
    try:
        described, pixels = child.ask(
            {"path": str(path.resolve()), "index": index, "plugin": DECODERS[syntax]}
        )
        if pixels:
            return np.frombuffer(pixels, described["dtype"]).reshape(described["shape"])
    except Died:
        pass
    raise NotDicom(f"the pixels cannot be decoded ({syntax.name})")


def _answer(request: dict[str, Any]) -> Answer:
    try:
        with refusing("it cannot be decoded"):
            frame = pixel_array(
                request["path"], index=request["index"], raw=True, decoding_plugin=request["plugin"]
            )
    except NotDicom:
        return {}, b""
    return {"dtype": frame.dtype.str, "shape": frame.shape}, frame.tobytes()


if __name__ == "__main__":
    serve(_answer, seconds=SECONDS, memory=MEMORY)
