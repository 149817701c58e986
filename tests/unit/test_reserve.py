"""The reserve: room on the disk of the database, given up once that is full."""

import os
from types import SimpleNamespace

import pytest

from lumbar.store import reserve


@pytest.fixture
def free(monkeypatch):
    """Sets how many bytes are free."""

    def set_free(count):
        monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_frsize=1, f_bavail=count))

    return set_free


def test_the_reserve_is_made_with_room_and_given_up_on_a_full_disk(tmp_path, free):
    file = tmp_path / reserve.NAME
    free(reserve.ROOM * reserve.SIZE)
    reserve.keep(tmp_path)
    assert not file.exists()
    free(reserve.ROOM * reserve.SIZE + 1)
    reserve.keep(tmp_path)
    usage = file.stat()
    assert (usage.st_size, usage.st_blocks * 512 >= reserve.SIZE) == (reserve.SIZE, True)
    free(reserve.SIZE)
    reserve.keep(tmp_path)
    assert file.exists()
    free(0)
    for _ in range(2):
        reserve.keep(tmp_path)
        assert not file.exists()


def test_a_disk_that_gives_no_room_after_all_leaves_nothing(tmp_path, free, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    free(2**40)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    reserve.keep(tmp_path)
    reserve.keep(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []
