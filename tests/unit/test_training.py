"""The training examples of the locator's networks, from phantoms and annotated studies."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lumbar.dicom.discover import find_instances
from lumbar.errors import WrongSetting
from lumbar.networks.locator import FOLDER, FRAMINGS, load_locator, read_locator_description
from lumbar.phantoms import locator_views, write_data_set
from lumbar.phantoms.chain import Numbering
from lumbar.phantoms.dataset import PHANTOM_POINTS
from lumbar.phantoms.locator_views import Views
from lumbar.phantoms.planes import Region
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level
from lumbar.spine.keypoint_input import AXIAL, BORDER, CELL_PIXELS, DISCS, SAGITTAL
from lumbar.training.annotated_views import annotated_views, write_annotated_views
from lumbar.training.evaluate_locator import (
    Outcome,
    Truth,
    evaluate_levels,
    summary,
    write_outcomes,
)
from lumbar.training.keypoint_dataset import ViewDataset, axial_example, sagittal_example
from lumbar.training.locator_trainer import heat_loss
from lumbar.training.rsna_dataset import COORDINATES, rows_by_study
from lumbar.training.rsna_tables import annotated_points, study_folders
from lumbar.training.train_locator import TRAINING_PLANS, train_locator
from lumbar.training.view_files import write_file
from tests.stub_networks import StubKeypoints

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # Keras

POINT = DISCS.index(Level.L3_L4)


def silent(name: str, length: int) -> Callable[[float], None]:
    return lambda count: None


def dataset(
    folder: Path, points: NDArray[np.float32], side: int, annotated: tuple[int, ...]
) -> ViewDataset:
    """One view of one grey slice with a bright spot at each of the ``annotated`` points."""
    rows, columns = np.mgrid[:side, :side]
    image = np.full((side, side), 90, np.uint8)
    for x, y, _ in points[list(annotated)]:
        image[np.hypot(columns - x, rows - y) < 5] = 255
    view = Views(image[None], np.zeros(1, np.float32), points, Numbering.USUAL, Region.LUMBAR)
    write_file(folder / "views.npz", [view])
    return ViewDataset([folder / "views.npz"])


def sagittal_points() -> NDArray[np.float32]:
    points = np.full((len(SAGITTAL.points), 3), np.nan, np.float32)
    points = np.concatenate([points, points[-len(Level) :]])  # the foramina of both sides
    points[: len(DISCS)] = [(120, 40 + 22 * k, 0) for k in range(len(DISCS))]
    return points


def brightest(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """The centre of the brightest pixels, in cells."""
    rows, columns = np.nonzero(image >= np.percentile(image, 99.9))
    return (np.array([np.median(columns), np.median(rows)]) - (CELL_PIXELS - 1) / 2) / CELL_PIXELS


def test_targets_follow_the_slice_through_augmentation(tmp_path: Path) -> None:
    views = dataset(tmp_path, sagittal_points(), locator_views.SAGITTAL_SIDE, (POINT,))
    off = []
    for seed in range(60):
        example = sagittal_example(np.random.default_rng(seed), views)
        if example.target[POINT, 2] > 0:
            off.append(np.linalg.norm(brightest(example.image) - example.target[POINT, :2]))
    assert len(off) > 30
    assert np.median(off) < 1.5
    assert 0 <= example.image.min() <= example.image.max() <= 1


def test_points_that_are_not_annotated_have_no_weight(tmp_path: Path) -> None:
    views = dataset(tmp_path, sagittal_points(), locator_views.SAGITTAL_SIDE, (POINT,))
    for seed in range(40):
        target = sagittal_example(np.random.default_rng(seed), views).target
        assert np.isfinite(target).all()
        foramina = target[len(DISCS) :]
        assert not foramina[:, 2].any()
        # All have weight where the image shows no lumbar spine.
        assert not foramina[:, 3].any() or target[:, 3].all()


def test_the_patients_left_is_on_the_right_of_mirrored_axial_images_too(
    tmp_path: Path,
) -> None:
    middle = locator_views.AXIAL_SIDE / 2
    points = np.array(
        [(middle, middle, 0), (middle + 9, middle - 4, 0), (middle - 9, middle - 4, 0)], np.float32
    )
    left, right = AXIAL.points.index("left_recess"), AXIAL.points.index("right_recess")
    views = dataset(tmp_path, points, locator_views.AXIAL_SIDE, (left,))
    counts = {True: 0, False: 0}
    for seed in range(60):
        example = axial_example(np.random.default_rng(seed), views)
        if example.target[:, 2].all():
            assert example.target[left, 0] > example.target[right, 0] + 3
            to = np.linalg.norm(
                brightest(example.image) - example.target[[left, right], :2], axis=1
            )
            counts[bool(to[0] < to[1])] += 1
    # The spot is the left recess as it is, the right one when mirrored.
    assert min(counts.values()) > 5


def test_the_loss_is_lowest_with_the_heat_at_the_point() -> None:
    loss = heat_loss(AXIAL)
    truth = np.array([[(20.0, 30.0, 1, 1), (40, 30, 1, 1), (5, 5, 1, 0)]], np.float32)

    def loss_of(*cells: tuple[int, int] | None) -> float:
        logits = np.zeros((1, AXIAL.cells**2 + 1, 3), np.float32)
        for k, cell in enumerate(cells):
            logits[0, -1 if cell is None else cell[1] * AXIAL.cells + cell[0], k] = 12
        return float(np.asarray(loss(truth, logits))[0])

    right = loss_of((20, 30), (40, 30), None)
    assert right < loss_of((22, 30), (40, 30), None)
    assert right < loss_of((20, 30), None, None)
    assert right == pytest.approx(loss_of((20, 30), (40, 30), (50, 50)), abs=1e-4)  # of no weight


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder, 2, 9)
    return folder


@pytest.mark.slow
def test_labels_are_where_the_phantom_has_its_findings(data: Path) -> None:
    (study, _), rows = study_folders(data), rows_by_study(data / COORDINATES)
    labels = annotated_points(study, find_instances(study, study)[0], rows[study.name])
    assert {label.key for label in labels} == set(ALL_FINDINGS)
    exact = {
        FindingKey(Condition(row["condition"]), Level(row["level"])): np.array(
            [float(row[c]) for c in "xyz"]
        )
        for row in rows_by_study(data / PHANTOM_POINTS)[study.name]
    }
    for label in labels:
        off = label.point - exact[label.key]
        assert np.linalg.norm(off - (off @ label.header.normal) * label.header.normal) < 0.1
        assert abs(label.header.distance(exact[label.key])) < 3


@pytest.mark.slow
def test_an_annotation_on_a_missing_slice_is_left_out(data: Path) -> None:
    (study, _), rows = study_folders(data), rows_by_study(data / COORDINATES)
    incomplete = [{**rows[study.name][0], "instance_number": "5046"}, *rows[study.name][1:]]
    assert (
        len(annotated_points(study, find_instances(study, study)[0], incomplete))
        == len(ALL_FINDINGS) - 1
    )


@pytest.mark.slow
def test_annotated_slices_become_views_with_only_their_points_known(
    data: Path,
) -> None:
    (study, _), rows = study_folders(data), rows_by_study(data / COORDINATES)
    views = annotated_views(study, rows[study.name], {})
    assert [len(views[kind]) for kind in ("sagittal", "axial")] == [2, 5]
    known_points = [
        set(np.flatnonzero(np.isfinite(view.points).all(axis=1)).tolist())
        for view in views["sagittal"]
    ]
    canal, foramina = set(range(2, 7)), set(range(8, 18))
    assert sorted(known_points, key=len) == [canal, foramina]
    for view in views["sagittal"]:
        (indices,) = [
            points for points in (canal, foramina) if np.isfinite(view.points[[*points]]).all()
        ]
        x, y, across = view.points[[*indices]].T
        assert np.all((x > 20) & (x < locator_views.SAGITTAL_SIDE - 20))
        assert np.all(np.diff(y.reshape(-1, 5)) > 10)  # downwards from level to level
        assert np.all((across >= view.positions.min() - 3) & (across <= view.positions.max() + 3))
    for view in views["axial"]:
        assert np.isnan(view.points[0]).all()
        assert view.points[1, 0] > view.points[2, 0] + 5  # the left recess on the picture's right


@pytest.mark.slow
def test_annotated_views_are_written_by_network_and_give_examples(
    data: Path, tmp_path: Path
) -> None:
    files = write_annotated_views(tmp_path, data, silent)
    assert {kind: len(group) for kind, group in files.items()} == {"sagittal": 2, "axial": 2}
    rng = np.random.default_rng(1)
    for kind, sample in (("sagittal", sagittal_example), ("axial", axial_example)):
        views = ViewDataset(files[kind])
        for _ in range(10):
            example = sample(rng, views)
            assert np.isfinite(example.target).all()
            assert np.isfinite(example.image).all()


def test_a_folder_without_labels_is_named(tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match="RSNA 2024 layout"):
        write_annotated_views(tmp_path, tmp_path, silent)


@pytest.mark.slow
def test_one_network_can_be_trained_again_and_the_others_stay(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "locator"
    shutil.copytree(FOLDER, out)
    shipped = read_locator_description(out)
    train_locator(out, tmp_path / "views", silent, kinds=["border"], share=0.0005, seed=2)
    description = read_locator_description(out)
    assert {kind for kind in FRAMINGS if description[kind] != shipped[kind]} == {"border"}
    assert description["border"]["recipe"] == {"patients": 2, "steps": 2, "batch": 64, "seed": 2}
    assert description["border"]["trained_on"] == "synthetic"
    locator = load_locator(out)
    assert locator.sha256 != load_locator(FOLDER).sha256
    assert locator.border(np.zeros((2, BORDER.side, BORDER.side), np.float32)).shape == (2,)


def test_the_shipped_networks_were_made_by_the_recipes_of_this_code() -> None:
    assert {
        kind: description["recipe"]
        for kind, description in read_locator_description(FOLDER).items()
    } == {kind: asdict(plan.recipe) for kind, plan in TRAINING_PLANS.items()}


@pytest.mark.slow
def test_annotated_studies_are_trained_on_besides_phantoms(data: Path, tmp_path: Path) -> None:
    train_locator(tmp_path, tmp_path / "views", silent, kinds=["axial"], data=data, share=0.0005)
    assert read_locator_description(tmp_path)["axial"]["trained_on"] == "clinical"
    assert len(list((tmp_path / "views" / "labelled" / "axial").iterdir())) == 2
    with pytest.raises(WrongSetting, match="missing or damaged"):  # a locator needs all three
        load_locator(tmp_path)


@pytest.mark.slow
def test_evaluation_compares_located_points_with_the_truth(data: Path) -> None:
    outcomes = evaluate_levels(data, StubKeypoints(), lambda count: None)
    assert [o.study for o in outcomes] == ["900001", "900002"]
    for outcome in outcomes:
        assert outcome.refused is None
        assert outcome.errors is not None
        assert set(outcome.errors) == set(ALL_FINDINGS)
        # The stub finds a spine in the centre of every image.
        assert 3 < max(outcome.errors.values()) < 60


def outcome(
    errors: float | None, numbering: str = "usual", correct: bool = True, caveat: bool = False
) -> Outcome:
    canal = {FindingKey(Condition.SPINAL_CANAL_STENOSIS, level): np.zeros(3) for level in Level}
    return Outcome(
        "1",
        Truth(canal, {}, numbering),
        refused="no lumbar spine" if errors is None else None,
        caveats=("uncertain",) if caveat else (),
        errors=None if errors is None else dict.fromkeys(canal, errors),
        named=None if errors is None else dict.fromkeys(Level, correct),
        sides={},
    )


def test_each_study_counts_in_the_right_figures() -> None:
    figures = {
        name: (value, count)
        for name, value, count in summary(
            [
                *(outcome(1.0) for _ in range(6)),
                outcome(1.0, caveat=True),
                outcome(None),
                outcome(35.0, correct=False, caveat=True),
                outcome(35.0, correct=False),
                outcome(2.0, "six_lumbar", caveat=True),
                outcome(2.0, "six_lumbar"),
            ]
        )
    }
    assert figures["studies of a usual lumbar spine that were located"] == ("90.0 %", 10)
    assert figures["levels named correctly"] == ("77.8 %", 45)
    assert figures["false flags (caveat or refused, though correct)"] == ("25.0 %", 8)
    assert figures["wrongly named studies that are flagged"] == ("50.0 %", 2)
    assert figures["transitional vertebrae that are flagged"] == ("50.0 %", 2)
    assert figures["wrong or transitional, flagged"] == ("50.0 %", 4)


@pytest.mark.slow
def test_one_line_per_study_can_be_written(data: Path, tmp_path: Path) -> None:
    write_outcomes(
        tmp_path / "studies.csv", evaluate_levels(data, StubKeypoints(), lambda count: None)
    )
    with (tmp_path / "studies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["study_id"] for row in rows] == ["900001", "900002"]
    assert all(float(row["worst_mm"]) > 3 and row["build"] == "usual" for row in rows)
