"""The command line as a user sees it: results, and one clear line for every error."""

import json
import os
import re
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from lumbar.dicom.headers import read_header, slice_headers
from lumbar.spine.anatomy import ALL_FINDINGS, Level, Role
from lumbar.spine.provenance import RESEARCH_USE_ONLY
from tests.acceptance.checks import assert_last_line, assert_one_line, rows_of, validation_errors
from tests.system import System

pytestmark = pytest.mark.slow


@pytest.fixture
def stubbed(tmp_path):
    """The command line with stub networks."""
    return System(tmp_path / "cli", {})


def test_a_folder_and_a_zip_of_a_phantom_give_the_same_findings(stubbed, phantom, tmp_path):
    folder, truth = phantom(1)
    report = tmp_path / "report.dcm"
    rows = rows_of(stubbed.lumbar("analyse", str(folder), "--format", "csv", "--sr", str(report)))
    assert [row["row_id"] for row in rows] == [
        key.row_id(truth.study_instance_uid) for key in ALL_FINDINGS
    ]
    assert {row["assessed"] for row in rows} == {"true"}
    assert validation_errors(report) == []
    packed = shutil.make_archive(str(tmp_path / "study"), "zip", folder)
    assert rows_of(stubbed.lumbar("analyse", packed, "--format", "csv")) == rows


def test_json_and_csv_contain_the_same_findings(stubbed, phantom):
    folder, _ = phantom(1)
    rows = rows_of(stubbed.lumbar("analyse", str(folder), "--format", "csv"))
    analysed = json.loads(stubbed.lumbar("analyse", str(folder), "--format", "json").stdout)
    records = analysed["findings"]
    assert [record["row_id"] for record in records] == [row["row_id"] for row in rows]
    assert [record["severe"] for record in records] == [float(row["severe"]) for row in rows]
    assert all(RESEARCH_USE_ONLY in record["notice"] for record in records)


def test_json_has_the_series_and_the_levels_too(stubbed, phantom):
    folder, truth = phantom(1)
    analysed = json.loads(stubbed.lumbar("analyse", str(folder), "--format", "json").stdout)
    assert analysed["study_instance_uid"] == truth.study_instance_uid
    assert analysed["refusal"] is None
    roles = {series["series_instance_uid"]: series["role"] for series in analysed["series"]}
    assert roles == dict(truth.series)
    assert [series["number"] for series in analysed["series"]] == [1, 2, 3]
    assert all(f": {Role(s['role']).label}" in s["reason"] for s in analysed["series"])
    assert [level["level"] for level in analysed["levels"]] == list(Level)
    (sagittal,) = (uid for uid, role in roles.items() if role == Role.SAGITTAL_T2)
    for level in analysed["levels"]:
        assert level["series_instance_uid"] == sagittal
        file = folder / "1" / f"{level['instance_number']}.dcm"
        (header,) = slice_headers(read_header(file))
        point = np.array([level["x"], level["y"], level["z"]])
        assert header.to_pixel(point) == pytest.approx((level["column"], level["row"]), abs=0.05)
        assert 0 < level["presence"] <= 1
    assert "counted upwards from L5/S1" in analysed["notes"][0]


def test_json_is_printed_where_nothing_is_graded(stubbed, phantom):
    folder, _ = phantom(1)
    done = stubbed.lumbar("analyse", str(folder / "3"), "--format", "json")
    assert_last_line(done, 3, "no sagittal T1 or T2/STIR series was received")
    analysed = json.loads(done.stdout)
    assert "no sagittal T1 or T2/STIR series was received" in analysed["refusal"]
    assert [series["role"] for series in analysed["series"]] == ["axial_t2"]
    assert analysed["levels"] == []
    assert {finding["reason"] for finding in analysed["findings"]} == {analysed["refusal"]}


def test_a_study_with_one_series_is_read_as_far_as_possible(stubbed, phantom):
    folder, _ = phantom(1)
    rows = rows_of(stubbed.lumbar("analyse", str(folder / "1"), "--format", "csv"))
    assert [
        row["row_id"][-len("stenosis_l1_l2") :] for row in rows if row["assessed"] == "true"
    ] == [f"stenosis_{key.level}" for key in ALL_FINDINGS[-5:]]
    assert {row["reason"] for row in rows if row["assessed"] == "false"} == {
        "no Sagittal T1 series was received",
        "no Axial T2 series was received",
    }


def test_a_single_slice_is_read_with_its_caveats_in_every_format(stubbed, phantom):
    middle = str(sorted(phantom(1)[0].glob("1/*.dcm"))[8])
    output = stubbed.lumbar("analyse", middle).stdout
    (caveat,) = [
        line.removeprefix("Caution: ")
        for line in output.splitlines()
        if line.startswith("Caution: ")
    ]
    rows = rows_of(stubbed.lumbar("analyse", middle, "--format", "csv"))
    analysed = json.loads(stubbed.lumbar("analyse", middle, "--format", "json").stdout)
    records = analysed["findings"]
    assert (
        [row["caveats"] for row in rows]
        == [record["caveats"] for record in records]
        == [caveat] * 25
    )
    assert analysed["caveats"] == [caveat]


def test_the_readings_of_a_loose_axial_slice_are_not_mixed_with_machine_readable_output(
    stubbed, phantom
):
    loose = str(sorted(phantom(1)[0].glob("3/*.dcm"))[8])
    output = [
        line
        for line in stubbed.lumbar("analyse", loose).stdout.splitlines()
        if "Without a level" in line
    ]
    assert len(output) == 2
    for form in ("csv", "json"):
        completed = stubbed.lumbar("analyse", loose, "--format", form)
        assert completed.stderr.splitlines() == output
    assert len(rows_of(stubbed.lumbar("analyse", loose, "--format", "csv"))) == 25
    analysed = json.loads(completed.stdout)
    assert len(analysed["findings"]) == 25
    assert [reading["condition"] for reading in analysed["readings"]] == [
        "left_subarticular_stenosis",
        "right_subarticular_stenosis",
    ]


def test_how_a_stored_study_was_read_is_in_every_format_caveats_first(stubbed, phantom):
    folder, truth = phantom(1)
    study = truth.study_instance_uid
    stubbed.start()
    assert stubbed.dcmsend(sorted(folder.glob("1/*.dcm"))[8]).returncode == 0
    stubbed.complete(study)
    stubbed.wait_for_states({study: "analysed"})
    stubbed.kill()
    state, caution, series, *_ = stubbed.lumbar("study", study).stdout.splitlines()
    assert state == "analysed, revision 1"
    assert caution.startswith("Caution: the numbering is uncertain")
    assert series.startswith("series 1 (1 sagittal slice")
    rows = rows_of(stubbed.lumbar("study", study, "--format", "csv"))
    records = json.loads(stubbed.lumbar("study", study, "--format", "json").stdout)
    for row in (*rows, *records, *stubbed.findings()):
        assert row["caveats"] == caution.removeprefix("Caution: ")
    for row in (*rows, *records):
        assert row["choices"].startswith(f"{series}; ")


def test_a_study_without_the_series_that_shows_the_levels_has_a_reason(stubbed, phantom):
    folder, _ = phantom(1)
    completed = stubbed.lumbar("analyse", str(folder / "3"))
    assert_last_line(completed, 3, "no sagittal T1 or T2/STIR series was received")
    assert "): Axial T2\n" in completed.stderr


@pytest.mark.parametrize("option", ["--sr", "--png"])
def test_an_output_that_cannot_be_written_is_named_before_the_work(stubbed, tmp_path, option):
    for path, reason in ((tmp_path, "a folder"), (tmp_path / "none" / "out", "create the folder")):
        done = stubbed.lumbar("analyse", str(tmp_path / "no study"), option, str(path))
        assert_one_line(done, 2, reason)


def test_a_damaged_file_is_skipped_and_the_others_are_read(stubbed, phantom, tmp_path):
    folder, _ = phantom(1)
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    first, second, third = sorted(damaged.glob("1/*.dcm"))[:3]
    first.write_bytes(first.read_bytes()[:-2000])
    second.write_bytes(b"not DICOM at all")
    ds = dcmread(third)
    del ds.ImagePositionPatient
    ds.save_as(third)
    rows = rows_of(stubbed.lumbar("analyse", str(damaged), "--format", "csv"))
    assert {row["assessed"] for row in rows} == {"true"}
    output = stubbed.lumbar("analyse", str(damaged)).stdout
    assert "1 files skipped: not a DICOM file" in output


@pytest.mark.parametrize("missing", ["PixelData", "ImageOrientationPatient", "PixelSpacing"])
def test_a_study_whose_files_all_lack_a_required_element_has_a_reason(
    stubbed, phantom, tmp_path, missing
):
    folder, _ = phantom(1)
    stripped = tmp_path / "stripped"
    stripped.mkdir()
    for file in folder.glob("1/*.dcm"):
        ds = dcmread(file)
        delattr(ds, missing)
        ds.save_as(stripped / file.name)
    completed = stubbed.lumbar("analyse", str(stripped))
    if missing == "PixelData":
        assert_last_line(completed, 3, "pixel")
    else:
        assert_one_line(completed, 3, missing)


def test_input_without_a_study_is_refused_with_a_reason(stubbed, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for path in ("empty", "text.txt", "empty.zip"):
        assert_one_line(stubbed.lumbar("analyse", str(tmp_path / path)), 3, "holds no DICOM files")
    assert_one_line(stubbed.lumbar("analyse", str(tmp_path / "missing")), 3, "No such file")
    ct = get_testdata_file("CT_small.dcm")
    assert_one_line(stubbed.lumbar("analyse", str(ct)), 3, "not an MR image")


def test_the_shipped_bundle_states_that_it_was_trained_on_phantoms(shipped, phantom):
    folder, _ = phantom(1)
    rows = rows_of(shipped("analyse", str(folder), "--format", "csv"))
    assert {row["bundle"] for row in rows} == {"phantom 1 (synthetic)"}
    assert all("Trained on synthetic data" in row["notice"] for row in rows)
    slice_file = str(sorted(folder.glob("1/*.dcm"))[8])
    classes = rows_of(shipped("classify", slice_file, "--format", "csv"))
    for kind, count in (("condition", 6), ("severity", 3)):
        probabilities = [float(row["probability"]) for row in classes if row["what"] == kind]
        assert len(probabilities) == count
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"LUMBAR_PORT": "many"}, "LUMBAR_PORT"),
        ({"LUMBAR_DATABASE_URL": "nowhere"}, "LUMBAR_DATABASE_URL"),
        ({"LUMBAR_BUNDLE": "/nonexistent"}, "bundle"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_named(tmp_path, setting, reason):
    wrong = System(tmp_path / "cli", setting, stubbed=False)
    command = (
        ("analyse", str(get_testdata_file("MR_small.dcm")))
        if "LUMBAR_BUNDLE" in setting
        else ("up",)
    )
    assert_one_line(wrong.lumbar(*command), 2, reason)


def test_a_port_in_use_is_named(stubbed, tmp_path):
    stubbed.start()
    other = System(tmp_path / "other", {"LUMBAR_PORT": str(stubbed.port)})
    completed = other.lumbar("up")
    stubbed.kill()
    assert completed.returncode == 1
    assert f"cannot listen on 127.0.0.1:{stubbed.port}" in completed.stderr
    assert "Traceback" not in completed.stderr


def test_destinations_are_tested_and_the_unreachable_ones_named(stubbed, orthanc):
    stubbed.set(
        destinations=json.dumps(
            {
                "pacs": f"dicom://ORTHANC@127.0.0.1:{orthanc.dicom_port}",
                "archive": f"http://127.0.0.1:{orthanc.http_port}/dicom-web",
                "unreachable": "dicom://NOBODY@127.0.0.1:1",
            }
        )
    )
    completed = stubbed.lumbar("destinations", "test")
    assert completed.returncode == 1
    assert "pacs: answers" in completed.stdout
    assert "archive: answers" in completed.stdout
    assert "unreachable: " in completed.stdout
    assert_one_line(completed, 1, "1 of 3 destinations")


def test_a_missing_database_is_reported_with_a_remedy(stubbed):
    assert_one_line(stubbed.lumbar_process("worklist"), 1, "run `lumbar db upgrade`")


def test_an_unknown_study_is_reported(stubbed):
    assert stubbed.lumbar("db", "upgrade").returncode == 0
    for command in ("study", "complete", "requeue"):
        assert_one_line(stubbed.lumbar(command, "1.2.3"), 1, "no study with UID '1.2.3'")


def test_the_demo_succeeds(tmp_path):
    completed = System(tmp_path / "cli", {}, stubbed=False).lumbar("demo", "--exit")
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert (
        "6 of 6 reports arrived in the PACS and 6 of 6 studies have 25 findings" in completed.stdout
    )
    output = " ".join(completed.stdout.split())
    assert re.match(r"The page: http://127\.0\.0\.1:\d+ – sign in as demo with \S{16}", output)
    assert (
        "Every study with a severe finding ranks above every study without a moderate one."
        in output
    )


@pytest.mark.parametrize(
    "name", ["hitachi-0.3T-parasagittal-t2.dcm", "siemens-1.5T-axial-t2-jpeg-lossless.dcm"]
)
def test_a_real_lumbar_slice_is_read_as_far_as_a_single_slice_allows(shipped, real_files, name):
    rows = rows_of(shipped("analyse", str(real_files / "lumbar" / name), "--format", "csv"))
    assert len(rows) == 25
    assert all(row["assessed"] == "true" or row["reason"] for row in rows)
    output = shipped("analyse", str(real_files / "lumbar" / name)).stdout
    if "axial" in name:
        assert output.count("Without a level: ") == 2
    else:
        assert "counted upwards from L5/S1" in output
        assert "the dural sac is not seen" in output


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cervical-says-lspine.dcm", "no lumbar spine was found"),
        ("enhanced-mr-brain-multiframe.dcm", "no lumbar spine was found"),
        ("knee-localizer-3plane", "no sagittal T1 or T2/STIR series"),
    ],
)
def test_a_real_study_that_is_not_lumbar_is_refused_with_a_reason(
    shipped, real_files, name, reason
):
    done = shipped("analyse", str(real_files / "not-lumbar" / name))
    assert_last_line(done, 3, reason)


def test_dcmtk_and_lumbar_send_reach_the_receiver_alike(stubbed, phantom):
    (folder, truth), (other, other_truth) = phantom(1), phantom(2)
    stubbed.start()
    receiver = f"dicom://LUMBAR@127.0.0.1:{stubbed.port}"
    assert "files sent" in stubbed.lumbar("send", str(folder), "--to", receiver).stdout
    storescu = [
        "storescu",
        "-aec",
        "LUMBAR",
        "+sd",
        "+r",
        "127.0.0.1",
        str(stubbed.port),
        str(other),
    ]
    environment = os.environ | {"TCP_NODELAY": "1"}
    assert subprocess.run(storescu, capture_output=True, env=environment).returncode == 0
    stubbed.wait_for_states(
        dict.fromkeys((truth.study_instance_uid, other_truth.study_instance_uid), "analysed")
    )
    assert "Traceback" not in stubbed.tail()
    stubbed.kill()


@pytest.mark.parametrize(
    "arguments",
    [
        ("jobs", "retry"),
        ("audit", "--after"),
        ("audit", "--limit"),
        ("worklist", "--limit"),
        ("findings", "--limit"),
    ],
    ids=" ".join,
)
def test_a_number_that_no_row_can_have_is_wrong_usage(stubbed, arguments):
    done = stubbed.lumbar(*arguments, str(2**31))
    assert done.returncode == 2
    assert "2147483647" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_argument_that_is_no_text_is_wrong_usage(stubbed):
    assert stubbed.lumbar("db", "upgrade").returncode == 0
    assert_one_line(stubbed.lumbar("study", "1.2\udcff"), 2, "not valid text")


def test_a_database_of_another_kind_is_a_wrong_setting(stubbed):
    stubbed.set(database_url="mysql://reader@localhost/lumbar")
    assert_one_line(stubbed.lumbar("worklist"), 2, "LUMBAR_DATABASE_URL")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_a_character_shows_the_rest(stubbed, monkeypatch, encoding):
    stubbed.lumbar("db", "upgrade")
    monkeypatch.setitem(stubbed._environment, "PYTHONIOENCODING", encoding)
    done = stubbed.lumbar_process("worklist")
    assert done.returncode == 0, done.stderr
    assert "Research use only ? not for diagnostic use" in done.stdout
