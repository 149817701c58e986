"""Strangers' bytes are parsed and decoded in child processes with limits: they may crash, hang or bloat a parser.

A child stays, answers one request a line, and is started again after it has died. A request is a line of JSON; an
answer is a line of JSON whose ``bytes`` tells how many bytes follow it. What a child prints goes nowhere: it may hold
patients' values.
"""

import atexit
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

Answer = tuple[dict[str, Any], bytes]

_ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}  # threads' stacks would count as memory


class Died(Exception):
    """The child died of the request: of the bytes, or of its limits."""


class Child:
    """A module run as ``python -m``, one request at a time; at most one process for each process that uses it."""

    def __init__(self, module: str) -> None:
        self._command = [sys.executable, "-m", module]
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._parent = 0
        atexit.register(self.end)

    @property
    def pid(self) -> int | None:
        """The process that answers, if one was started."""
        return self._process.pid if self._process and self._parent == os.getpid() else None

    def ask(self, request: dict[str, Any]) -> Answer:
        """The child's answer and the bytes that came with it. Raises Died."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
            try:
                process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
                process.stdin.flush()
                described = json.loads(process.stdout.readline())
                content = process.stdout.read(described["bytes"])
                if len(content) == described["bytes"]:
                    return described, content
            except (OSError, ValueError):
                pass
            self.end()
        raise Died

    def end(self) -> None:
        """Stops the process; the next request starts another."""
        if self._process and self._parent == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._parent != os.getpid() or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | _ONE_THREAD,
            )
            self._parent = os.getpid()
        return self._process


def serve(answer: Callable[[dict[str, Any]], Answer], *, seconds: int, memory: int) -> None:
    """The child's loop: ``seconds`` for one request, ``memory`` in bytes above what the process has at its start."""
    allowed = _private_bytes() + memory
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # whatever a decoder prints must not be taken for an answer
        for line in sys.stdin:
            signal.alarm(seconds)
            described, content = answer(json.loads(line))
            signal.alarm(0)
            answers.write(
                json.dumps(described | {"bytes": len(content)}).encode("ascii") + b"\n" + content
            )
            answers.flush()


def _private_bytes() -> int:
    """What RLIMIT_DATA counts (Linux 4.7): the process's private writable mappings."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(
        int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")
    )
