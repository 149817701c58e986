"""The disc levels on phantoms with known truth, on real slices where there are some, and what is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lumbar.dicom.folder import find_instances
from lumbar.dicom.reader import SliceReader
from lumbar.errors import NotAnalysable, NotDicom
from lumbar.phantoms import PhantomTruth, write_study
from lumbar.spine.anatomy import Condition, FindingKey, Level, Role
from lumbar.spine.levels import Levels, locate_levels
from lumbar.spine.roles import Roles, assign_roles
from lumbar.spine.slices import SliceHeader, Vector

SEEDS = (0, 6, 12, 39)  # two of them STIR; a chain of moist discs, and spines that bend to a side
Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Study:
    slices: SliceReader
    truth: PhantomTruth

    @property
    def roles(self) -> Roles:
        return assign_roles(self.slices.headers)

    @property
    def sagittal(self) -> tuple[SliceHeader, ...]:
        return self.roles.stacks[Role.SAGITTAL_T2][0].slices

    def point(self, condition: Condition, level: Level) -> Vector:
        return np.array(self.truth.points[FindingKey(condition, level)])


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Study]:
    made = []
    for seed in SEEDS:
        folder = tmp_path_factory.mktemp(f"phantom-{seed}")
        truth = write_study(folder, seed)
        made.append(Study(read_all(folder), truth))
    return made


def read_all(path: Path) -> SliceReader:
    instances, _ = find_instances(path, path)
    return SliceReader(instances)


def errors(levels: Levels, study: Study) -> Vector:
    """Distances in mm from the true middles of the dural sac."""
    return np.array([np.linalg.norm(levels.canal[v] - study.point(Condition.SPINAL_CANAL_STENOSIS, v)) for v in Level])


def changed(study: Study, change: Callable[[Picture], Picture]) -> Callable[[SliceHeader], Picture]:
    return lambda header: np.ascontiguousarray(change(study.slices.read(header)))


def test_every_level_is_named_right_and_found_within_five_millimetres(studies: list[Study]) -> None:
    for study in studies:
        levels = locate_levels(study.roles, study.slices.read)
        assert errors(levels, study).max() <= 5
        assert not any("uncertain" in note for note in levels.notes)
        assert 0 < levels.confidence <= 1


def test_levels_run_from_the_head_downwards(studies: list[Study]) -> None:
    canal = locate_levels(studies[0].roles, studies[0].slices.read).canal
    assert list(canal) == list(Level)
    assert all(np.diff([point[2] for point in canal.values()]) < -20)


def test_the_canal_lies_between_the_left_recess_and_the_right(studies: list[Study]) -> None:
    for study in studies:
        for level, point in locate_levels(study.roles, study.slices.read).canal.items():
            left = study.point(Condition.LEFT_SUBARTICULAR_STENOSIS, level)
            right = study.point(Condition.RIGHT_SUBARTICULAR_STENOSIS, level)
            assert right[0] + 5 < point[0] < left[0] - 5


def test_the_source_is_a_slice_through_the_canal(studies: list[Study]) -> None:
    for study in studies:
        levels = locate_levels(study.roles, study.slices.read)
        assert levels.source in study.sagittal
        assert levels.source is not None
        assert abs(levels.source.distance(study.point(Condition.SPINAL_CANAL_STENOSIS, Level.L3_L4))) < 7


def test_a_damaged_slice_does_not_stop_it(studies: list[Study]) -> None:
    study = studies[0]
    damaged = study.sagittal[len(study.sagittal) // 2]

    def read(header: SliceHeader) -> Picture:
        if header == damaged:
            raise NotDicom("the pixels are cut short")
        return study.slices.read(header)

    levels = locate_levels(study.roles, read)
    assert errors(levels, study).max() <= 5
    assert levels.source != damaged


def test_a_series_damaged_throughout_is_refused_with_the_reason(studies: list[Study]) -> None:
    def read(header: SliceHeader) -> Picture:
        raise NotDicom("the pixels are cut short")

    with pytest.raises(NotAnalysable, match="the pixels are cut short"):
        locate_levels(studies[0].roles, read)


def test_without_sagittal_t2_it_says_so(studies: list[Study]) -> None:
    with pytest.raises(NotAnalysable, match="no sagittal T2/STIR series was received"):
        locate_levels(Roles({}, ()), studies[0].slices.read)


def test_a_single_midline_slice_is_enough(studies: list[Study]) -> None:
    study = studies[0]
    alone = study.sagittal[len(study.sagittal) // 2]
    levels = locate_levels(assign_roles([alone]), study.slices.read)
    assert errors(levels, study).max() <= 8
    assert any("mid-line" in note for note in levels.notes)
    assert any("numbering is uncertain" in note for note in levels.notes)
    assert all(abs(alone.distance(point)) < 0.01 for point in levels.canal.values())


def test_a_single_slice_beside_the_canal_gives_levels_but_no_midline(studies: list[Study]) -> None:
    study = studies[2]
    alone = study.sagittal[len(study.sagittal) // 2 - 3]
    levels = locate_levels(assign_roles([alone]), study.slices.read)
    assert any("the dural sac was not seen" in note for note in levels.notes)
    for level, point in levels.canal.items():
        assert np.linalg.norm((point - study.point(Condition.SPINAL_CANAL_STENOSIS, level))[1:]) < 8


def mirrored(image: Picture) -> Picture:
    return image[:, ::-1]


def turned(image: Picture) -> Picture:
    return image[::-1, ::-1]


def thorax(image: Picture) -> Picture:
    return np.where(np.arange(len(image))[:, None] < len(image) // 2, image, 0)


def noise(image: Picture) -> Picture:
    return np.random.default_rng(int(image.sum()) % 1000).random(image.shape, dtype=np.float32)


def nothing(image: Picture) -> Picture:
    return np.zeros_like(image)


@pytest.mark.parametrize("change", [mirrored, turned, thorax, noise, nothing])
def test_what_is_no_upright_lumbar_spine_is_refused(studies: list[Study], change: Callable[[Picture], Picture]) -> None:
    for study in studies:
        with pytest.raises(NotAnalysable, match="no lumbar spine was found on the sagittal T2 images"):
            locate_levels(study.roles, changed(study, change))


def test_discs_that_fit_much_better_upside_down_are_refused(studies: list[Study]) -> None:
    with pytest.raises(NotAnalysable, match="no lumbar spine was found"):
        locate_levels(studies[0].roles, changed(studies[0], np.flipud))


def test_a_cervical_spine_that_says_it_is_lumbar_is_refused(real_files: Path) -> None:
    slices = read_all(real_files / "not-lumbar" / "cervical-says-lspine.dcm")
    with pytest.raises(NotAnalysable, match="no lumbar spine was found on the sagittal T2 images"):
        locate_levels(assign_roles(slices.headers), slices.read)


def test_a_real_parasagittal_slice_gives_points_just_behind_its_discs(real_files: Path) -> None:
    slices = read_all(real_files / "lumbar" / "hitachi-0.3T-parasagittal-t2.dcm")
    levels = locate_levels(assign_roles(slices.headers), slices.read)
    # The discs' back edges, read off the picture by eye: column and row.
    edges = [(160, 71), (156, 99.5), (151, 127), (152, 155), (155, 179)]
    for point, edge in zip(levels.canal.values(), edges, strict=True):
        assert np.linalg.norm(np.subtract(slices.headers[0].to_pixel(point), edge)) * 1.328 < 8
    assert any("the dural sac was not seen" in note for note in levels.notes)
