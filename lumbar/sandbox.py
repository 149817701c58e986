"""Child processes with time and memory limits, in which untrusted bytes are read.

Such bytes may crash a parser, hang it, exhaust its memory or take it over. A child process serves
one request after another and is restarted if it dies. A request is a line of JSON; a response is a
line of JSON whose ``bytes`` states how many bytes of content follow. Whatever else a child prints
is discarded, as it may contain patients' values. A child ends when its parent does, even within a
request. It gets no environment but ``ENVIRONMENT``, and is confined (``lumbar.confinement``). Its
parent relies on none of this (``lumbar.untrusted_pipe``).
"""

import atexit
import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from typing import Any

from lumbar.confinement import confine
from lumbar.log import get_logger
from lumbar.untrusted_pipe import NoResponse, Pipe, Response

WALL = 6
GRACE_S = 30.0  # beyond the child's own limits, in which it is started, too
MAX_LINE = 2**20  # bytes of a response, its content aside

# All that Python and the decoders' libraries are found by. Whatever else this process was given may
# be a secret, such as LUMBAR_DATABASE_URL.
ENVIRONMENT = (
    *("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE"),
    *("PYTHONHOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
)
# The stacks of further threads would count towards the memory limit.
_SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

log = get_logger()


class ChildProcessDied(Exception):
    """A request killed the child process, by its content or by exceeding the limits."""


class ChildProcess:
    """A module run as ``python -m``, one request at a time.

    Each process that uses it starts at most one child. ``seconds``: as the module has them, see
    ``serve``. ``environment``: names of variables that it gets, too. ``max_line``, ``max_content``:
    the longest response and content, in bytes.
    """

    def __init__(
        self,
        module: str,
        environment: Sequence[str] = (),
        *,
        seconds: int,
        max_line: int = MAX_LINE,
        max_content: int = 0,
    ) -> None:
        self._module = module
        self._environment = (*ENVIRONMENT, *environment)
        self._limit_s = WALL * seconds + GRACE_S
        self._max_line, self._max_content = max_line, max_content
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._parent = 0
        atexit.register(self.stop)

    @property
    def pid(self) -> int | None:
        """The running child's process ID; None if this process has not started one."""
        return self._process.pid if self._process and self._parent == os.getpid() else None

    def request(self, content: dict[str, Any], *, until: float | None = None) -> Response:
        """The child's response and the bytes that came with it.

        ``until``: the ``time.monotonic()`` at which the child is killed; None: soon after its own
        limits should have ended it.

        Raises:
            ChildProcessDied: it died, or did not respond within the limits.
        """
        until = monotonic() + self._limit_s if until is None else until
        with self._lock:
            pipe = Pipe(self._running(), self._max_line, self._max_content)
            try:
                response, attachment = pipe.ask(content, until)
            except (OSError, NoResponse):
                self.stop()
                raise ChildProcessDied from None
            self._log_lacks(response.pop("not_confined", ()))
            return response, attachment

    def close(self) -> None:
        """Kills the child for good, and with it a request of another thread."""
        if (process := self._process) and self._parent == os.getpid():
            process.kill()
        with self._lock:
            self.stop()
        atexit.unregister(self.stop)

    def stop(self) -> None:
        """Kills the child; the next request starts another."""
        if self._process and self._parent == os.getpid():
            _end(self._process)
        self._process = None

    def _log_lacks(self, lacks: Sequence[str]) -> None:
        if lacks:
            log.warning("sandbox.not_confined", child=self._module, lacks=list(lacks))

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._parent != os.getpid() or self._process.poll() is not None:
            self.stop()  # closes the pipes of one that has died
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,
                env={name: os.environ[name] for name in self._environment if name in os.environ}
                | _SINGLE_THREADED,
            )
            self._parent = os.getpid()
        return self._process


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kills a child and what it has started, and waits for the child alone."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it is its session's leader
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def serve(
    respond: Callable[[dict[str, Any]], Response],
    *,
    seconds: int,
    memory: int,
    network: bool = False,
) -> None:
    """The child's loop, which ends when its parent closes the pipe, and by no signal to stop.

    ``seconds``: of CPU time per request; a request may take ``WALL`` times as long by the clock, as
    the machine may be busy. ``memory``: bytes beyond what the process uses when it starts.
    ``network``: whether it may open sockets. The first response names what of the confinement this
    system lacks.
    """
    lacks = confine(network=network)  # before there is another thread
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    limit = _private_bytes() + memory
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for none in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(none, (0, 0))
    with os.fdopen(os.dup(1), "wb") as responses:
        os.dup2(2, 1)  # what a decoder prints must not be mistaken for a response
        for line in sys.stdin:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            signal.alarm(WALL * seconds)
            response, content = respond(json.loads(line))
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            described = json.dumps(
                response | {"bytes": len(content)} | ({"not_confined": lacks} if lacks else {})
            )
            lacks = ()
            responses.write(described.encode("ascii") + b"\n" + content)
            responses.flush()


def _end_with_parent() -> None:
    """Ends this process when its parent closes the pipe, as its death does."""
    closed = select.poll()
    closed.register(0, 0)  # the end of the pipe is always reported
    closed.poll()
    os._exit(0)


def _private_bytes() -> int:
    """What RLIMIT_DATA counts (Linux 4.7): the process's private writable mappings."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(
        int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")
    )
