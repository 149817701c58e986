"""Images, database and reports are their owner's alone, whatever the umask."""

import os
import stat
import subprocess

import pytest

from tests.system import System, wait_until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_nobody_else_may_read_or_write_anything(tmp_path, phantom, umask):
    (folder, truth) = phantom(1)
    system = System(tmp_path / "system", {"LUMBAR_WEB": "true", "LUMBAR_WEB_PORT": "0"})
    before = os.umask(umask)
    try:
        assert system.lumbar_process("db", "upgrade").returncode == 0
        system.start()
        assert system.dcmsend(folder).returncode == 0
        system.wait_for_states({truth.study_instance_uid: "analysed"})
        paths = [system.home, *system.home.rglob("*")]
        assert len(paths) > 60
        open_to_others = {
            str(path): stat.filemode(mode)
            for path in paths
            if (mode := path.stat().st_mode) & 0o077
        }
        assert open_to_others == {}
        if os.geteuid() == 0:
            assert as_nobody("ls", str(system.home)) != 0
    finally:
        os.umask(before)
        system.kill()


def test_looser_permissions_are_named_at_the_start(tmp_path):
    system = System(tmp_path / "system", {})
    assert system.lumbar_process("db", "upgrade").returncode == 0
    (system.home / "lumbar.sqlite").chmod(0o644)
    try:
        system.start()
        wait_until(lambda: "event=permissions.loose" in system.tail(), 10, system.tail)
        assert "lumbar.sqlite (-rw-r--r--)" in system.tail()
    finally:
        system.kill()


def as_nobody(*command):
    return subprocess.run(command, user="nobody", capture_output=True).returncode
