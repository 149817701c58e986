"""Requests to a process that may have been taken over, and its responses, within limits.

Nothing is waited for beyond a time, and nothing is kept beyond a length: such a process may answer
nothing, without an end, or leave its end of a pipe to another process.
"""

import json
import os
import select
from dataclasses import dataclass
from subprocess import Popen
from time import monotonic
from typing import Any

READ = 2**20  # bytes at a time

Response = tuple[dict[str, Any], bytes]


class NoResponse(Exception):
    """There was none in time, or it was not one within the limits."""


@dataclass(frozen=True)
class Pipe:
    """A process's standard input and output. Lengths are in bytes, ``until`` is monotonic time."""

    process: "Popen[bytes]"
    max_line: int
    max_content: int

    def ask(self, request: dict[str, Any], until: float) -> Response:
        """The process's response, and the content that follows it.

        Raises:
            NoResponse: it ended, was too slow, or answered with anything else.
            OSError: it has ended.
        """
        self._write(json.dumps(request).encode("ascii") + b"\n", until)
        received = bytearray()
        while (end := received.find(b"\n")) < 0:
            if len(received) > self.max_line:
                raise NoResponse
            received += self._read(until)
        response = self._parsed(received[:end])
        content = received[end + 1 :]
        while len(content) < response["bytes"]:
            content += self._read(until)
        if len(content) > response["bytes"]:
            raise NoResponse
        return response, bytes(content)

    def _parsed(self, line: bytearray) -> dict[str, Any]:
        try:
            response = json.loads(line)
        except (ValueError, RecursionError):
            raise NoResponse from None
        if len(line) > self.max_line or not isinstance(response, dict):
            raise NoResponse
        length = response.get("bytes")
        if type(length) is not int or not 0 <= length <= self.max_content:
            raise NoResponse
        return response

    def _write(self, content: bytes, until: float) -> None:
        assert self.process.stdin is not None  # noqa: S101 - it is a pipe
        file = self.process.stdin.fileno()
        os.set_blocking(file, False)
        while content:
            _wait(file, select.POLLOUT, until)
            content = content[os.write(file, content) :]

    def _read(self, until: float) -> bytes:
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        file = self.process.stdout.fileno()
        _wait(file, select.POLLIN, until)
        content = os.read(file, READ)
        if not content:
            raise NoResponse
        return content


def _wait(file: int, event: int, until: float) -> None:
    """Waits until one can read or write, or the other end is closed.

    Raises:
        NoResponse: not in time.
    """
    ready = select.poll()
    ready.register(file, event)
    remaining_s = until - monotonic()
    if remaining_s <= 0 or not ready.poll(1000 * remaining_s):
        raise NoResponse
