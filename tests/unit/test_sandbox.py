"""A child with limits: it answers, or it dies of the request and the next one finds another."""

import os
from collections.abc import Iterator

import pytest

from lumbar.dicom.sandbox import Child, Died


@pytest.fixture
def child() -> Iterator[Child]:
    started = Child("tests.sandbox_child")
    yield started
    started.end()


def test_requests_are_answered_by_one_process(child: Child) -> None:
    first = child.ask({"do": "answer", "text": "ä\n" * 3})
    assert first == ({"pid": child.pid, "bytes": 9}, ("ä\n" * 3).encode())
    assert child.ask({"do": "answer", "text": ""}) == ({"pid": first[0]["pid"], "bytes": 0}, b"")


@pytest.mark.parametrize("request_", [{"do": "hang"}, {"do": "crash"}, {"do": "grow", "mib": 200}])
def test_a_request_that_takes_too_much_ends_the_child_and_nothing_else(
    child: Child, request_: dict[str, object]
) -> None:
    before = child.ask({"do": "answer", "text": ""})[0]["pid"]
    with pytest.raises(Died):
        child.ask(request_)
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    assert child.ask({"do": "answer", "text": ""})[0]["pid"] != before


def test_what_fits_into_the_limits_is_done(child: Child) -> None:
    assert child.ask({"do": "grow", "mib": 32}) == ({"bytes": 1}, b"\0")
