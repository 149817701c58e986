"""A child process with limits: a request is served, or kills the child, which is then restarted."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from time import monotonic

import pytest
import structlog

from lumbar import sandbox
from lumbar.sandbox import ENVIRONMENT, ChildProcess, ChildProcessDied
from tests.system import wait_until

PARENT = """
from lumbar.sandbox import ChildProcess
child = ChildProcess("tests.sandbox_child", seconds=600)
print(child.request({"do": "answer", "text": ""})[0]["pid"], flush=True)
child.request({"do": "sleep"})
"""


def is_running(pid: int) -> bool:
    """Not for a process that nobody has waited for."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    return False


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    started = ChildProcess("tests.sandbox_child", seconds=1, max_content=64)
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


@pytest.mark.parametrize(
    "written",
    [
        b"x" * 2**21,
        b'{"bytes": 65}\n' + b"x" * 65,
        b'{"bytes": -1}\n',
        b'{"bytes": 1}\nxx',
        b'{"bytes": true}\nx',
        b'{"bytes": "1"}\nx',
        b"[]\n",
        b"[" * 2**19 + b"\n",
    ],
    ids=["no end", "too long", "negative", "more", "a truth", "a text", "no object", "nested"],
)
def test_a_child_that_was_taken_over_answers_within_limits_or_not_at_all(
    child: ChildProcess, written: bytes
) -> None:
    with pytest.raises(ChildProcessDied):
        child.request({"do": "write", "written": written.decode()})
    assert child.pid is None


def test_a_child_that_ignores_its_limits_is_killed_soon_after_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "GRACE_S", 1.0)
    with closing(ChildProcess("tests.sandbox_child", seconds=0)) as child:
        with pytest.raises(ChildProcessDied):
            child.request({"do": "sleep"})
        assert child.pid is None


def test_a_process_that_a_child_has_left_behind_keeps_nobody_waiting(
    child: ChildProcess,
) -> None:
    child.request({"do": "answer", "text": ""})
    with pytest.raises(ChildProcessDied):
        child.request({"do": "leave another process"}, until=monotonic() + 0.5)


def test_a_child_ends_with_its_parent_even_within_a_request() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        comm = Path(f"/proc/{child}/comm")
        wait_until(lambda: comm.read_text() == "asleep\n", 30, lambda: "no request")
        parent.kill()

    wait_until(lambda: not is_running(child), 30, lambda: "the child outlives its parent")


def test_a_child_gets_no_variable_that_its_parent_may_hold_as_a_secret(
    monkeypatch: pytest.MonkeyPatch, child: ChildProcess
) -> None:
    monkeypatch.setenv("LUMBAR_DATABASE_URL", "postgresql://anna:secret@db/lumbar")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/authorities.pem")
    trusting = ChildProcess("tests.sandbox_child", ["REQUESTS_CA_BUNDLE"], seconds=1)

    names = set(child.request({"do": "environment"})[0]["names"])
    its_names = set(trusting.request({"do": "environment"})[0]["names"])
    trusting.stop()

    assert names <= {*ENVIRONMENT, "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}
    assert its_names - names == {"REQUESTS_CA_BUNDLE"}


def test_a_child_that_was_taken_over_reaches_neither_network_nor_programs_nor_its_parent(
    child: ChildProcess, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        attempts = {
            "connect": server.getsockname(),
            "a local socket": str(tmp_path / "socket"),
            "run": "/bin/true",
            "kill": os.getpid(),
            "read": f"/proc/{os.getpid()}/environ",
        }
        for what, argument in attempts.items():
            answer = child.request({"do": "try", "what": what, "argument": argument})[0]
            assert answer["refused"] in (errno.EACCES, errno.EPERM), what


def test_a_child_reads_files_but_changes_none(child: ChildProcess, tmp_path: Path) -> None:
    (file := tmp_path / "image.dcm").write_text("pixels")
    assert try_(child, "read", file) is None
    for what in ("write", "append", "shorten", "remove", "rename"):
        assert try_(child, what, file) in (errno.EACCES, errno.EPERM), what
    for what in ("write", "make a folder", "make a link"):
        assert try_(child, what, tmp_path / "new") in (errno.EACCES, errno.EPERM), what
    assert [path.read_text() for path in tmp_path.iterdir()] == ["pixels"]


def try_(child: ChildProcess, what: str, path: Path) -> int | None:
    """The error of an attempt; None if it succeeded."""
    refused: int | None
    refused = child.request({"do": "try", "what": what, "argument": str(path)})[0]["refused"]
    return refused


def test_what_the_system_cannot_take_away_is_logged_once() -> None:
    child = ChildProcess("tests.sandbox_child_without_landlock", seconds=1)

    with structlog.testing.capture_logs() as logged:
        for _ in range(2):
            child.request({"do": "answer", "text": ""})
    child.stop()

    lacking = {"child": "tests.sandbox_child_without_landlock", "lacks": ["files"]}
    assert logged == [{"event": "sandbox.not_confined", "log_level": "warning"} | lacking]
