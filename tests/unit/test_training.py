"""What the locator's networks are taught with: pictures whose truth is known, drawn or labelled."""

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
from lumbar.phantoms import locator_views as drawn
from lumbar.phantoms import write_data_set
from lumbar.phantoms.chain import Numbering
from lumbar.phantoms.dataset import PHANTOM_POINTS
from lumbar.phantoms.locator_views import Views
from lumbar.phantoms.planes import Region
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level
from lumbar.spine.keypoint_input import AXIAL, BORDER, CELL_PIXELS, DISCS, SAGITTAL
from lumbar.training.annotated_views import labelled_views, write_labelled_views
from lumbar.training.evaluate_locator import (
    Outcome,
    Truth,
    evaluate_levels,
    summary,
    write_outcomes,
)
from lumbar.training.keypoint_dataset import Album, axial_lesson, sagittal_lesson
from lumbar.training.locator_trainer import heat_loss
from lumbar.training.rsna_dataset import COORDINATES, rows_by_study
from lumbar.training.rsna_tables import labels_of, study_folders
from lumbar.training.train_locator import COURSES, rebuild_locator
from lumbar.training.view_files import write_file
from tests.stub_program import StubKeypoints

pytestmark = [
    pytest.mark.slow,
    # Keras
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

MARK = DISCS.index(Level.L3_L4)


def silent(name: str, length: int) -> Callable[[float], None]:
    return lambda done: None


def album(folder: Path, points: NDArray[np.float32], side: int, marked: tuple[int, ...]) -> Album:
    """One view of one grey slice with a bright spot at each of the ``marked`` points."""
    rows, columns = np.mgrid[:side, :side]
    image = np.full((side, side), 90, np.uint8)
    for x, y, _ in points[list(marked)]:
        image[np.hypot(columns - x, rows - y) < 5] = 255
    view = Views(image[None], np.zeros(1, np.float32), points, Numbering.USUAL, Region.LUMBAR)
    write_file(folder / "album.npz", [view])
    return Album([folder / "album.npz"])


def sagittal_points() -> NDArray[np.float32]:
    points = np.full((len(SAGITTAL.points), 3), np.nan, np.float32)
    points = np.concatenate([points, points[-len(Level) :]])  # the foramina of both sides
    points[: len(DISCS)] = [(120, 40 + 22 * k, 0) for k in range(len(DISCS))]
    return points


def brightest(picture: NDArray[np.float32]) -> NDArray[np.float64]:
    """The middle of the brightest pixels, in cells."""
    rows, columns = np.nonzero(picture >= np.percentile(picture, 99.9))
    return (np.array([np.median(columns), np.median(rows)]) - (CELL_PIXELS - 1) / 2) / CELL_PIXELS


def test_the_truth_follows_the_slice_through_every_distortion(tmp_path: Path) -> None:
    views = album(tmp_path, sagittal_points(), drawn.SAGITTAL_SIDE, (MARK,))
    off = []
    for seed in range(60):
        lesson = sagittal_lesson(np.random.default_rng(seed), views)
        if lesson.truth[MARK, 2] > 0:
            off.append(np.linalg.norm(brightest(lesson.picture) - lesson.truth[MARK, :2]))
    assert len(off) > 30
    assert np.median(off) < 1.5
    assert 0 <= lesson.picture.min() <= lesson.picture.max() <= 1


def test_nothing_is_learnt_of_points_that_nobody_marked(tmp_path: Path) -> None:
    views = album(tmp_path, sagittal_points(), drawn.SAGITTAL_SIDE, (MARK,))
    for seed in range(40):
        truth = sagittal_lesson(np.random.default_rng(seed), views).truth
        assert np.isfinite(truth).all()
        foramina = truth[len(DISCS) :]
        assert not foramina[:, 2].any()
        assert (
            not foramina[:, 3].any() or truth[:, 3].all()
        )  # all count where the picture shows no lumbar spine


def test_the_patients_left_is_on_the_right_of_an_axial_picture_however_it_is_mirrored(
    tmp_path: Path,
) -> None:
    middle = drawn.AXIAL_SIDE / 2
    points = np.array(
        [(middle, middle, 0), (middle + 9, middle - 4, 0), (middle - 9, middle - 4, 0)], np.float32
    )
    left, right = AXIAL.points.index("left_recess"), AXIAL.points.index("right_recess")
    views = album(tmp_path, points, drawn.AXIAL_SIDE, (left,))
    seen = {True: 0, False: 0}
    for seed in range(60):
        lesson = axial_lesson(np.random.default_rng(seed), views)
        if lesson.truth[:, 2].all():
            assert lesson.truth[left, 0] > lesson.truth[right, 0] + 3
            to = np.linalg.norm(brightest(lesson.picture) - lesson.truth[[left, right], :2], axis=1)
            seen[bool(to[0] < to[1])] += 1
    assert (
        min(seen.values()) > 5
    )  # the spot is the left recess as it is, the right one in the mirror


def test_the_loss_is_least_where_the_heat_is_at_the_point() -> None:
    loss = heat_loss(AXIAL)
    truth = np.array([[(20.0, 30.0, 1, 1), (40, 30, 1, 1), (5, 5, 1, 0)]], np.float32)

    def of(*places: tuple[int, int] | None) -> float:
        logits = np.zeros((1, AXIAL.cells**2 + 1, 3), np.float32)
        for k, place in enumerate(places):
            logits[0, -1 if place is None else place[1] * AXIAL.cells + place[0], k] = 12
        return float(np.asarray(loss(truth, logits))[0])

    right = of((20, 30), (40, 30), None)
    assert right < of((22, 30), (40, 30), None)
    assert right < of((20, 30), None, None)
    assert right == pytest.approx(of((20, 30), (40, 30), (50, 50)), abs=1e-4)  # of no weight


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder, 2, 9)
    return folder


def test_labels_are_where_the_phantom_has_its_findings(data: Path) -> None:
    (study, _), rows = study_folders(data), rows_by_study(data / COORDINATES)
    labels = labels_of(study, find_instances(study, study)[0], rows[study.name])
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


def test_a_label_on_a_slice_that_is_not_there_is_left_out(data: Path) -> None:
    (study, _), rows = study_folders(data), rows_by_study(data / COORDINATES)
    torn = [{**rows[study.name][0], "instance_number": "5046"}, *rows[study.name][1:]]
    assert len(labels_of(study, find_instances(study, study)[0], torn)) == len(ALL_FINDINGS) - 1


def test_labelled_slices_become_views_with_their_points_known_and_the_others_not(
    data: Path,
) -> None:
    (study, _), rows = study_folders(data), rows_by_study(data / COORDINATES)
    views = labelled_views(study, rows[study.name], {})
    assert [len(views[kind]) for kind in ("sagittal", "axial")] == [2, 5]
    known = [
        set(np.flatnonzero(np.isfinite(view.points).all(axis=1)).tolist())
        for view in views["sagittal"]
    ]
    canal, foramina = set(range(2, 7)), set(range(8, 18))
    assert sorted(known, key=len) == [canal, foramina]
    for view in views["sagittal"]:
        (of,) = [
            points for points in (canal, foramina) if np.isfinite(view.points[[*points]]).all()
        ]
        x, y, across = view.points[[*of]].T
        assert np.all((x > 20) & (x < drawn.SAGITTAL_SIDE - 20))
        assert np.all(np.diff(y.reshape(-1, 5)) > 10)  # downwards from level to level
        assert np.all((across >= view.places.min() - 3) & (across <= view.places.max() + 3))
    for view in views["axial"]:
        assert np.isnan(view.points[0]).all()
        assert view.points[1, 0] > view.points[2, 0] + 5  # the left recess on the picture's right


def test_labelled_views_are_kept_by_network_and_can_be_learnt_from(
    data: Path, tmp_path: Path
) -> None:
    files = write_labelled_views(tmp_path, data, silent)
    assert {kind: len(own) for kind, own in files.items()} == {"sagittal": 2, "axial": 2}
    rng = np.random.default_rng(1)
    for kind, lesson in (("sagittal", sagittal_lesson), ("axial", axial_lesson)):
        views = Album(files[kind])
        for _ in range(10):
            drill = lesson(rng, views)
            assert np.isfinite(drill.truth).all()
            assert np.isfinite(drill.picture).all()


def test_a_folder_without_labels_is_named(tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match="RSNA 2024 layout"):
        write_labelled_views(tmp_path, tmp_path, silent)


def test_one_network_can_be_made_again_and_the_others_stay(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "locator"
    shutil.copytree(FOLDER, out)
    shipped = read_locator_description(out)
    rebuild_locator(out, tmp_path / "views", silent, kinds=["border"], share=0.0005, seed=2)
    made = read_locator_description(out)
    assert {kind for kind in FRAMINGS if made[kind] != shipped[kind]} == {"border"}
    assert made["border"]["recipe"] == {"patients": 2, "steps": 2, "batch": 64, "seed": 2}
    assert made["border"]["trained_on"] == "synthetic"
    locator = load_locator(out)
    assert locator.sha256 != load_locator(FOLDER).sha256
    assert locator.border(np.zeros((2, BORDER.side, BORDER.side), np.float32)).shape == (2,)


def test_the_shipped_networks_were_made_by_the_recipes_of_this_code() -> None:
    assert {
        kind: stated["recipe"] for kind, stated in read_locator_description(FOLDER).items()
    } == {kind: asdict(course.recipe) for kind, course in COURSES.items()}


def test_labelled_studies_are_learnt_from_beside_the_drawn_ones(data: Path, tmp_path: Path) -> None:
    rebuild_locator(tmp_path, tmp_path / "views", silent, kinds=["axial"], data=data, share=0.0005)
    assert read_locator_description(tmp_path)["axial"]["trained_on"] == "clinical"
    assert len(list((tmp_path / "views" / "labelled" / "axial").iterdir())) == 2
    with pytest.raises(WrongSetting, match="missing or damaged"):  # a locator needs all three
        load_locator(tmp_path)


def test_evaluation_holds_what_is_found_against_the_truth(data: Path) -> None:
    outcomes = evaluate_levels(data, StubKeypoints(), lambda count: None)
    assert [o.study for o in outcomes] == ["900001", "900002"]
    for outcome in outcomes:
        assert outcome.refused is None
        assert outcome.errors is not None
        assert set(outcome.errors) == set(ALL_FINDINGS)
        assert (
            3 < max(outcome.errors.values()) < 60
        )  # the stub sees a spine in the middle of every picture


def outcome(
    errors: float | None, numbering: str = "usual", right: bool = True, doubted: bool = False
) -> Outcome:
    canal = {FindingKey(Condition.SPINAL_CANAL_STENOSIS, level): np.zeros(3) for level in Level}
    return Outcome(
        "1",
        Truth(canal, {}, numbering),
        refused="no lumbar spine" if errors is None else None,
        caveats=("uncertain",) if doubted else (),
        errors=None if errors is None else dict.fromkeys(canal, errors),
        named=None if errors is None else dict.fromkeys(Level, right),
        sides={},
    )


def test_the_figures_count_each_study_where_it_belongs() -> None:
    figures = {
        name: (value, of)
        for name, value, of in summary(
            [
                *(outcome(1.0) for _ in range(6)),
                outcome(1.0, doubted=True),
                outcome(None),
                outcome(35.0, right=False, doubted=True),
                outcome(35.0, right=False),
                outcome(2.0, "six_lumbar", doubted=True),
                outcome(2.0, "six_lumbar"),
            ]
        )
    }
    assert figures["studies of a usual lumbar spine that were located"] == ("90.0 %", 10)
    assert figures["levels named right"] == ("77.8 %", 45)
    assert figures["false flags (doubted or refused, though right)"] == ("25.0 %", 8)
    assert figures["wrongly named studies that are flagged"] == ("50.0 %", 2)
    assert figures["transitional vertebrae that are flagged"] == ("50.0 %", 2)
    assert figures["wrong or transitional, flagged"] == ("50.0 %", 4)


def test_a_line_a_study_can_be_written(data: Path, tmp_path: Path) -> None:
    write_outcomes(
        tmp_path / "studies.csv", evaluate_levels(data, StubKeypoints(), lambda count: None)
    )
    with (tmp_path / "studies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["study_id"] for row in rows] == ["900001", "900002"]
    assert all(float(row["worst_mm"]) > 3 and row["build"] == "usual" for row in rows)
