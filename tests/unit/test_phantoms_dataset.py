"""A data set of phantoms has the folders and tables of RSNA 2024."""

import csv
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from lumbar.errors import WrongSetting
from lumbar.phantoms import write_data_set
from lumbar.phantoms.study import draw_plan
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level

pytestmark = pytest.mark.slow

STUDIES = 3


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[None]]:
    out = tmp_path_factory.mktemp("rsna")
    advances: list[None] = []
    write_data_set(out, STUDIES, 7, processes=1, advance=lambda: advances.append(None))
    return out, advances


def table(out: Path, name: str) -> list[dict[str, str]]:
    with (out / name).open(newline="") as file:
        return list(csv.DictReader(file))


def digest(out: Path) -> dict[str, str]:
    return {
        str(p.relative_to(out)): sha256(p.read_bytes()).hexdigest()
        for p in out.rglob("*")
        if p.is_file()
    }


def test_every_finished_study_is_reported(data_set: tuple[Path, list[None]]) -> None:
    assert len(data_set[1]) == STUDIES


def test_more_processes_write_the_same_bytes(
    data_set: tuple[Path, list[None]], tmp_path: Path
) -> None:
    write_data_set(tmp_path, STUDIES, 7, processes=2)
    assert digest(tmp_path) == digest(data_set[0])


def test_labels_are_a_readers_and_the_truth_is_written_beside_them(
    data_set: tuple[Path, list[None]],
) -> None:
    labels, truths = (table(data_set[0], name) for name in ("train.csv", "phantom_truth.csv"))
    order = ["Normal/Mild", "Moderate", "Severe"]
    off = [
        abs(order.index(label[name]) - order.index(truth[name]))
        for label, truth in zip(labels, truths, strict=True)
        for name in label
        if name != "study_id"
    ]
    assert max(off) == 1
    assert 0 < np.mean(off) < 0.4


def test_the_truth_has_a_column_for_every_finding(data_set: tuple[Path, list[None]]) -> None:
    rows = table(data_set[0], "phantom_truth.csv")
    assert list(rows[0]) == list(table(data_set[0], "train.csv")[0])
    assert len(rows) == STUDIES
    for row in rows:
        plan = draw_plan(int(row["study_id"]))
        assert next(iter(row)) == "study_id"
        assert list(row)[1:3] == ["spinal_canal_stenosis_l1_l2", "spinal_canal_stenosis_l2_l3"]
        assert set(row) == {"study_id", *(f"{k.condition}_{k.level}" for k in ALL_FINDINGS)}
        for key in ALL_FINDINGS:
            value = row[f"{key.condition}_{key.level}"]
            assert value in {"Normal/Mild", "Moderate", "Severe"}
            assert value == plan.truth.severities[key].label


def test_every_series_is_described_and_in_its_folder(data_set: tuple[Path, list[None]]) -> None:
    rows = table(data_set[0], "train_series_descriptions.csv")
    assert list(rows[0]) == ["study_id", "series_id", "series_description"]
    assert len(rows) == 3 * STUDIES
    assert {row["series_description"] for row in rows} == {
        "Sagittal T1",
        "Sagittal T2/STIR",
        "Axial T2",
    }
    folders = {f"{row['study_id']}/{row['series_id']}" for row in rows}
    images = data_set[0] / "train_images"
    assert folders == {str(p.parent.relative_to(images)) for p in images.rglob("*.dcm")}


def test_coordinates_hit_the_finding_on_the_series_where_it_is_read(
    data_set: tuple[Path, list[None]],
) -> None:
    out = data_set[0]
    described = {
        row["series_id"]: row["series_description"]
        for row in table(out, "train_series_descriptions.csv")
    }
    rows = table(out, "train_label_coordinates.csv")
    assert list(rows[0]) == [
        "study_id",
        "series_id",
        "instance_number",
        "condition",
        "level",
        "x",
        "y",
    ]
    assert len(rows) == 25 * STUDIES
    levels = {level.label: level for level in Level}
    conditions = {condition.label.title(): condition for condition in Condition}
    assert "Left Neural Foraminal Narrowing" in conditions
    for row in rows:
        key = FindingKey(conditions[row["condition"]], levels[row["level"]])
        assert described[row["series_id"]] == key.condition.role.label
        folder = out / "train_images" / row["study_id"] / row["series_id"]
        d = dcmread(folder / f"{row['instance_number']}.dcm", stop_before_pixels=True)
        orientation = np.array(d.ImageOrientationPatient, float)
        down, across = map(float, d.PixelSpacing)
        hit = (
            np.array(d.ImagePositionPatient, float)
            + orientation[:3] * float(row["x"]) * across
            + orientation[3:] * float(row["y"]) * down
        )
        truth = np.array(draw_plan(int(row["study_id"])).truth.points[key])
        assert np.linalg.norm(hit - truth) < 2.6


def test_the_sample_submission_has_a_row_for_every_finding_of_every_study(
    data_set: tuple[Path, list[None]],
) -> None:
    rows = table(data_set[0], "sample_submission.csv")
    assert list(rows[0]) == ["row_id", "normal_mild", "moderate", "severe"]
    studies = [row["study_id"] for row in table(data_set[0], "train.csv")]
    assert [row["row_id"] for row in rows] == [
        key.row_id(s) for s in studies for key in ALL_FINDINGS
    ]


@pytest.mark.parametrize(("studies", "seed"), [(0, 1), (1, -1), (10**6, 1), (1, 10**9)])
def test_numbers_out_of_range_are_refused(tmp_path: Path, studies: int, seed: int) -> None:
    with pytest.raises(WrongSetting):
        write_data_set(tmp_path, studies, seed)
    assert not list(tmp_path.iterdir())
