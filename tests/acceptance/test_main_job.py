"""From a scanner's C-STORE to the report in a real PACS and 25 rows in the database."""

import json
import subprocess

import pytest
from pydicom import dcmread

from lumbar.spine.anatomy import ALL_FINDINGS
from lumbar.spine.provenance import RESEARCH_USE_ONLY
from tests.acceptance.checks import validation_errors
from tests.system import wait_until

pytestmark = pytest.mark.slow

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"


@pytest.fixture
def pacs(orthanc):
    """An empty Orthanc."""
    for study in orthanc.rest("/studies"):
        orthanc.delete(f"/studies/{study}")
    return orthanc


@pytest.fixture
def delivering(system, pacs):
    """The system with Orthanc as two destinations: C-STORE, and STOW-RS to its DICOMweb plugin."""
    system.set(
        destinations=json.dumps(
            {
                "pacs": f"dicom://{pacs.ae_title}@127.0.0.1:{pacs.dicom_port}",
                "archive": f"http://127.0.0.1:{pacs.http_port}/dicom-web",
            }
        )
    )
    system.start()
    return system


def test_a_study_sent_by_a_scanner_ends_as_a_report_in_the_pacs_and_25_rows(
    delivering, pacs, phantom, tmp_path
):
    folder, truth = phantom(1)
    study = truth.study_instance_uid
    sent = delivering.dcmsend(folder)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    delivering.wait_for_states({study: "analysed"})

    rows = delivering.findings()
    assert [row["row_id"] for row in rows] == [key.row_id(study) for key in ALL_FINDINGS]
    assert {row["assessed"] for row in rows} == {"true"}
    for row in rows:
        assert sum(
            float(row[name]) for name in ("normal_mild", "moderate", "severe")
        ) == pytest.approx(1, abs=1e-5)
        assert row["bundle"] == "stub 1 (untrained)"
        assert RESEARCH_USE_ONLY in row["notice"]
    assert {row["sop_instance_uid"] for row in rows} <= {
        dcmread(file).SOPInstanceUID for file in folder.rglob("*.dcm")
    }

    wait_until(lambda: delivered(delivering, study) == 2, 30, delivering.tail)
    output = delivering.lumbar("study", study).stdout
    assert "report to pacs: done, confirmed (0000)" in output
    assert "report to archive: done, confirmed (200)" in output
    (report,) = pacs.rest("/instances")
    file = tmp_path / "report.dcm"
    file.write_bytes(pacs.download(f"/instances/{report}/file"))
    assert dcmread(file).SOPClassUID == COMPREHENSIVE_3D_SR
    assert dcmread(file).StudyInstanceUID == study
    assert validation_errors(file) == []
    tree = subprocess.run(["dsrdump", str(file)], capture_output=True, text=True)
    assert tree.returncode == 0, tree.stderr
    assert RESEARCH_USE_ONLY in tree.stdout
    assert "Untrained" in tree.stdout
    assert "PHANTOM" not in delivering.tail()  # the patient's name and number stay out of the log


def test_two_studies_interleaved_on_one_association_stay_apart(system, phantom, tmp_path):
    studies = {}
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for seed in (1, 2):
        folder, truth = phantom(seed)
        studies[truth.study_instance_uid] = {
            dcmread(file).SOPInstanceUID for file in folder.rglob("*.dcm")
        }
        for number, file in enumerate(sorted(folder.rglob("*.dcm"))):
            (mixed / f"{number:04}-{seed}.dcm").symlink_to(file)
    system.start()
    assert system.dcmsend(mixed).returncode == 0
    system.wait_for_states(dict.fromkeys(studies, "analysed"))
    for row in system.findings():
        assert row["sop_instance_uid"] in studies[row["row_id"].split("_")[0]]


def test_a_late_series_makes_a_new_revision_whose_report_replaces_the_first(
    delivering, pacs, phantom
):
    folder, truth = phantom(2)
    study = truth.study_instance_uid
    first_files, late_files = [sorted(folder.glob(f"{number}/*.dcm")) for number in (1, 3)]
    assert delivering.dcmsend(*first_files).returncode == 0
    delivering.complete(study)
    delivering.wait_for_states({study: "analysed"})
    reasons = {row["reason"] for row in delivering.findings() if row["assessed"] == "false"}
    assert reasons == {"no Sagittal T1 series was received", "no Axial T2 series was received"}
    wait_until(lambda: len(pacs.rest("/instances")) == 1, 30, delivering.tail)

    assert delivering.dcmsend(*late_files).returncode == 0
    wait_until(lambda: delivering.states() == {study: "receiving"}, 10, delivering.tail)
    delivering.complete(study)
    delivering.wait_for_states({study: "analysed"})
    rows = delivering.findings()
    assert len(rows) == 25
    assert {row["reason"] for row in rows if row["assessed"] == "false"} == {
        "no Sagittal T1 series was received"
    }
    wait_until(lambda: len(pacs.rest("/instances")) == 2, 30, delivering.tail)
    tags = [
        pacs.rest(f"/instances/{instance}/tags?simplify") for instance in pacs.rest("/instances")
    ]
    (predecessor,) = [
        report["PredecessorDocumentsSequence"]
        for report in tags
        if report.get("PredecessorDocumentsSequence")
    ]
    replaced = predecessor[0]["ReferencedSeriesSequence"][0]["ReferencedSOPSequence"][0][
        "ReferencedSOPInstanceUID"
    ]
    assert replaced in {
        report["SOPInstanceUID"]
        for report in tags
        if not report.get("PredecessorDocumentsSequence")
    }


def test_its_own_report_sent_back_starts_nothing(delivering, pacs, phantom, tmp_path):
    folder, truth = phantom(1)
    assert delivering.dcmsend(folder).returncode == 0
    delivering.wait_for_states({truth.study_instance_uid: "analysed"})
    wait_until(lambda: len(pacs.rest("/instances")) == 1, 30, delivering.tail)
    (report,) = pacs.rest("/instances")
    (tmp_path / "report.dcm").write_bytes(pacs.download(f"/instances/{report}/file"))
    assert delivering.dcmsend(tmp_path).returncode != 0
    assert delivering.states() == {truth.study_instance_uid: "analysed"}
    assert "revision 1" in delivering.lumbar("study", truth.study_instance_uid).stdout


def test_a_study_analysed_again_sends_the_stored_report_again(delivering, pacs, phantom):
    folder, truth = phantom(1)
    study = truth.study_instance_uid
    assert delivering.dcmsend(folder).returncode == 0
    delivering.wait_for_states({study: "analysed"})
    wait_until(lambda: delivered(delivering, study) == 2, 30, delivering.tail)
    before = [found_values(row) for row in delivering.findings()]
    assert delivering.lumbar("requeue", study).returncode == 0
    wait_until(lambda: delivered(delivering, study) == 4, 30, delivering.tail)
    assert [found_values(row) for row in delivering.findings()] == before
    assert len(pacs.rest("/instances")) == 1


def found_values(row):
    """A finding without the fields that differ between revisions."""
    return {name: value for name, value in row.items() if name not in ("finding_id", "found_at")}


def delivered(system, study):
    return sum(row.state == "done" for row in system.deliveries(study))
