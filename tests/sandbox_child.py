"""A child process that does as requested within its limits: ``python -m tests.sandbox_child``."""

import ctypes
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

from lumbar.sandbox import serve

PR_SET_NAME = 15

ATTEMPTS = {
    "connect": lambda address: socket.create_connection(tuple(address)),
    "a local socket": lambda path: socket.socket(socket.AF_UNIX).connect(path),
    "read": lambda path: Path(path).read_bytes(),
    "write": lambda path: Path(path).write_text("written"),
    "append": lambda path: os.open(path, os.O_WRONLY | os.O_APPEND),
    "shorten": lambda path: os.truncate(path, 0),
    "remove": os.unlink,
    "rename": lambda path: Path(path).rename(f"{path}.new"),
    "make a folder": os.mkdir,
    "make a link": lambda path: Path(path).symlink_to("/"),
    "run": lambda program: subprocess.run([program], check=False),
    "kill": lambda pid: os.kill(pid, signal.SIGKILL),
}


def write_response(request):
    """Writes it, and nothing else, where responses go to: its end of the parent's pipe."""
    pipes = (Path(f"/proc/self/fd/{number}") for number in range(3, 50))
    pipe = next(file for file in pipes if file.is_symlink() and "pipe:" in str(file.readlink()))
    with pipe.open("wb") as written:
        written.write(request["written"].encode())
    threading.Event().wait()


def leave_another_process(request):
    """Ends, but not so another process that has the same pipe."""
    if not os.fork():
        os.setsid()  # out of reach of a signal to the group
        signal.alarm(20)
        threading.Event().wait()
    os._exit(0)


TAKEN_OVER = {"write": write_response, "leave another process": leave_another_process}


def respond(request):
    if request["do"] in TAKEN_OVER:
        TAKEN_OVER[request["do"]](request)
    match request["do"]:
        case "answer":
            os.write(1, b"decoders print what they like\n")
            return {"pid": os.getpid()}, request["text"].encode()
        case "hang":
            threading.Event().wait()
        case "sleep":  # longer than any test, as no limit ends it before
            signal.alarm(0)
            ctypes.CDLL(None).prctl(PR_SET_NAME, b"asleep")  # all that it can say outside
            threading.Event().wait()
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "environment":
            return {"names": sorted(os.environ)}, b""
        case "try":
            try:
                ATTEMPTS[request["what"]](request["argument"])
            except OSError as error:
                return {"refused": error.errno}, b""
            return {"refused": None}, b""
        case "grow":
            return {}, bytes(bytearray(request["mib"] * 2**20)[:1])
    raise AssertionError(request)


if __name__ == "__main__":
    serve(respond, seconds=1, memory=64 * 2**20)
