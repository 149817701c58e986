"""Commands that start others end them, however they end themselves."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system import wait_until

pytestmark = pytest.mark.slow

COMMANDS = [sys.executable, "-m", "commands"]


def descendants(pid: int) -> dict[int, str]:
    """The processes that a process has started, and those have, with the times they started at."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = {}
    for child in map(int, children):
        with suppress(FileNotFoundError, ProcessLookupError):
            found[child] = started_at(child)
            found |= descendants(child)
    return found


def started_at(pid: int) -> str:
    """Tells a process from a later one with the same id; empty where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    environment = {n: v for n, v in os.environ.items() if not n.startswith("LUMBAR_")}
    (folder / "temporary").mkdir()
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(
            [*COMMANDS, *command],
            env=environment | {"TMPDIR": str(folder / "temporary"), "PYTHONUNBUFFERED": "1"},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], number: int, folder: Path) -> int:
    """Sends the signal to the process alone; returns its status once all that it started end."""
    started = descendants(process.pid)
    process.send_signal(number)
    try:
        status = process.wait(60)
        wait_until(
            lambda: not any(started_at(pid) == at for pid, at in started.items()),
            60,
            lambda: (folder / "output").read_text(),
        )
    finally:
        for pid, at in started.items():
            if started_at(pid) == at:
                os.kill(pid, signal.SIGKILL)
    return status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_demo_ends_its_system_and_leaves_nothing(tmp_path, number):
    demo = start(["demo"], tmp_path)
    shown = lambda: "The page:" in (tmp_path / "output").read_text()  # noqa: E731
    wait_until(shown, 240, (tmp_path / "output").read_text)
    assert len(descendants(demo.pid)) > 4
    status = end(demo, number, tmp_path)
    left = list((tmp_path / "temporary").iterdir())
    if number == signal.SIGKILL:
        assert len(left) == 1  # the next demo removes it: tests/unit/test_temporary.py
    else:
        assert (status, left) == (128 + number, [])
        assert "Traceback" not in (tmp_path / "output").read_text()


def test_writing_phantoms_ends_its_processes(tmp_path):
    phantom = start(["phantom", "out", "--studies", "40"], tmp_path)
    wait_until(
        lambda: len(list(tmp_path.glob("out*/**/*.dcm"))) > 2, 60, (tmp_path / "output").read_text
    )
    assert len(descendants(phantom.pid)) > 1
    assert end(phantom, signal.SIGKILL, tmp_path) == -signal.SIGKILL
