"""A study with everything that a PACS sends along arrives whole, and is read once."""

import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    BasicTextSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
)

from lumbar.reports.sr import draft_sr
from lumbar.spine.anatomy import ALL_FINDINGS
from lumbar.spine.findings import Finding
from tests.factories.objects import make_object
from tests.factories.reports import PROVENANCE
from tests.peers import Orthanc
from tests.system import System

pytestmark = pytest.mark.slow

OTHERS = (
    SecondaryCaptureImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    BasicTextSRStorage,
)


def sent_along(folder: Path, image: Dataset) -> list[Path]:
    """A secondary capture, a presentation state, a foreign report and our own."""
    folder.mkdir()
    files = []
    for number, sop_class in enumerate(OTHERS):
        elements = {
            keyword: image[keyword].value
            for keyword in ("StudyInstanceUID", "PatientID", "PatientName")
        }
        ds = make_object(sop_class, number + 1, **elements)
        files.append(folder / f"other{number}.dcm")
        ds.save_as(files[-1], enforce_file_format=True)
    findings = [Finding(*key.parts, reason="a test") for key in ALL_FINDINGS]
    report = draft_sr([image], findings, PROVENANCE).finish(datetime(2026, 11, 16, tzinfo=UTC))
    files.append(folder / "own.dcm")
    files[-1].write_bytes(report.content)
    return files


def by_orthanc(system: System, files: list[Path], orthanc: Orthanc) -> None:
    for study in orthanc.rest("/studies"):
        orthanc.delete(f"/studies/{study}")
    for file in files:
        orthanc.post("/instances", file.read_bytes())
    (study,) = orthanc.rest("/studies")
    modality = json.dumps(["LUMBAR", "127.0.0.1", system.port]).encode()
    orthanc.post("/modalities/lumbar", modality, method="PUT")
    outcome = orthanc.post("/modalities/lumbar/store", study.encode())
    assert (outcome["InstancesCount"], outcome["FailedInstancesCount"]) == (len(files), 0)


def by_dcmtk(*program: str) -> Callable[[System, list[Path], Orthanc], None]:
    def send(system: System, files: list[Path], orthanc: Orthanc) -> None:
        sent = subprocess.run(
            [*program, "-aec", "LUMBAR", "127.0.0.1", str(system.port), *files],
            capture_output=True,
            env=os.environ | {"TCP_NODELAY": "1"},
        )
        assert sent.returncode == 0, sent.stderr

    return send


@pytest.mark.parametrize("system", ["embedded"], indirect=True)
# By default storescu proposes a fixed list, in which Comprehensive 3D SR, our report, is missing.
@pytest.mark.parametrize(
    "send",
    [by_orthanc, by_dcmtk("storescu", "-R"), by_dcmtk("dcmsend")],
    ids=["Orthanc", "storescu", "dcmsend"],
)
def test_a_study_sent_with_other_objects_arrives_whole_and_is_read_once(
    system, phantom, orthanc, tmp_path, send
) -> None:
    folder, truth = phantom(1)
    images = sorted(folder.rglob("*.dcm"))
    others = sent_along(tmp_path / "others", dcmread(images[0], stop_before_pixels=True))
    system.start()
    send(system, images[:20] + others + images[20:], orthanc)
    system.wait_for_states({truth.study_instance_uid: "analysed"})
    shown = system.lumbar("study", truth.study_instance_uid).stdout
    assert "analysed, revision 1" in shown
    assert "4 objects that are no MR images" in shown
    (listed,) = json.loads(system.lumbar("worklist", "--format", "json").stdout)
    assert listed["images"] == len(images)

    send(system, others, orthanc)
    assert "analysed, revision 1" in system.lumbar("study", truth.study_instance_uid).stdout
