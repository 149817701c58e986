"""The power-cut library itself: unsynced writes are lost at the cut, synced ones are kept."""

import shutil
import sqlite3
import subprocess
import sys
from random import Random

import pytest

from tests.faults.powercut import PowerCut

pytestmark = pytest.mark.slow

PRELUDE = """
import os, signal, sqlite3, subprocess, sys, threading
def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
def write(path, text, mode="w"):
    with open(path, mode) as file:
        file.write(text)
"""
DIE = "\nos.kill(os.getpid(), signal.SIGKILL)\n"

WRITERS = """
from concurrent.futures import ThreadPoolExecutor
def insert(number):
    connection = sqlite3.connect("db", timeout=60, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous={synchronous}", "wal_autocheckpoint=20"):
        connection.execute("PRAGMA " + pragma)
    for one in range(50):
        connection.execute("INSERT INTO t VALUES (?)", (1000 * number + one,))
connection = sqlite3.connect("db")
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER UNIQUE)")
sync("db"), sync("db-wal"), sync(".")
children = [os.fork() for _ in range(2)]
first = 2 * children.count(0) + (1 if children[0] == 0 else 0)
with ThreadPoolExecutor(2) as pool:
    list(pool.map(insert, [2 * first, 2 * first + 1]))
if 0 not in children:
    for child in children:
        os.waitpid(child, 0)
"""


@pytest.fixture
def cut(tmp_path):
    """Runs a program until it kills itself, in a folder with ``old``, then cuts the power.

    Returns the folder.
    """

    def run(program, ignore_fsync="", rng=None):
        root = tmp_path / "root"
        root.mkdir()
        (root / "old").write_text("before")
        power = PowerCut(root, tmp_path / "side", ignore_fsync)
        environment = power.environment | {"PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + program + DIE], cwd=root, env=environment
        )
        assert done.returncode == -9
        power.cut(rng)
        assert list((tmp_path / "side").iterdir()) == []
        return root

    return run


def tree(root):
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    "program",
    [
        "write('old', 'after, and longer')",
        "write('old', ' and more', 'a')",
        "os.truncate(os.open('old', os.O_RDWR), 2)",
        "os.pwrite(os.open('old', os.O_RDWR), b'XY', 3)",
        "os.writev(os.open('old', os.O_RDWR), [b'X', b'Y'])",
        "os.posix_fallocate(os.open('old', os.O_RDWR), 0, 5000)",
        "os.unlink('old')",
        "os.rename('old', 'new')",
        "os.link('old', 'new')",
        "write('new', 'x'); sync('new'); os.replace('new', 'old')",
        "write('new', 'x'); sync('new')",
        "os.mkdir('folder'); write('folder/new', 'x'); sync('folder/new'); sync('folder')",
        "import shutil; shutil.copyfile('old', 'new'); shutil.copyfile('new', 'old')",
    ],
)
def test_unsynced_writes_are_lost(cut, program):
    assert tree(cut(program)) == {"old": "before"}


@pytest.mark.parametrize(
    ("program", "kept"),
    [
        ("write('old', 'after'); sync('old'); write('old', 'x', 'a')", {"old": "after"}),
        ("write('old', 'x', 'a'); os.fdatasync(os.open('old', os.O_RDONLY))", {"old": "beforex"}),
        ("write('new', 'x'); sync('new'); sync('.')", {"new": "x", "old": "before"}),
        ("write('new', 'x'); sync('.')", {"new": "", "old": "before"}),
        ("os.rename('old', 'new'); sync('.')", {"new": "before"}),
        ("write('new', 'x'); sync('new'); os.replace('new', 'old'); sync('.')", {"old": "x"}),
        (
            "os.mkdir('f'); sync('.'); os.rename('old', 'f/new'); sync('f'); sync('.')",
            {"f/new": "before"},
        ),
        ("os.mkdir('f'); sync('.'); os.rename('old', 'f/new'); sync('.')", {}),
        ("os.unlink('old'); sync('.'); write('new', 'x')", {}),
    ],
)
def test_synced_writes_are_kept(cut, program, kept):
    assert tree(cut(program)) == kept


@pytest.mark.parametrize(("ignored", "kept"), [("all", {}), ("folders", {})])
def test_a_disk_that_ignores_fsync_loses_synced_writes(cut, ignored, kept):
    assert (
        tree(cut("write('new', 'x'); sync('new'); sync('.')", ignored)) == {"old": "before"} | kept
    )


@pytest.mark.parametrize(("synchronous", "lost"), [("FULL", False), ("OFF", True)])
def test_sqlite_keeps_what_it_committed_from_several_threads_and_processes(cut, synchronous, lost):
    root = cut(WRITERS.replace("{synchronous}", synchronous))
    connection = sqlite3.connect(root / "db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    (count,) = connection.execute("SELECT count(*) FROM t").fetchone()
    connection.close()
    assert (count < 300) == lost


UNSYNCED = "write('new', 'x'); write('old', 'y' * 12288); os.unlink('third')"


def test_a_random_part_of_what_was_not_synced_is_kept(cut, tmp_path):
    seen = set()
    for seed in range(40):
        shutil.rmtree(tmp_path / "root", ignore_errors=True)
        root = cut("write('third', 'z'); sync('third'); sync('.')\n" + UNSYNCED, rng=Random(seed))
        files = tree(root)
        old = files["old"].replace("\0", "").replace("before", "")
        assert set(old) <= {"y"}
        assert files.get("third", "z") == "z"
        seen.add((files.get("new"), len(old) // 4096, "third" in files))
    assert {new for new, _, _ in seen} == {None, "", "x"}
    assert {pages for _, pages, _ in seen} == {0, 1, 2, 3}
    assert {third for _, _, third in seen} == {True, False}


@pytest.mark.parametrize("synced", ["write('new', 'x'); sync('new'); sync('.')"])
def test_whatever_part_is_kept_what_was_synced_is(cut, tmp_path, synced):
    for seed in range(10):
        shutil.rmtree(tmp_path / "root", ignore_errors=True)
        assert tree(cut(synced, rng=Random(seed))) == {"new": "x", "old": "before"}
