"""Without a temporary folder services run as ever; nothing of a patient lies outside of home."""

import os
import zipfile
from pathlib import Path

import pytest

from lumbar.phantoms import write_study
from tests.system import System, wait_until

pytestmark = pytest.mark.slow

# Python finds no folder for temporary files unless TMPDIR names one: /tmp is away, or read-only.
ABSENT = """import os, tempfile
tempfile._candidate_tempdir_list = lambda: [os.environ.get("TMPDIR", "/nowhere")]
"""


@pytest.fixture
def system(tmp_path):
    """The embedded system with its real networks: importing TensorFlow asks for such a folder."""
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "sitecustomize.py").write_text(ABSENT)
    system = System(
        tmp_path / "system", {"LUMBAR_WEB": "true", "TMPDIR": "/nowhere"}, stubbed=False
    )
    root = str(Path(__file__).parents[2])
    system._environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "absent"), root])
    system.set(web_port="0")
    yield system
    system.kill()


def test_services_need_no_temporary_folder_and_remove_what_killed_ones_left(system, tmp_path):
    write_study(tmp_path / "phantom", seed=1)
    system.start()
    system.dcmsend(tmp_path / "phantom")
    analysed = lambda: "analysed" in system.states().values()  # noqa: E731
    wait_until(analysed, 120, system.tail)
    temporary = system.home / "temporary"
    first = {folder.name for folder in temporary.iterdir()}
    assert len(first) == 6  # of `up`, and of the five services
    system.kill()
    (temporary / min(first) / "report.dcm").write_bytes(b"Doe^Jane")
    system.start()
    wait_until(lambda: system.log.read_text().count("sweep.started") == 2, 120, system.tail)
    names = lambda: {folder.name for folder in temporary.iterdir()}  # noqa: E731
    wait_until(lambda: len(names() - first) == 6, 60, system.tail)
    now = names()
    assert not first & now
    assert system.terminate(60) == 0
    assert list(temporary.iterdir()) == []


def test_a_zip_is_unpacked_under_home_and_other_input_needs_no_folder(system, tmp_path):
    write_study(tmp_path / "phantom", seed=1)
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in (tmp_path / "phantom").rglob("*.dcm"):
            zipped.write(file, file.relative_to(tmp_path))
    failed = system.lumbar_process("analyse", str(tmp_path / "phantom"))
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == (
        "lumbar: no folder for temporary files can be written; set TMPDIR to one"
    )
    assert "Traceback" not in failed.stderr
    system._environment["TMPDIR"] = str(tmp_path)
    assert system.lumbar_process("analyse", str(tmp_path / "phantom")).returncode == 0
    assert not system.home.exists()
    assert system.lumbar_process("analyse", str(archive)).returncode == 0
    assert list((system.home / "temporary").iterdir()) == []
    system.set(home="/dev/null/home")
    refused = system.lumbar_process("analyse", str(archive))
    assert refused.returncode == 1
    assert "cannot be unpacked in /dev/null/home/temporary: Not a directory" in refused.stderr
