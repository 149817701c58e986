"""A full disk: nobody's unread images go, new ones are refused, and it is said why."""

import json

import pytest
from pydicom.filewriter import dcmwrite

from tests.factories.instances import ROOT, make_slice
from tests.system import wait_until

pytestmark = pytest.mark.slow

UNREAD, READ = f"{ROOT}.1", f"{ROOT}.2"


def status(system):
    done = system.lumbar("status", "--format", "json")
    assert done.returncode == 0, done.stderr
    return {(line["topic"], line["what"]): line for line in json.loads(done.stdout)}


def files(system):
    return len(list((system.home / "store" / "instances").rglob("*.dcm")))


def test_only_images_of_the_study_that_was_read_make_room(system, tmp_path):
    for number in (1, 2, 3):
        folder = tmp_path / "sent" / str(number)
        folder.mkdir(parents=True)
        dcmwrite(folder / "1.dcm", make_slice(study=number), enforce_file_format=True)
    system.set(keep_at_least_hours="0")
    system.start()
    assert system.dcmsend(tmp_path / "sent/1", tmp_path / "sent/2").returncode == 0
    for uid in (UNREAD, READ):
        system.complete(uid)
    wait_until(
        lambda: set(system.states().values()) == {"not_analysable"}, 60, lambda: system.tail()
    )
    assert system.lumbar("mark-read", READ).returncode == 0
    system.kill()
    system.set(disk_remove_above="0.000001", disk_refuse_above="0.000002")  # fuller than that
    system.start()
    wait_until(lambda: files(system) == 1, 60, system.tail)
    sent = system.dcmsend(tmp_path / "sent/3")
    assert "with status REFUSED" in sent.stderr
    assert "status=A700" in system.log.read_text()
    wait_until(lambda: "disk.images_refused" in system.log.read_text(), 60, system.tail)
    system.terminate(60)
    assert files(system) == 1
    lines = status(system)
    assert lines["worklist", "unread"]["value"] == 1
    refused = lines["disk", "images are refused"]["note"]
    assert "new images are refused" in refused
    assert "What fills it: " in refused
    assert ("disk", "images of studies that have not been read") in lines
    assert ("disk", "files that are not lumbar-triage's") in lines
