"""Hostile folders and zips: each is refused by name; nothing outside them is read or written."""

import re
import signal

import pytest

from lumbar.dicom.discover import find_instances
from lumbar.errors import NotAnalysable
from tests.hostile.archives import INPUTS
from tests.memory import peak_memory

MEMORY_ALLOWED = 512 * 2**20  # bytes that reading them may cost in all


@pytest.fixture(autouse=True)
def no_hang():
    """A read that waits for ever fails the test."""

    def fail(*arguments):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("hostile", INPUTS, ids=lambda one: one.name)
def test_a_hostile_input_is_refused_by_name(tmp_path, hostile):
    place, scratch = tmp_path / "deep" / "er", tmp_path / "also" / "deep"
    place.mkdir(parents=True)
    scratch.mkdir(parents=True)
    given = hostile.make(place)
    before, memory = set(tmp_path.rglob("*")), peak_memory()
    if hostile.why is None:
        instances, _ = find_instances(given, scratch)
        assert len(instances) == 1
    else:
        with pytest.raises(NotAnalysable) as refused:
            find_instances(given, scratch)
        assert re.fullmatch(hostile.why, str(refused.value))
    assert {path.parent for path in set(tmp_path.rglob("*")) - before} <= {scratch}
    assert peak_memory() - memory < MEMORY_ALLOWED
