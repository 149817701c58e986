"""A child process that does as requested within its limits: ``python -m tests.sandbox_child``."""

import os
import signal
import threading
from pathlib import Path

from lumbar.sandbox import serve


def respond(request):
    match request["do"]:
        case "answer":
            os.write(1, b"decoders print what they like\n")
            return {"pid": os.getpid()}, request["text"].encode()
        case "hang":
            threading.Event().wait()
        case "sleep":  # longer than any test, as no limit ends it before
            signal.alarm(0)
            Path(request["began"]).write_text(str(os.getpid()))
            threading.Event().wait()
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "grow":
            return {}, bytes(bytearray(request["mib"] * 2**20)[:1])
    raise AssertionError(request)


if __name__ == "__main__":
    serve(respond, seconds=1, memory=64 * 2**20)
