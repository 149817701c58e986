"""A child process with limits: a request is served, or kills the child, which is then restarted."""

import os
from collections.abc import Iterator

import pytest

from lumbar.dicom.sandbox import ChildProcess, ChildProcessDied


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
