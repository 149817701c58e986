"""Evaluation of whole studies against their labels, and its report."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest

from lumbar.dicom.discover import MRInstance, find_instances
from lumbar.errors import NotAnalysable, WrongSetting
from lumbar.networks.classifiers import CLASSES
from lumbar.phantoms import write_data_set
from lumbar.phantoms.dataset import PHANTOM_TRUTH
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, Role, Severity
from lumbar.spine.findings import Finding, ImagePoint
from lumbar.spine.provenance import BundleIdentity, TrainedOn
from lumbar.spine.roles import assign_roles
from lumbar.training.default_timing import with_default_times
from lumbar.training.demographics import demographics_by_study, parts_by_study, split_sha256
from lumbar.training.evaluate_bundle import evaluate_bundle, write_submission
from lumbar.training.evaluation_report import compute_figures, write_report
from lumbar.training.rsna_dataset import read_data_set, read_severities, series_by_study
from lumbar.training.split import Part
from tests import tiny_network

pytestmark = pytest.mark.slow

STUDIES = 10
BUNDLE = BundleIdentity("test", "1", "a" * 64, TrainedOn.SYNTHETIC, "2")
POINT = ImagePoint("1.2", "1.2", "1.2", None, 1.0, 1.0, 0.0, 0.0, 0.0)


def silent(name, length):
    return lambda done: None


def blank(rng, scanner, sequence, patient, stacks):
    return [np.zeros((s.size, s.size), np.uint16) for s in stacks for _ in range(s.count)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Phantoms without an image, as no test here reads the pixels."""
    out = tmp_path_factory.mktemp("rsna")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("lumbar.phantoms.study.acquire", blank)
        write_data_set(out, STUDIES, 9, processes=1)
    return out


def training_data(data):
    """The description of the data in a bundle trained on them."""
    studies = read_data_set(data).studies
    return {
        "split_seed": 1,
        "split_sha256": split_sha256(parts_by_study(studies, demographics_by_study(studies), 1)),
    }


def view_of(condition):
    """VGG16's probabilities for a condition's view; a sagittal view is of either side."""
    sides = {condition}
    if "foraminal" in condition:
        sides = {c for c in Condition if "foraminal" in c}
    return tuple(0.96 / len(sides) if name in sides else 0.01 for name in CLASSES["condition"])


def analysing(severities, view=view_of):
    """An analysis that gives each study, by its folder's name, these severities."""

    def analyse(instances):
        study = instances[0].path.parents[1].name
        findings = []
        for key in ALL_FINDINGS:
            probabilities = [0.05, 0.05, 0.05]
            probabilities[list(Severity).index(severities[study][key])] = 0.9
            findings.append(
                Finding(*key.parts, probabilities=tuple(probabilities), point=POINT, shows=0.9)
            )
        return findings, {key: view(key.condition) for key in ALL_FINDINGS}

    return analyse


@pytest.fixture(scope="module")
def description(data):
    return training_data(data)


@pytest.fixture(scope="module")
def as_labelled(data):
    """The analysis of all studies that gives every finding the severity of its label."""
    return evaluate_bundle(data, None, {}, analysing(read_severities(data / "train.csv")), silent)


@pytest.fixture(scope="module")
def as_true(data):
    """The one that gives every finding its true severity."""
    return evaluate_bundle(data, None, {}, analysing(read_severities(data / PHANTOM_TRUTH)), silent)


@pytest.fixture(scope="module")
def true_figures(as_true):
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny_network.few_samples(monkeypatch)
        return compute_figures(as_true)


@pytest.fixture
def few_samples(monkeypatch):
    tiny_network.few_samples(monkeypatch)


def test_the_readers_labels_score_above_the_ceiling(as_labelled, few_samples):
    overall = compute_figures(as_labelled)["overall"]
    assert overall["findings"] == 25 * STUDIES
    assert overall["accuracy"] == overall["condition_accuracy"] == overall["assessed"] == 1
    assert overall["ceiling"]["accuracy"] < 1
    assert overall["share_of_ceiling"]["accuracy"] == pytest.approx(
        1 / overall["ceiling"]["accuracy"]
    )


def test_the_truth_reaches_exactly_the_ceiling(true_figures):
    for own in (true_figures["overall"], *true_figures["by"]["group"].values()):
        assert own["accuracy"] == own["ceiling"]["accuracy"] < 1
        assert set(own["share_of_ceiling"].values()) == {1.0}
        assert own["against_truth"]["accuracy"] == 1


def test_figures_are_broken_down_by_group_condition_level_sex_age_and_scanner(
    as_labelled, few_samples
):
    by = compute_figures(as_labelled)["by"]
    assert set(by["group"]) == {"canal", "foraminal", "subarticular"}
    assert len(by["condition"]) == len(by["level"]) == 5
    assert set(by["sex"]) == {"F", "M"}
    assert all(scanner.startswith("Phantom ") for scanner in by["scanner"])
    for section in by.values():
        assert sum(group["findings"] for group in section.values()) == 25 * STUDIES


def test_only_the_requested_part_is_evaluated(data, description):
    read = analysing(read_severities(data / "train.csv"))
    studies = {
        part: {j.study for j in evaluate_bundle(data, part, description, read, silent)}
        for part in (Part.TEST, Part.VALIDATION)
    }
    assert {part: len(group) for part, group in studies.items()} == {
        Part.TEST: 1,
        Part.VALIDATION: 1,
    }
    assert not studies[Part.TEST] & studies[Part.VALIDATION]


def test_data_changed_since_training_have_no_test_part(data, description, tmp_path):
    """Otherwise the split would differ, and patients trained on would be tested."""
    for name in ("train_series_descriptions.csv", "train_label_coordinates.csv"):
        shutil.copy(data / name, tmp_path)
    lines = (data / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join(lines[:-1]) + "\n")
    (tmp_path / "train_images").symlink_to(data / "train_images")
    read = analysing(read_severities(data / "train.csv"))
    with pytest.raises(WrongSetting, match="--part all"):
        evaluate_bundle(tmp_path, Part.TEST, description, read, silent)
    assert len(evaluate_bundle(tmp_path, None, description, read, silent)) == 25 * (STUDIES - 1)


def test_the_table_gives_the_weighting_of_series_without_times(data):
    study = next((data / "train_images").iterdir())
    untimed = [
        MRInstance(
            f.path,
            f.header,
            tuple(replace(s, repetition_time=None, echo_time=None) for s in f.slices),
        )
        for f in find_instances(study, study)[0]
    ]

    def roles(instances):
        return set(assign_roles([s for instance in instances for s in instance.slices]).stacks)

    series = series_by_study(data)[study.name]
    assert roles(with_default_times(untimed, series)) == set(Role)
    without = {name: role for name, role in series.items() if role is not Role.AXIAL_T2}
    assert roles(with_default_times(untimed, without)) == set(Role) - {Role.AXIAL_T2}
    assert (
        with_default_times(find_instances(study, study)[0], dict.fromkeys(series, Role.AXIAL_T2))
        == find_instances(study, study)[0]
    )


def test_a_view_is_correct_if_most_probable_with_sagittal_sides_summed(
    data, description, few_samples
):
    severities = read_severities(data / "train.csv")
    wrong = {
        "a recess classified as the other side's": lambda c: view_of(
            Condition.RIGHT_SUBARTICULAR_STENOSIS
            if c is Condition.LEFT_SUBARTICULAR_STENOSIS
            else c
        ),
        "a canal classified as no condition": lambda c: (
            (0.02,) * 5 + (0.9,) if c is Condition.SPINAL_CANAL_STENOSIS else view_of(c)
        ),
    }
    for view in wrong.values():
        findings = evaluate_bundle(
            data, Part.TEST, description, analysing(severities, view), silent
        )
        assert compute_figures(findings)["overall"]["condition_accuracy"] == pytest.approx(0.8)
    foramina = [j for j in findings if j.group == "foraminal"]
    assert foramina
    assert all(j.view_correct for j in foramina)


def test_findings_not_assessed_are_counted_and_listed_and_in_no_other_figure(
    data, few_samples, tmp_path
):
    severities = read_severities(data / "train.csv")
    refused = sorted(severities)[0]

    def read(instances):
        if instances[0].path.parents[1].name == refused:
            raise NotAnalysable("no lumbar spine is visible")
        return analysing(severities)(instances)

    findings = evaluate_bundle(data, None, {}, read, silent)
    figures = compute_figures(findings)
    assert figures["overall"]["assessed"] == pytest.approx(0.9)
    assert figures["overall"]["accuracy"] == 1
    write_report(tmp_path, findings, figures, BUNDLE, "data")
    assert "| 25 | no lumbar spine is visible |" in (tmp_path / "report.md").read_text()
    with (tmp_path / "submission.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["row_id"].startswith(f"{refused}_")]
    assert len(rows) == 25
    assert {row["severe"] for row in rows} == {"0.333333"}


def test_the_submission_has_the_competition_s_rows(data, as_labelled, tmp_path):
    write_submission(tmp_path / "submission.csv", as_labelled)
    with (
        (tmp_path / "submission.csv").open() as file,
        (data / "sample_submission.csv").open() as sample,
    ):
        rows, expected = list(csv.DictReader(file)), list(csv.DictReader(sample))
    assert list(rows[0]) == list(expected[0])
    assert [row["row_id"] for row in rows] == [row["row_id"] for row in expected]
    np.testing.assert_allclose([sum(float(row[s]) for s in Severity) for row in rows], 1, atol=1e-5)


def test_a_report_on_phantoms_states_that_it_is_not_clinical(as_true, true_figures, tmp_path):
    write_report(tmp_path, as_true, true_figures, BUNDLE, "data")
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "Research use only – not for diagnostic use" in text
        assert "they are not clinical figures" in text
        assert "Trained on synthetic data" in text
        assert "ceiling" in text
        assert "91.4" not in text
    assert (tmp_path / "report.html").read_text().count("<table>") >= 6
    assert all(
        (tmp_path / name).stat().st_size > 2000 for name in ("confusion.png", "calibration.png")
    )


def test_a_report_is_written_although_a_group_of_conditions_was_not_assessed(
    as_true, few_samples, tmp_path
):
    findings = [
        replace(f, probabilities=None, conditions=None, reason="no Axial T2 series was received")
        if f.group == "subarticular"
        else f
        for f in as_true
    ]
    write_report(tmp_path, findings, compute_figures(findings), BUNDLE, "data")
    assert "no Axial T2 series was received" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "confusion.png").stat().st_size > 2000


def test_a_part_without_studies_is_refused(data, tmp_path):
    few = tmp_path / "few"
    shutil.copytree(data, few, ignore=shutil.ignore_patterns("train_images"))
    (few / "train_images").symlink_to(data / "train_images")
    lines = (data / "train.csv").read_text().splitlines()
    (few / "train.csv").write_text("\n".join(lines[:3]) + "\n")
    with pytest.raises(WrongSetting, match="test part"):
        evaluate_bundle(few, Part.TEST, training_data(few), analysing({}), silent)
