"""A study with images and other objects arrives whole from the senders that hospitals use."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from lumbar.settings import Settings
from scp.receiver import Receiver
from tests.factories.instances import ROOT, make_slice
from tests.factories.objects import other_objects
from tests.peers import Orthanc

Send = Callable[[list[Path], int], None]


@pytest.fixture
def port(site) -> Iterator[int]:
    settings = Settings(home=site.settings.home, port=0)
    with Receiver(settings, site.database, site.store) as running:
        yield running.port


@pytest.fixture
def study(tmp_path: Path) -> list[Path]:
    """The files of a study: images, and beside them what a PACS keeps with them."""
    objects = [make_slice(number=number) for number in range(1, 13)] + other_objects()
    return [saved(tmp_path / f"{n}.dcm", ds) for n, ds in enumerate(objects)]


def saved(path: Path, ds: Dataset) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("command", [["storescu", "-aec", "LUMBAR"], ["dcmsend", "-aec", "LUMBAR"]])
def test_dcmtk_sends_the_whole_study(site, port, study, command) -> None:
    sent = subprocess.run([*command, "127.0.0.1", str(port), *study], capture_output=True)
    assert sent.returncode == 0, sent.stderr
    assert durable(site) == uids(study)


def test_orthanc_sends_the_whole_study(site, port, study, orthanc: Orthanc) -> None:
    for file in study:
        orthanc.post("/instances", file.read_bytes())
    (stored,) = orthanc.post("/tools/lookup", f"{ROOT}.1".encode())
    modality = json.dumps(["LUMBAR", "127.0.0.1", port]).encode()
    orthanc.post("/modalities/lumbar", modality, method="PUT")
    try:
        outcome = orthanc.post("/modalities/lumbar/store", stored["ID"].encode())
    finally:
        orthanc.delete(stored["Path"])
    assert (outcome["InstancesCount"], outcome["FailedInstancesCount"]) == (len(study), 0)
    assert durable(site) == uids(study)


def durable(site) -> set[str]:
    """The SOP Instance UIDs of what is safe on disk."""
    return uids(site.store.root.rglob("*.dcm"))


def uids(files) -> set[str]:
    return {str(dcmread(file).SOPInstanceUID) for file in files}
