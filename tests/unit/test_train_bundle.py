"""From a data set in the RSNA 2024 layout, with every irregularity of the real one, to a bundle and its figures."""

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
from lumbar.spine.anatomy import Condition, FindingKey, Level, Role
from lumbar.training.annotations import mark
from lumbar.training.compare import compare
from lumbar.training.crop_batches import Epoch, Samples
from lumbar.training.crop_files import FOLDER, cut_crops, kept_crops, read_cut
from lumbar.training.evaluate_bundle import evaluate_bundle
from lumbar.training.export import FORMATS, export_bundle
from lumbar.training.rsna_dataset import read_data_set
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
    return lambda done: None


@pytest.fixture(scope="module")
def irregular(tmp_path_factory):
    """A data set with every pitfall, and which study has which."""
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
def dropped(prepared, irregular):
    """By pitfall, what was dropped of its study: finding and why."""
    _, lost, _ = prepared
    names = {study: pitfall for pitfall, study in irregular[1].items()}
    told = {pitfall: set() for pitfall in PITFALLS}
    for loss in lost:
        told[names[loss.study]].add((loss.finding, loss.why))
    return told


def learnt(prepared, irregular, pitfall):
    """The findings of a pitfall's study that are learnt from, and how many crops each has."""
    cuts, _, _ = prepared
    study = irregular[1][pitfall]
    return Counter(cut.key for cut in cuts if cut.study == study and cut.on_target)


def of(*roles):
    return {FindingKey(c, level) for c in Condition if c.role in roles for level in Level}


EVERYTHING = of(*Role)


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
            "levels taken for each other",
            {
                ("spinal_canal_stenosis_l4_l5", "it lies where L5/S1 is"),
                ("spinal_canal_stenosis_l5_s1", "it lies where L4/L5 is"),
            },
        ),
        ("no images", {("", "it has no images")}),
    ],
)
def test_what_cannot_be_used_is_told_of_with_its_reason(
    dropped, prepared, irregular, pitfall, expected
):
    assert dropped[pitfall] == expected
    lost = {finding for finding, _ in expected}
    kept = EVERYTHING - {key for key in EVERYTHING if key.row_id("")[1:] in lost}
    assert set(learnt(prepared, irregular, pitfall)) == (set() if pitfall == "no images" else kept)


@pytest.mark.parametrize(
    "pitfall",
    [
        "a second axial series",
        "two T1 series",
        "gaps in the numbers",
        "axial slices numbered the other way",
        "T1 slices numbered the other way",
        "mixed matrix sizes",
        "no times in the headers",
    ],
)
def test_what_is_only_odd_loses_nothing(dropped, prepared, irregular, pitfall):
    assert dropped[pitfall] == set()
    assert set(learnt(prepared, irregular, pitfall)) == EVERYTHING


@pytest.mark.parametrize(
    ("pitfall", "role"), [("no T1 series", Role.SAGITTAL_T1), ("no T2 series", Role.SAGITTAL_T2)]
)
def test_a_missing_series_loses_only_its_findings(dropped, prepared, irregular, pitfall, role):
    assert {why for _, why in dropped[pitfall]} == {"a severity without coordinates"}
    assert set(learnt(prepared, irregular, pitfall)) == EVERYTHING - of(role)


def test_an_image_that_cannot_be_read_loses_only_the_findings_marked_on_it(
    dropped, prepared, irregular
):
    lost = {finding for finding, _ in dropped["an unreadable image"]}
    assert "left_neural_foraminal_narrowing_l3_l4" in lost
    assert {finding.rsplit("_", 2)[0] for finding in lost - {""}} == {
        "left_neural_foraminal_narrowing"
    }
    kept = learnt(prepared, irregular, "an unreadable image")
    assert len(kept) == 25 - len(lost - {""})
    damaged = dropped["damaged pixels"]
    assert ("right_subarticular_stenosis_l1_l2") in {finding for finding, _ in damaged}
    assert all("its labelled image cannot be read" in why for _, why in damaged)


def test_crops_show_the_marked_place_whichever_way_the_slices_are_numbered(irregular, prepared):
    """A renumbered series' crops are those of the very places that the truth has."""
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
        "axial slices numbered the other way",
        "gaps in the numbers",
        "mixed matrix sizes",
        "a second axial series",
    ):
        marked = mark(studies[planted[pitfall]])
        for finding in marked.findings:
            assert np.linalg.norm(finding.point - points[planted[pitfall], finding.key]) < 3.5
            places = [abs(header.distance(finding.point)) for header in finding.slices]
            assert places[1:] == sorted(places[1:])


def test_off_target_crops_show_another_place_than_every_finding(prepared, work):
    cuts, _, _ = prepared
    on = {(cut.study, cut.key): cut for cut in cuts if cut.on_target and cut.rank == 0}
    off = [cut for cut in cuts if not cut.on_target]
    assert len(off) > 0.8 * len(on)
    for cut in off:
        beside = read_cut(work, on[cut.study, cut.key]).astype(int)
        assert np.abs(read_cut(work, cut).astype(int) - beside).mean() > 5


def test_what_was_dropped_and_who_is_in_which_part_stand_in_files(prepared, work):
    cuts, lost, parts = prepared
    with (work / "dropped.csv").open() as file:
        assert [tuple(row.values()) for row in csv.DictReader(file)] == [
            (d.study, d.finding, d.why) for d in lost
        ]
    with (work / "split.csv").open() as file:
        assert {row["study_id"]: row["part"] for row in csv.DictReader(file)} == dict(parts.items())
    assert {cut.study for cut in cuts} <= parts.keys()
    assert (work / "counts.png").stat().st_size > 1000


def test_crops_are_cut_once_and_again_when_labels_or_images_change(irregular, prepared, work):
    studies = read_data_set(irregular[0]).studies[:1]
    folder = (work / FOLDER / prepared[0][0].file).parent
    stamps = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    own, _ = cut_crops(studies, work, lambda done: None)
    assert own == [cut for cut in prepared[0] if cut.study == studies[0].name]
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == stamps
    key = own[0].key
    moved = {
        **studies[0].marks,
        key: replace(studies[0].marks[key], x=studies[0].marks[key].x + 15),
    }
    others, _ = cut_crops([replace(studies[0], marks=moved)], work, lambda done: None)
    first, second = (
        next(c for c in cuts if c.key == key and c.on_target) for cuts in (own, others)
    )
    assert np.abs(read_cut(work, first).astype(int) - read_cut(work, second)).mean() > 5
    image = next(studies[0].folder.rglob("*.dcm"))
    before = image.stat()
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    try:
        again, _ = cut_crops(studies, work, lambda done: None)
    finally:
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert {cut.file for cut in again}.isdisjoint(cut.file for cut in own)
    for one, other in zip(own, again, strict=True):
        assert (read_cut(work, one) == read_cut(work, other)).all()


@pytest.fixture(scope="module")
def bundle(irregular, work, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny_network.register(monkeypatch)
        out = tmp_path_factory.mktemp("bundles") / "tiny"
        identity = train_bundle(
            irregular[0], out, work, tiny_network.recipe(), silent, name="tiny", version="7"
        )
        yield out, identity


def test_a_bundle_is_trained_from_the_tables_as_they_are(bundle, work):
    out, identity = bundle
    assert str(identity) == "tiny 7 (synthetic)"
    stated = read_description(out)
    assert stated["data"]["patients"] == {"train": 16, "validation": 2, "test": 1}
    assert stated["data"]["dropped"] > 10
    assert stated["training"]["severity"]["epochs"] == 4
    assert stated["networks"]["severity"]["side"] == 48
    for kind in CLASSES:
        assert (work / f"{kind}.png").stat().st_size > 1000
        assert list((work / kind / "logs").iterdir())
    asked = load_bundle(out).severities(kept_crops(work, Part.TEST, 10))
    np.testing.assert_allclose(asked.sum(axis=1), 1, atol=1e-5)


def test_a_bundle_trained_again_from_what_is_kept_has_the_same_weights(
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


def test_the_part_that_is_tested_is_the_part_that_was_not_learnt_from(bundle, irregular, work):
    """Whatever of the data could not be used."""

    def refuse(instances):
        raise NotAnalysable("not read")

    asked = evaluate_bundle(
        irregular[0], Part.TEST, read_description(bundle[0])["data"], refuse, silent
    )
    with (work / "split.csv").open() as file:
        split = {row["study_id"]: row["part"] for row in csv.DictReader(file)}
    assert {j.study for j in asked} == {study for study, part in split.items() if part == Part.TEST}


@pytest.mark.parametrize("change", [{"seed": 2}, {"batch": 4}, {"neighbour": 0.1}])
def test_a_teaching_is_not_gone_on_with_by_another_recipe(
    bundle, irregular, work, tmp_path, change
):
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


def test_every_exported_file_answers_as_the_bundle(bundle, work, tmp_path):
    crops = kept_crops(work, Part.TEST, 12)
    told = export_bundle(bundle[0], tmp_path, list(FORMATS), crops)
    assert [row["file"] for row in told] == [
        f"{kind}.{name}" for kind in CLASSES for name in FORMATS
    ]
    assert max(row["differs"] for row in told) <= 1e-3
    spread = np.ptp(load_bundle(bundle[0]).severities(crops), axis=0).max()
    assert spread > 1e-3  # the crops do differ: equal answers are no accident


def test_candidates_are_compared_on_the_same_crops_in_one_table(bundle, prepared, work):
    cuts, _, parts = prepared
    rows = compare(
        cuts, parts, work, tiny_network.recipe(), silent, ["random_forest", tiny_network.TINY]
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
    one, other = (Epoch(samples, 3, 64)[1] for _ in range(2))
    for mine, its in zip(one, other, strict=True):
        assert (mine == its).all()
    assert not (Epoch(samples, 4, 64)[1][0] == one[0]).all()
    shares = np.mean([Epoch(samples, n, 64)[0][1].mean(axis=0) for n in range(6)], axis=0)
    assert shares[2] > 1.5 * samples.balance.natural[2]


CHILD = """
import os, signal, sys
from pathlib import Path
import pytest
from tests import tiny_network
from lumbar.training.crop_files import cut_crops
from lumbar.training.rsna_dataset import read_data_set
from lumbar.training.crop_batches import Samples
from lumbar.training.trainer import teach
data, work, out, last = sys.argv[1:]
monkeypatch = pytest.MonkeyPatch()
tiny_network.register(monkeypatch)
cuts, _ = cut_crops(read_data_set(Path(data)).studies[:4], Path(work), lambda done: None, 1)
recipe = tiny_network.recipe()
samples = Samples("severity", cuts, Path(work), recipe)
batches = 0
def advance(done):
    global batches
    batches += done
    if batches == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
network, history = teach(recipe.severity, samples, samples, Path(out), advance)
import hashlib, json
print(json.dumps([hashlib.sha256(b"".join(w.tobytes() for w in network.get_weights())).hexdigest(),
    [{name: value for name, value in row.items() if name != "minutes"} for row in history]]))
"""


def taught(data, work, out, kill_after=0):
    command = [sys.executable, "-c", CHILD, str(data), str(work), str(out), str(kill_after)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )


def test_a_training_that_is_killed_and_started_again_ends_with_the_same_weights(
    irregular, prepared, work, tmp_path
):
    """Killed within the second and again within the third of four epochs, of which the third begins another phase."""
    whole = taught(irregular[0], work, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    for moment, done in ((6, 1), (9, 2)):
        killed = taught(irregular[0], work, tmp_path / "killed", moment)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        (state,) = (tmp_path / "killed").glob("epoch-*")
        assert len(json.loads((state / "history.json").read_text())) == done
    again = taught(irregular[0], work, tmp_path / "killed")
    assert again.returncode == 0, again.stderr
    assert again.stdout == whole.stdout


def test_the_command_line_trains_measures_compares_and_exports(
    irregular, prepared, work, tmp_path, monkeypatch
):
    tiny_network.register(monkeypatch)
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
    assert "no clinical ones" in (report / "report.html").read_text()
    table = run("compare", data, "--work", str(work), "--only", "random_forest", "--format", "csv")
    (row,) = csv.DictReader(table.splitlines())  # progress and warnings go to standard error
    assert row["candidate"] == "random_forest"
    assert "severity.h5" in run("export", out, "--out", str(tmp_path / "exported"), "--as", "h5")
