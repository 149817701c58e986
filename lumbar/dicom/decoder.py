"""Compressed pixels, decoded in a child process with limits: a damaged bitstream can crash a native decoder.

The child stays, answers one request a line, and is started again after it has died. ``python -m lumbar.dicom.decoder``
is the child. A request is a line of JSON; an answer is a line of JSON, then the pixels' bytes.
"""

import atexit
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from threading import Lock
from typing import IO, Any

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
MEMORY = 4 * 2**30  # bytes of address space; the libraries alone take about 1 GiB

_lock = Lock()
_children: dict[int, subprocess.Popen[bytes]] = {}  # at most one, by the process that started it


def decode(path: Path, index: int, syntax: UID) -> NDArray[Any]:
    """One frame as stored, (rows, columns). ``index`` is 0-based. Raises NotDicom where it cannot be decoded.

    Whoever calls this has checked the file's sizes: see ``lumbar.dicom.pixels``.
    """
    request = json.dumps({"path": str(path.resolve()), "index": index, "plugin": DECODERS[syntax]})
    with _lock:
        child = _child()
        try:
            sent, received = _pipes(child)
            sent.write(request.encode("ascii") + b"\n")
            sent.flush()
            answer = json.loads(received.readline())
            pixels = received.read(answer["bytes"])
            if answer["bytes"]:
                return np.frombuffer(pixels, answer["dtype"]).reshape(answer["shape"])
        except (OSError, ValueError):  # it died, of the bytes or of its limits
            _end(child)
    raise NotDicom(f"the pixels cannot be decoded ({syntax.name})")


def _child() -> subprocess.Popen[bytes]:
    child = _children.get(os.getpid())
    if child is None or child.poll() is not None:
        command = [sys.executable, "-m", "lumbar.dicom.decoder"]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        _children[os.getpid()] = child
        atexit.register(_end, child)
    return child


def _pipes(child: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if child.stdin is None or child.stdout is None:
        raise OSError("the decoder has no pipes")
    return child.stdin, child.stdout


def _end(child: subprocess.Popen[bytes]) -> None:
    if _children.get(os.getpid()) is child:
        del _children[os.getpid()]
        child.kill()
        child.communicate()


def _answer(line: str) -> tuple[dict[str, Any], bytes]:
    request = json.loads(line)
    try:
        with refusing("it cannot be decoded"):
            frame = pixel_array(request["path"], index=request["index"], raw=True, decoding_plugin=request["plugin"])
    except NotDicom:
        return {"bytes": 0}, b""
    pixels = frame.tobytes()
    return {"bytes": len(pixels), "dtype": frame.dtype.str, "shape": frame.shape}, pixels


def _serve() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # whatever the decoders print must not be taken for an answer
        for line in sys.stdin:
            signal.alarm(SECONDS)
            described, pixels = _answer(line)
            signal.alarm(0)
            answers.write(json.dumps(described).encode("ascii") + b"\n" + pixels)
            answers.flush()


if __name__ == "__main__":
    _serve()
