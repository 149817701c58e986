"""Files with the headers of the RSNA 2024 data set are read whole, trained on and evaluated."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import EnhancedMRImageStorage, RLELossless
from typer.testing import CliRunner

import commands
from commands.app import app
from lumbar.dicom.discover import find_instances
from lumbar.dicom.pixels import read_slice
from lumbar.dicom.slice_reader import SliceReader
from lumbar.errors import NotAnalysable
from lumbar.networks import load
from lumbar.networks.bundle import read_description
from lumbar.phantoms import write_study
from lumbar.phantoms.rsna_headers import rewrite_as_rsna
from lumbar.training.evaluate_locator import evaluate_levels
from tests import tiny_network
from tests.stub_networks import StubKeypoints
from worker.pipeline import analyse

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:tensorflow"),
]

STUDIES, COMPARED = 12, 3  # ten patients at least are needed for a training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with such headers; of its last study no image can be read."""
    out = tmp_path_factory.mktemp("rsna") / "data"
    written = CliRunner().invoke(
        app, ["phantom", str(out), "--studies", str(STUDIES), "--as-rsna", "--seed", "31"]
    )
    assert written.exit_code == 0, written.output
    for file in studies(out)[-1].rglob("*.dcm"):
        file.write_bytes(file.read_bytes()[:300])
    return out


def studies(data: Path) -> list[Path]:
    return sorted((data / "train_images").iterdir())


def test_the_headers_lack_what_the_real_ones_lack(data: Path) -> None:
    study = studies(data)[0]
    files = sorted(study.rglob("*.dcm"))
    uids: dict[str, set[str]] = {}
    for file in files:
        ds = dcmread(file, stop_before_pixels=True)
        assert ds.file_meta.MediaStorageSOPClassUID == EnhancedMRImageStorage
        assert ds.file_meta.TransferSyntaxUID == RLELossless
        for missing in (
            *("SOPClassUID", "Modality", "EchoTime", "RepetitionTime", "ScanningSequence"),
            *("SharedFunctionalGroupsSequence", "FrameOfReferenceUID", "ImageType"),
        ):
            assert missing not in ds
        assert ds.SeriesDescription in ("T1", "T2")
        assert file.stem == str(ds.InstanceNumber)
        uids.setdefault(file.parent.name, set()).add(ds.SOPInstanceUID)
    assert len(uids) == 3
    assert all(name.isdigit() for name in (study.name, *uids))
    assert set.intersection(*uids.values()) >= {f"{study.name}.1.1"}


def test_headers_rewritten_again_stay_the_same(data: Path) -> None:
    study = studies(data)[1]
    before = {file: file.read_bytes() for file in study.rglob("*.dcm")}
    rewrite_as_rsna(study)
    assert {file: file.read_bytes() for file in study.rglob("*.dcm")} == before


def test_every_slice_has_the_pixels_of_its_own_file(data: Path, tmp_path: Path) -> None:
    reader = SliceReader(find_instances(studies(data)[0], tmp_path)[0])
    assert len({header.sop_instance_uid for header in reader.headers}) < len(reader.headers)
    for header in reader.headers:
        assert (reader.read(header) == read_slice(Path(header.file), None)).all()


@pytest.mark.parametrize("number", range(COMPARED))
def test_a_study_is_read_as_with_whole_headers(data: Path, tmp_path: Path, number: int) -> None:
    study = studies(data)[number]
    write_study(tmp_path, int(study.name))
    networks = load(None)
    whole, bare = (
        analyse(find_instances(folder, folder)[0], networks) for folder in (tmp_path, study)
    )
    pairs = list(zip(whole.findings, bare.findings, strict=True))
    assert sum(a.severity is b.severity for a, b in pairs) >= 24
    assert all(b.assessed for a, b in pairs if a.assessed)
    assert bare.caveats == whole.caveats
    for choice in bare.choices[:3]:
        assert "by its contrast" in choice
    for a, b in pairs:
        if a.point and b.point:
            places = ((p.x, p.y, p.z) for p in (a.point, b.point))
            np.testing.assert_allclose(*places, atol=0.01)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    error = f"{type(result.exception).__name__}: {result.exception}" if result.exception else ""
    return result.exit_code, result.stdout, error


def test_no_report_refers_to_repeated_uids_but_the_findings_are_printed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.dcm"
    monkeypatch.setenv("LUMBAR_HOME", str(tmp_path / "home"))
    arguments = ["analyse", str(studies(data)[0]), "--format", "json", "--sr", str(report)]
    monkeypatch.setattr("sys.argv", ["lumbar", *arguments])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == (
        "lumbar: no report was written: SOP Instance UIDs repeat, "
        "so its references would be ambiguous"
    )
    assert not report.exists()
    record = json.loads(printed.out)
    assert len(record["findings"]) == 25
    assert {series["role"] for series in record["series"]} == {
        "sagittal_t1",
        "sagittal_t2",
        "axial_t2",
    }


def test_training_and_evaluation_read_the_layout_and_end_with_an_error_for_an_unread_study(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_network.register(monkeypatch)
    tiny_network.few_samples(monkeypatch)
    monkeypatch.setattr("commands.train._recipe", lambda name: tiny_network.recipe(), raising=True)
    out = tmp_path / "bundle"
    status, printed, error = run("train", str(data), "--out", str(out))
    assert status == 1
    assert "Bundle own 1 (synthetic)" in printed
    assert error.startswith("Permanent: 1 study could not be read")
    with (tmp_path / "bundle.work" / "dropped.csv").open(newline="") as file:
        dropped = list(csv.DictReader(file))
    assert {row["study_id"] for row in dropped} == {studies(data)[-1].name}
    description = read_description(out)
    assert sum(description["data"]["patients"].values()) == STUDIES - 1
    report = tmp_path / "report"
    evaluated = ("evaluate", str(data), "--bundle", str(out), "--format", "csv")
    status, printed, error = run(*evaluated, "--out", str(report))
    assert (status, error) == (0, "")
    (overall, *_) = csv.DictReader(printed.splitlines())
    assert float(overall["assessed"]) == 1

    def refuse(instances: object) -> None:
        raise NotAnalysable("refused, but read")

    monkeypatch.setattr("worker.pipeline.read_with", lambda networks: refuse)
    status, printed, error = run(*evaluated, "--part", "all")
    assert status == 1
    assert error.startswith("Permanent: 1 study could not be read")
    assert {row["assessed"] for row in csv.DictReader(printed.splitlines())} == {"0.0"}


def test_the_locators_evaluation_counts_an_unread_study(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = evaluate_levels(data, StubKeypoints(), lambda count: None)
    assert [o.study for o in outcomes if o.unreadable] == [studies(data)[-1].name]
    assert all(o.refused is None for o in outcomes if not o.unreadable)
    monkeypatch.setattr("lumbar.networks.load_keypoints", lambda folder: StubKeypoints())
    status, printed, error = run("evaluate", str(data), "--levels", "--format", "csv")
    assert status == 1
    assert "levels named correctly" in printed
    assert error.startswith("Permanent: 1 study could not be read")
