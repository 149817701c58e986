"""Temporary folders: whose process lives keeps its own, what others left is removed."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

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
