"""A file is wholly there or not at all, and what a killed writer left behind is told from what another is writing."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from lumbar.store.files import Store, StoreFull, digest_of

DIGEST = digest_of(b"content")
WRITER = """
import sys, time
from pathlib import Path
from lumbar.store.files import Store
with Store(Path(sys.argv[1])).staging_file() as staging:
    staging.file.write(b"half")
    staging.file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def files(store: Store) -> set[str]:
    return {
        p.relative_to(store.root).as_posix()
        for p in store.root.rglob("*")
        if p.is_file() and p.name != "lock"
    }


def test_a_draft_that_is_kept_is_there_and_one_that_is_not_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.staging_file() as staging:
        staging.file.write(b"content")
        kept = staging.keep("instances", DIGEST)
    assert store.path(kept).read_bytes() == b"content"
    with suppress(ZeroDivisionError), store.staging_file() as staging:
        staging.file.write(b"half")
        raise ZeroDivisionError
    assert files(store) == {kept}
    assert store.files(f"instances/{DIGEST[:2]}") == {kept}
    assert store.files("instances/zz") == set()


def test_the_same_content_again_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.path(store.put("instances", DIGEST, b"content")).stat().st_ino
    assert store.path(store.put("instances", DIGEST, b"content")).stat().st_ino == first


def test_only_the_drafts_of_writers_that_are_gone_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    with store.staging_file() as own:
        assert store.remove_abandoned() == 0
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        assert len(files(store)) == 2
        assert store.remove_abandoned() == 1
        assert files(store) == {own.path.relative_to(tmp_path).as_posix()}


def test_a_folder_removed_by_hand_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.own_folder().joinpath("lock").unlink()
    store.own_folder().rmdir()
    assert store.path(store.put("instances", DIGEST, b"content")).exists()


def test_a_disk_that_refuses_is_said_as_such(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(StoreFull, match="cannot write to"):
        Store(tmp_path / "store").put("instances", DIGEST, b"content")
    with pytest.raises(StoreFull):
        Store(tmp_path / "store" / "below").fill()


def test_how_full_the_disk_is_lies_between_0_and_1(tmp_path: Path) -> None:
    assert 0 < Store(tmp_path).fill() <= 1


def test_a_disk_fuller_than_allowed_has_no_room(tmp_path: Path) -> None:
    Store(tmp_path).require_room(1.0)
    with pytest.raises(StoreFull, match="above 0% nothing new is accepted"):
        Store(tmp_path).require_room(0.0)
