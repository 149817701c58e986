"""Hostile folders and zips: each is refused with its reason; nothing outside them is read or written."""

import re
import signal

import pytest

from lumbar.dicom.discover import find_instances
from lumbar.errors import NotAnalysable
from tests.hostile.archives import INPUTS
from tests.memory import peak_memory, peak_memory_of_children

MEMORY_ALLOWED = 384 * 2**20  # bytes that reading all of them may cost this process, or its child


@pytest.fixture(autouse=True)
def no_hang():
    """A read that blocks forever fails the test."""

    def fail(*arguments):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("hostile", INPUTS, ids=lambda case: case.name)
def test_a_hostile_input_is_refused_with_its_reason(tmp_path, hostile):
    folder, scratch = tmp_path / "deep" / "er", tmp_path / "also" / "deep"
    folder.mkdir(parents=True)
    scratch.mkdir(parents=True)
    path = hostile.make(folder)
    before, memory = set(tmp_path.rglob("*")), (peak_memory(), peak_memory_of_children())
    if hostile.reason is None:
        instances, _ = find_instances(path, scratch)
        assert len(instances) == 1
    else:
        with pytest.raises(NotAnalysable) as refused:
            find_instances(path, scratch)
        assert re.fullmatch(hostile.reason, str(refused.value))
    assert {path.parent for path in set(tmp_path.rglob("*")) - before} <= {scratch}
    assert peak_memory() - memory[0] < MEMORY_ALLOWED
    assert peak_memory_of_children() - memory[1] < MEMORY_ALLOWED
