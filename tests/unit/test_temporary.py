"""Temporary folders: whose process lives keeps its own, what others left is removed."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lumbar.store.temporary import temporary_folder

HOLD = """import sys
from pathlib import Path
from lumbar.store.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1]), "lumbar-") as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(parent):
    """A process that holds a folder until its standard input closes, and the folder."""
    command = [sys.executable, "-c", HOLD, str(parent)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        yield process, Path(process.stdout.readline().strip())


def test_a_folder_lives_as_long_as_its_process(tmp_path):
    with holder(tmp_path) as (process, folder), temporary_folder(tmp_path, "lumbar-") as own:
        assert folder.is_dir()
        assert own.stat().st_mode & 0o777 == 0o700
        process.stdin.close()
        assert process.wait(30) == 0
        assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "lumbar-file").touch()
    (tmp_path / "lumbar-link").symlink_to(tmp_path / "other")
    with holder(tmp_path) as (process, folder):
        process.kill()
    assert folder.is_dir()
    with temporary_folder(tmp_path, "lumbar-"):
        assert not folder.exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {"other", "lumbar-file", "lumbar-link"}


def attempt(parent):
    with temporary_folder(parent):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_disk_that_refuses_locks_is_an_error_and_keeps_no_folder(tmp_path, monkeypatch, code):
    def refuse(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match=os.strerror(code)):
        attempt(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_many_open_files_are_an_error_and_keep_no_folder(tmp_path, monkeypatch):
    taken, limits = [], resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            attempt(tmp_path)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_takes_for_abandoned_is_made_anew(tmp_path, monkeypatch):
    lock, taken = fcntl.flock, []

    def held_by_another(descriptor, operation):
        if not taken:
            taken.append(descriptor)
            raise BlockingIOError(errno.EAGAIN, "taken")
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", held_by_another)
    with temporary_folder(tmp_path) as folder:
        assert folder.is_dir()
