"""A file is complete or absent, and orphans are distinguished from files being written."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from lumbar.store.files import MARKER, StagingFile, Store, StoreFull, digest_of
from lumbar.store.shares import OWNER, REGISTRAR

DIGEST = digest_of(b"content")
WRITER = """
import sys, time
from pathlib import Path
from lumbar.store.files import StagingFile, Store
with StagingFile(Store(Path(sys.argv[1]))) as staging:
    staging.write(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def files(store: Store) -> set[str]:
    return {
        p.relative_to(store.root).as_posix()
        for p in store.root.rglob("*")
        if p.is_file() and p.name not in (OWNER, REGISTRAR, MARKER)
    }


def remove_dead(store: Store) -> int:
    return sum(share.remove_if_dead() for share in store.shares())


def test_a_committed_staging_file_is_stored_and_another_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store").create()
    with StagingFile(store) as staging:
        staging.write(b"content")
        stored = staging.commit("instances", DIGEST)
    assert store.path(stored).read_bytes() == b"content"
    with suppress(ZeroDivisionError), StagingFile(store) as staging:
        staging.write(b"half")
        raise ZeroDivisionError
    assert files(store) == {stored}
    assert store.files(f"instances/{DIGEST[:2]}") == {stored}
    assert store.files("instances/zz") == set()


def test_storing_the_same_content_again_leaves_the_file_unchanged(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    first = store.path(store.put("instances", DIGEST, b"content")).stat().st_ino
    assert store.path(store.put("instances", DIGEST, b"content")).stat().st_ino == first


def test_only_the_staging_files_of_dead_processes_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    with StagingFile(store) as staging:
        assert remove_dead(store) == 0
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        assert len(files(store)) == 2
        assert remove_dead(store) == 1
        assert files(store) == {staging.path.relative_to(tmp_path).as_posix()}


def test_a_staging_folder_removed_by_an_operator_is_created_again(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    store.share()
    shutil.rmtree(store.root / "arrived")
    assert store.path(store.put("instances", DIGEST, b"content")).exists()


def test_a_disk_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(StoreFull, match="cannot write to"):
        Store(tmp_path / "store").create()
    with pytest.raises(StoreFull):
        Store(tmp_path / "store").put("instances", DIGEST, b"content")
    with pytest.raises(StoreFull):
        Store(tmp_path / "store" / "below").fill_ratio()


def test_the_fill_ratio_lies_between_0_and_1(tmp_path: Path) -> None:
    assert 0 < Store(tmp_path).create().fill_ratio() <= 1
