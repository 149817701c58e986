"""The registrar as a process: stopped alone, stopped with all others, and by hand."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from lumbar.store.files import Store
from tests.system import System, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def receiving(tmp_path):
    system = System(tmp_path / "system", {})
    assert system.lumbar("db", "upgrade").returncode == 0
    yield system
    system.kill()


def registrar_of(scp):
    def find():
        children = Path(f"/proc/{scp}/task/{scp}/children").read_text().split()
        for child in children:
            with suppress(OSError):
                if "register" in Path(f"/proc/{child}/cmdline").read_text().split("\0"):
                    return int(child)
        return None

    wait_until(lambda: find() is not None, 20, lambda: "no registrar")
    return find()


def test_a_registrar_that_is_stopped_alone_is_started_again(receiving, phantom):
    folder, truth = phantom(1)
    (scp,) = receiving.start("scp")
    first = registrar_of(scp.pid)
    os.kill(first, signal.SIGTERM)
    wait_until(lambda: registrar_of(scp.pid) != first, 30, receiving.tail)
    assert receiving.dcmsend(folder).returncode == 0
    wait_until(lambda: truth.study_instance_uid in receiving.states(), 30, receiving.tail)


def test_stopping_all_processes_at_once_costs_no_image(receiving, phantom):
    folder, truth = phantom(1)
    store = Store(receiving.home / "store")
    for number in range(4):
        (scp,) = receiving.start("scp")
        registrar_of(scp.pid)
        assert receiving.dcmsend(folder / str(number % 3 + 1)).returncode == 0
        for group in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.getpgid(int(group.name)) == scp.pid:
                    os.kill(int(group.name), signal.SIGTERM)
        assert scp.wait(30) == 0
        receiving.kill()
    receiving.start("scp")
    wait_until(lambda: not store.unregistered(), 30, receiving.tail)
    assert store.quarantined() == 0
    assert truth.study_instance_uid in receiving.states()


def test_what_was_quarantined_is_tried_again_by_hand(receiving, phantom):
    folder, _ = phantom(1)
    receiving.start("scp")
    assert receiving.dcmsend(folder / "1").returncode == 0
    store = Store(receiving.home / "store")
    wait_until(lambda: bool(receiving.states()) and not store.unregistered(), 30, receiving.tail)
    receiving.kill()
    completed = receiving.lumbar("register", "--quarantined")
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout == "0 of 0 files registered.\n"
