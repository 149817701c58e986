"""A child process with limits: a request is served, or kills the child, which is then restarted."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest

from lumbar.sandbox import ChildProcess, ChildProcessDied
from tests.system import wait_until

PARENT = """
import sys
from lumbar.sandbox import ChildProcess
ChildProcess("tests.sandbox_child").request({"do": "sleep", "began": sys.argv[1]})
"""


def is_running(pid: int) -> bool:
    """Not for a process that nobody has waited for."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    return False


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    started = ChildProcess("tests.sandbox_child")
    yield started
    started.stop()


def test_one_process_serves_all_requests(child: ChildProcess) -> None:
    first = child.request({"do": "answer", "text": "ä\n" * 3})
    assert first == ({"pid": child.pid, "bytes": 9}, ("ä\n" * 3).encode())
    assert child.request({"do": "answer", "text": ""}) == (
        {"pid": first[0]["pid"], "bytes": 0},
        b"",
    )


@pytest.mark.parametrize("request_", [{"do": "hang"}, {"do": "crash"}, {"do": "grow", "mib": 200}])
def test_a_request_beyond_the_limits_kills_only_the_child(
    child: ChildProcess, request_: dict[str, object]
) -> None:
    before = child.request({"do": "answer", "text": ""})[0]["pid"]
    with pytest.raises(ChildProcessDied):
        child.request(request_)
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    assert child.request({"do": "answer", "text": ""})[0]["pid"] != before


def test_a_request_within_the_limits_is_served(child: ChildProcess) -> None:
    assert child.request({"do": "grow", "mib": 32}) == ({"bytes": 1}, b"\0")


def test_a_request_ends_the_child_at_its_deadline(child: ChildProcess) -> None:
    running = child.request({"do": "answer", "text": ""})[0]["pid"]
    os.kill(running, signal.SIGSTOP)  # its own alarm does not end it now

    with pytest.raises(ChildProcessDied):
        child.request({"do": "hang"}, until=monotonic() + 0.1)

    with pytest.raises(ProcessLookupError):
        os.kill(running, 0)


def test_a_child_ends_with_its_parent_even_within_a_request(tmp_path: Path) -> None:
    began = tmp_path / "began"
    with subprocess.Popen([sys.executable, "-c", PARENT, str(began)]) as parent:
        wait_until(lambda: began.exists() and began.read_text() != "", 30, lambda: "no request")
        parent.kill()
    child = int(began.read_text())

    wait_until(lambda: not is_running(child), 30, lambda: "the child outlives its parent")
