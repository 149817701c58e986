"""Child processes that are kept running: started again after a wait, ended with their parent."""

import random
import subprocess
import sys
import time
from collections.abc import Callable

from commands.stopping import STOP_WITHIN_S
from lumbar.closing import Closing
from lumbar.errors import Permanent
from lumbar.log import get_logger

log = get_logger()

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "commands")  # how a service is started
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0  # before a service is started again
STEADY_S = 60.0  # after running for so long, the next wait is the first one again
WRONG_SETTING = 2  # the exit status of a service that a setting keeps from starting


class Supervisor(Closing):
    """Runs services as child processes, as long as the ``with`` block.

    A service that ends is started again, whatever its status, until the block ends. However this
    process ends, its services end, too: they read its end from their standard input.
    """

    def __init__(self) -> None:
        self._services: list[_Service] = []

    def start(self, name: str, essential: bool = False) -> None:
        """Starts `lumbar NAME`. Nothing can go on if the settings keep an essential one away."""
        self._services.append(_Service(name, essential))

    def keep_running(self) -> None:
        """Starts again what has ended and waited long enough; to be called again and again.

        Raises:
            Permanent: an essential service has refused its settings at its first start.
        """
        for service in self._services:
            service.keep_running()

    def close(self) -> None:
        """Ends the services; kills what has not ended after ``STOP_WITHIN_S``."""
        for service in self._services:
            service.terminate()
        deadline = time.monotonic() + STOP_WITHIN_S
        for service in self._services:
            service.wait(deadline)


class _Service:
    """A child process, and when it is due to be started again."""

    def __init__(
        self, name: str, essential: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._essential, self._clock = name, essential, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._failures = 0
        self._start_at = 0.0
        self._start()

    def _start(self) -> None:
        self._started_at = self._clock()
        try:
            self._process = subprocess.Popen(
                [*PROGRAM, self._name, "--until-eof"], stdin=subprocess.PIPE
            )
        except OSError as error:  # no memory, or too many processes
            self._ended(error.strerror or type(error).__name__)

    def keep_running(self) -> None:
        if self._process is None:
            if self._clock() >= self._start_at:
                self._start()
        elif (status := self._process.poll()) is not None:
            if self._essential and self._failures == 0 and status == WRONG_SETTING:
                raise Permanent(
                    f"`lumbar {self._name}` ended with status {status}; the reason is above"
                )
            self._close()
            self._ended(status)

    def _ended(self, status: int | str) -> None:
        steady = self._clock() - self._started_at >= STEADY_S
        self._failures = 1 if steady else self._failures + 1
        longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(self._failures - 1, 10))
        wait_s = random.uniform(0.5, 1) * longest_s
        self._start_at = self._clock() + wait_s
        log.error("service.restarted", service=self._name, status=status, wait_s=round(wait_s, 1))

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def wait(self, deadline: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None
