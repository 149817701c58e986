"""From a data set in the RSNA 2024 layout, with all its irregularities, to a bundle and figures."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from commands.app import app
from lumbar.errors import NotAnalysable, WrongSetting
from lumbar.networks.bundle import load_bundle, load_network, read_description
from lumbar.networks.classifiers import CLASSES
from lumbar.phantoms import write_data_set
from lumbar.phantoms.pitfalls import PITFALLS, plant_pitfalls
from lumbar.spine.anatomy import Condition, FindingKey, Level, Role, Severity
from lumbar.training.annotations import locate_annotations
from lumbar.training.compare import compare
from lumbar.training.crop_batches import Epoch, Samples
from lumbar.training.crop_files import FOLDER, _source_hash, extract_crops, read_crop, stored_crops
from lumbar.training.evaluate_bundle import evaluate_bundle
from lumbar.training.export import FORMATS, export_bundle
from lumbar.training.rsna_dataset import Annotation, Study, read_data_set
from lumbar.training.split import Part
from lumbar.training.train_bundle import prepare, train_bundle
from tests import tiny_network

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation:DeprecationWarning"
    ),  # Keras, saving weights
    pytest.mark.filterwarnings("ignore::UserWarning:tensorflow"),  # of its own interpreter
    pytest.mark.filterwarnings(
        "ignore:In the future `np.object`:FutureWarning"
    ),  # Keras, writing HDF5
]

STUDIES = len(PITFALLS) + 4


def silent(name, length):
    return lambda count: None


@pytest.fixture(scope="module")
def irregular(tmp_path_factory):
    """A data set with every pitfall, and the study of each pitfall."""
    out = tmp_path_factory.mktemp("rsna")
    write_data_set(out, STUDIES, 8)
    return out, plant_pitfalls(out)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def prepared(irregular, work):
    return prepare(irregular[0], work, 1, silent)


@pytest.fixture
def excluded(prepared, irregular):
    """The excluded findings and reasons of each pitfall's study."""
    _, exclusions, _ = prepared
    names = {study: pitfall for pitfall, study in irregular[1].items()}
    reasons = {pitfall: set() for pitfall in PITFALLS}
    for exclusion in exclusions:
        reasons[names[exclusion.study]].add((exclusion.finding, exclusion.reason))
    return reasons


def trained_findings(prepared, irregular, pitfall):
    """The number of crops of each finding of a pitfall's study."""
    crops, _, _ = prepared
    study = irregular[1][pitfall]
    return Counter(crop.key for crop in crops if crop.study == study and crop.on_target)


def findings_of(*roles):
    return {FindingKey(c, level) for c in Condition if c.role in roles for level in Level}


EVERYTHING = findings_of(*Role)


@pytest.mark.parametrize(
    ("pitfall", "expected"),
    [
        (
            "missing severities",
            {
                ("spinal_canal_stenosis_l1_l2", "no severity"),
                ("left_subarticular_stenosis_l3_l4", "no severity"),
                ("spinal_canal_stenosis_l1_l2", "coordinates without a severity"),
                ("left_subarticular_stenosis_l3_l4", "coordinates without a severity"),
            },
        ),
        (
            "a severity without coordinates",
            {("spinal_canal_stenosis_l2_l3", "a severity without coordinates")},
        ),
        (
            "coordinates without a severity",
            {
                ("right_neural_foraminal_narrowing_l5_s1", "no severity"),
                ("right_neural_foraminal_narrowing_l5_s1", "coordinates without a severity"),
            },
        ),
        (
            "interchanged levels",
            {
                ("spinal_canal_stenosis_l4_l5", "it lies where L5/S1 is"),
                ("spinal_canal_stenosis_l5_s1", "it lies where L4/L5 is"),
            },
        ),
        ("no images", {("", "it has no images")}),
    ],
)
def test_unusable_findings_are_excluded_with_their_reason(
    excluded, prepared, irregular, pitfall, expected
):
    assert excluded[pitfall] == expected
    missing = {finding for finding, _ in expected}
    usable = {key for key in EVERYTHING if key.row_id("")[1:] not in missing}
    assert set(trained_findings(prepared, irregular, pitfall)) == (
        set() if pitfall == "no images" else usable
    )


@pytest.mark.parametrize(
    "pitfall",
    [
        "a second axial series",
        "two T1 series",
        "gaps in the instance numbers",
        "axial slices numbered in reverse",
        "T1 slices numbered in reverse",
        "mixed matrix sizes",
        "no TR and TE in the headers",
        "headers as in the RSNA 2024 files",
    ],
)
def test_an_unusual_but_usable_study_loses_nothing(excluded, prepared, irregular, pitfall):
    assert excluded[pitfall] == set()
    assert set(trained_findings(prepared, irregular, pitfall)) == EVERYTHING


@pytest.mark.parametrize(
    ("pitfall", "role"), [("no T1 series", Role.SAGITTAL_T1), ("no T2 series", Role.SAGITTAL_T2)]
)
def test_a_missing_series_loses_only_its_findings(excluded, prepared, irregular, pitfall, role):
    assert {reason for _, reason in excluded[pitfall]} == {"a severity without coordinates"}
    assert set(trained_findings(prepared, irregular, pitfall)) == EVERYTHING - findings_of(role)


def test_an_unreadable_image_loses_only_the_findings_annotated_on_it(excluded, prepared, irregular):
    missing = {finding for finding, _ in excluded["an unreadable image"]}
    assert "left_neural_foraminal_narrowing_l3_l4" in missing
    assert {finding.rsplit("_", 2)[0] for finding in missing - {""}} == {
        "left_neural_foraminal_narrowing"
    }
    usable = trained_findings(prepared, irregular, "an unreadable image")
    assert len(usable) == 25 - len(missing - {""})
    damaged = excluded["damaged pixels"]
    assert ("right_subarticular_stenosis_l1_l2") in {finding for finding, _ in damaged}
    assert all("its annotated image cannot be read" in reason for _, reason in damaged)


def test_crops_show_the_annotated_point_however_the_slices_are_numbered(irregular, prepared):
    """The crops of a renumbered series are at the true points."""
    data, planted = irregular
    with (data / "phantom_points.csv").open() as file:
        points = {
            (
                row["study_id"],
                FindingKey(Condition(row["condition"]), Level(row["level"])),
            ): np.array([float(row[axis]) for axis in "xyz"])
            for row in csv.DictReader(file)
        }
    studies = {study.name: study for study in read_data_set(data).studies}
    for pitfall in (
        "axial slices numbered in reverse",
        "gaps in the instance numbers",
        "mixed matrix sizes",
        "a second axial series",
    ):
        annotated = locate_annotations(studies[planted[pitfall]])
        for finding in annotated.findings:
            assert np.linalg.norm(finding.point - points[planted[pitfall], finding.key]) < 3.5
            places = [abs(header.distance(finding.point)) for header in finding.slices]
            assert places[1:] == sorted(places[1:])


def test_off_target_crops_do_not_show_a_finding(prepared, work):
    crops, _, _ = prepared
    on_target = {
        (crop.study, crop.key): crop for crop in crops if crop.on_target and crop.rank == 0
    }
    off = [crop for crop in crops if not crop.on_target]
    assert len(off) > 0.8 * len(on_target)
    for crop in off:
        beside = read_crop(work, on_target[crop.study, crop.key]).astype(int)
        assert np.abs(read_crop(work, crop).astype(int) - beside).mean() > 5


def test_exclusions_and_parts_are_written_to_files(prepared, work):
    crops, exclusions, parts = prepared
    with (work / "dropped.csv").open() as file:
        assert [tuple(row.values()) for row in csv.DictReader(file)] == [
            (e.study, e.finding, e.reason) for e in exclusions
        ]
    with (work / "split.csv").open() as file:
        assert {row["study_id"]: row["part"] for row in csv.DictReader(file)} == dict(parts.items())
    assert {crop.study for crop in crops} <= parts.keys()
    assert (work / "counts.png").stat().st_size > 1000


def test_crops_are_stored_and_made_again_when_labels_or_images_change(irregular, prepared, work):
    studies = read_data_set(irregular[0]).studies[:1]
    folder = (work / FOLDER / prepared[0][0].file).parent
    stamps = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    first_crops, _ = extract_crops(studies, work, lambda done: None)
    assert first_crops == [crop for crop in prepared[0] if crop.study == studies[0].name]
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == stamps
    key = first_crops[0].key
    moved = {
        **studies[0].annotations,
        key: replace(studies[0].annotations[key], x=studies[0].annotations[key].x + 15),
    }
    changed, _ = extract_crops([replace(studies[0], annotations=moved)], work, lambda done: None)
    first, second = (
        next(c for c in crops if c.key == key and c.on_target) for crops in (first_crops, changed)
    )
    assert np.abs(read_crop(work, first).astype(int) - read_crop(work, second)).mean() > 5
    image = next(studies[0].folder.rglob("*.dcm"))
    before = image.stat()
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    try:
        remade, _ = extract_crops(studies, work, lambda done: None)
    finally:
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert {crop.file for crop in remade}.isdisjoint(crop.file for crop in first_crops)
    for original, copy in zip(first_crops, remade, strict=True):
        assert (read_crop(work, original) == read_crop(work, copy)).all()


def test_the_identity_of_stored_crops_does_not_depend_on_names_in_the_code(tmp_path):
    """Crops and training states made by earlier code are found again."""
    image = tmp_path / "7" / "1.dcm"
    image.parent.mkdir()
    image.write_bytes(b"image")
    os.utime(image, ns=(0, 1_700_000_000_000_000_000))
    key = FindingKey(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
    study = Study(
        name="1",
        folder=tmp_path,
        severities={key: Severity.SEVERE},
        annotations={key: Annotation("7", "1", 1.5, 2.0)},
        series={"7": Role.SAGITTAL_T2},
    )
    assert _source_hash(study) == "78d6a4e6d0c5"


@pytest.fixture(scope="module")
def bundle(irregular, work, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny_network.register(monkeypatch)
        out = tmp_path_factory.mktemp("bundles") / "tiny"
        identity = train_bundle(
            irregular[0], out, work, tiny_network.recipe(), silent, name="tiny", version="7"
        )
        yield out, identity


def test_a_bundle_is_trained_from_an_irregular_data_set(bundle, work):
    out, identity = bundle
    assert str(identity) == "tiny 7 (synthetic)"
    description = read_description(out)
    assert description["data"]["patients"] == {"train": 16, "validation": 2, "test": 2}
    assert description["data"]["dropped"] > 10
    assert description["training"]["severity"]["epochs"] == 4
    assert description["networks"]["severity"]["side"] == 48
    for kind in CLASSES:
        assert (work / f"{kind}.png").stat().st_size > 1000
        assert list((work / kind / "logs").iterdir())
    probabilities = load_bundle(out).severities(stored_crops(work, Part.TEST, 10))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_bundle_trained_again_from_the_work_folder_has_the_same_weights(
    bundle, irregular, work, tmp_path
):
    out, _ = bundle
    train_bundle(
        irregular[0],
        tmp_path / "again",
        work,
        tiny_network.recipe(),
        silent,
        name="tiny",
        version="7",
    )
    first, second = (read_description(folder)["networks"] for folder in (out, tmp_path / "again"))
    assert first == second


def test_the_evaluated_part_is_the_part_not_trained_on(bundle, irregular, work):
    """Exclusions do not change the split."""

    def refuse(instances):
        raise NotAnalysable("not read")

    findings = evaluate_bundle(
        irregular[0], Part.TEST, read_description(bundle[0])["data"], refuse, silent
    )
    with (work / "split.csv").open() as file:
        split = {row["study_id"]: row["part"] for row in csv.DictReader(file)}
    assert {finding.study for finding in findings} == {
        study for study, part in split.items() if part == Part.TEST
    }


@pytest.mark.parametrize("change", [{"seed": 2}, {"batch": 4}, {"neighbour": 0.1}])
def test_a_training_is_not_resumed_with_another_recipe(bundle, irregular, work, tmp_path, change):
    with pytest.raises(WrongSetting, match="another recipe"):
        train_bundle(
            irregular[0],
            tmp_path,
            work,
            tiny_network.recipe(**change),
            silent,
            name="tiny",
            version="7",
        )


def test_every_exported_file_gives_the_bundles_probabilities(bundle, work, tmp_path):
    crops = stored_crops(work, Part.TEST, 12)
    rows = export_bundle(bundle[0], tmp_path, list(FORMATS), crops)
    assert [row["file"] for row in rows] == [
        f"{kind}.{name}" for kind in CLASSES for name in FORMATS
    ]
    assert max(row["differs"] for row in rows) <= 1e-3
    spread = np.ptp(load_bundle(bundle[0]).severities(crops), axis=0).max()
    assert spread > 1e-3  # the crops differ, so equal probabilities are no coincidence


def test_candidates_are_compared_on_the_same_crops_in_one_table(bundle, prepared, work):
    crops, _, parts = prepared
    rows = compare(
        crops, parts, work, tiny_network.recipe(), silent, ["random_forest", tiny_network.TINY]
    )
    assert [row["candidate"] for row in rows] == ["random_forest", "tiny"]
    assert rows[0]["crops"] == rows[1]["crops"] > 0
    assert rows[0]["majority_accuracy"] == rows[1]["majority_accuracy"]
    network = load_network(bundle[0], read_description(bundle[0]), "severity")
    assert rows[1]["parameters"] == network.count_params()
    assert all(0 < row["balanced_accuracy"] <= 1 for row in rows)


def test_batches_are_the_same_every_time_and_balanced(prepared, work):
    recipe = tiny_network.recipe(batch=32)
    samples = Samples("severity", prepared[0], work, recipe)
    first_epoch, second_epoch = (Epoch(samples, 3, 64)[1] for _ in range(2))
    for first, second in zip(first_epoch, second_epoch, strict=True):
        assert (first == second).all()
    assert not (Epoch(samples, 4, 64)[1][0] == first_epoch[0]).all()
    shares = np.mean([Epoch(samples, n, 64)[0][1].mean(axis=0) for n in range(6)], axis=0)
    assert shares[2] > 1.5 * samples.balance.natural[2]


CHILD = """
import json, os, signal, sys
from pathlib import Path
import pytest
from tests import tiny_network
data, work, out, last = sys.argv[1:]
tiny_network.register(pytest.MonkeyPatch())
batches = 0
def advance(done):
    global batches
    batches += done
    if batches == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
print(json.dumps(tiny_network.train_severity(Path(data), Path(work), Path(out), advance)))
"""


def train_in_child(data, work, out, kill_after=0):
    command = [sys.executable, "-c", CHILD, str(data), str(work), str(out), str(kill_after)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )


def test_a_training_that_is_killed_and_started_again_ends_with_the_same_weights(
    irregular, prepared, work, tmp_path, monkeypatch
):
    """Killed in the second and in the third of four epochs; the third begins another phase."""
    tiny_network.register(monkeypatch)
    uninterrupted = tiny_network.train_severity(
        irregular[0], work, tmp_path / "whole", lambda done: None
    )
    for moment, epochs in ((6, 1), (9, 2)):
        killed = train_in_child(irregular[0], work, tmp_path / "killed", moment)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        (state,) = (tmp_path / "killed").glob("epoch-*")
        assert len(json.loads((state / "history.json").read_text())) == epochs
    again = train_in_child(irregular[0], work, tmp_path / "killed")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == uninterrupted


def test_the_command_line_trains_measures_compares_and_exports(
    irregular, prepared, work, tmp_path, monkeypatch
):
    tiny_network.register(monkeypatch)
    tiny_network.few_samples(monkeypatch)
    monkeypatch.setattr("commands.train._recipe", lambda name: tiny_network.recipe(), raising=True)
    data, out = str(irregular[0]), str(tmp_path / "bundle")

    def run(*arguments):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    shutil.copytree(work / FOLDER, tmp_path / "bundle.work" / FOLDER)
    assert "own 1 (synthetic)" in run("train", data, "--out", out)
    assert len(list((tmp_path / "bundle.work").glob("*/epoch-0004"))) == 2
    report = tmp_path / "report"
    rows = run(
        *("evaluate", data, "--bundle", out, "--part", "test", "--out", str(report)),
        *("--record", "held", "--format", "csv"),
    )
    assert "spinal_canal_stenosis" in rows
    assert read_description(Path(out))["figures"]["held"]["overall"]["findings"] > 0
    assert "not clinical figures" in (report / "report.html").read_text()
    table = run("compare", data, "--work", str(work), "--only", "random_forest", "--format", "csv")
    (row,) = csv.DictReader(table.splitlines())  # progress and warnings go to standard error
    assert row["candidate"] == "random_forest"
    assert "severity.h5" in run("export", out, "--out", str(tmp_path / "exported"), "--as", "h5")
