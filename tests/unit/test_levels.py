"""Disc levels on phantoms with known truth and on real slices, and which studies are refused."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lumbar.dicom.discover import find_instances
from lumbar.dicom.slice_reader import SliceReader
from lumbar.errors import NotAnalysable, NotDicom
from lumbar.phantoms import PhantomTruth, write_study
from lumbar.phantoms.chain import Build, Numbering
from lumbar.phantoms.planes import Region
from lumbar.phantoms.scanner import HELD_OUT
from lumbar.phantoms.study import Kind
from lumbar.spine.anatomy import Condition, FindingKey, Level, Role
from lumbar.spine.keypoint_input import KeypointDetector
from lumbar.spine.levels import Levels
from lumbar.spine.locate_levels import locate_levels
from lumbar.spine.roles import Roles, assign_roles
from lumbar.spine.slices import SliceHeader, Vector

pytestmark = pytest.mark.slow

SEEDS = (6, 12, 21, 39)
UNSEEN = [
    Kind(scanner) for scanner in HELD_OUT
]  # scanner families not used in training the locator
Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Study:
    slices: SliceReader
    truth: PhantomTruth

    @cached_property
    def roles(self) -> Roles:
        return assign_roles(self.slices.headers)

    @cached_property
    def sagittal(self) -> tuple[SliceHeader, ...]:
        return self.roles.stacks[Role.SAGITTAL_T2][0].slices

    def point(self, condition: Condition, level: Level) -> Vector:
        return np.array(self.truth.points[FindingKey(condition, level)])


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Study]:
    studies = []
    for n, seed in enumerate(SEEDS):
        folder = tmp_path_factory.mktemp(f"phantom-{seed}")
        truth = write_study(folder, seed, kind=UNSEEN[n % 2])
        studies.append(Study(read_all(folder), truth))
    return studies


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Region], SliceReader]:
    """A phantom of another region, made once."""

    @cache
    def of(region: Region) -> SliceReader:
        folder = tmp_path_factory.mktemp(f"phantom-{region}")
        write_study(folder, 5, kind=Kind(HELD_OUT[0], region=region))
        return read_all(folder)

    return of


@pytest.fixture(scope="session")
def locate(keypoints: KeypointDetector) -> Callable[..., Levels]:
    return partial(locate_levels, keypoints=keypoints)


def read_all(path: Path) -> SliceReader:
    instances, _ = find_instances(path, path)
    return SliceReader(instances)


def errors(levels: Levels, study: Study) -> Vector:
    """Distances in mm from the true middles of the dural sac."""
    return np.array(
        [
            np.linalg.norm(levels.canal[v] - study.point(Condition.SPINAL_CANAL_STENOSIS, v))
            for v in Level
        ]
    )


def changed(study: Study, change: Callable[[Picture], Picture]) -> Callable[[SliceHeader], Picture]:
    return lambda header: np.ascontiguousarray(change(study.slices.read(header)))


def test_every_level_is_named_correctly_and_located_within_five_millimetres(
    studies: list[Study], locate: Callable[..., Levels]
) -> None:
    for study in studies:
        levels = locate(study.roles, study.slices.read)
        assert errors(levels, study).max() <= 5
        assert not levels.numbering_uncertain
        assert 0 < levels.confidence <= 1


@pytest.mark.parametrize("seed", [5500020, 5500045, 5500026])
def test_a_crooked_or_small_spine_is_followed_from_side_to_side(
    tmp_path: Path, seed: int, locate: Callable[..., Levels]
) -> None:
    truth = write_study(tmp_path, seed, kind=Kind(HELD_OUT[seed % 2], build=Build.EXTREME))
    slices = read_all(tmp_path)
    study = Study(slices, truth)
    assert errors(locate(study.roles, slices.read), study).max() <= 6
    across = [study.point(Condition.SPINAL_CANAL_STENOSIS, level)[0] for level in Level]
    assert max(across) - min(across) > 10


def test_levels_run_from_the_head_downwards(
    studies: list[Study], locate: Callable[..., Levels]
) -> None:
    canal = locate(studies[0].roles, studies[0].slices.read).canal
    assert list(canal) == list(Level)
    assert all(np.diff([point[2] for point in canal.values()]) < -20)


def test_the_canal_lies_between_the_left_recess_and_the_right(
    studies: list[Study], locate: Callable[..., Levels]
) -> None:
    for study in studies:
        for level, point in locate(study.roles, study.slices.read).canal.items():
            left = study.point(Condition.LEFT_SUBARTICULAR_STENOSIS, level)
            right = study.point(Condition.RIGHT_SUBARTICULAR_STENOSIS, level)
            assert right[0] + 5 < point[0] < left[0] - 5


def test_the_source_is_a_slice_through_the_canal(
    studies: list[Study], locate: Callable[..., Levels]
) -> None:
    for study in studies:
        levels = locate(study.roles, study.slices.read)
        assert levels.source in study.sagittal
        assert (
            abs(levels.source.distance(study.point(Condition.SPINAL_CANAL_STENOSIS, Level.L3_L4)))
            < 7
        )


def test_a_damaged_slice_does_not_stop_the_location(
    studies: list[Study], locate: Callable[..., Levels]
) -> None:
    study = studies[0]
    damaged = study.sagittal[len(study.sagittal) // 2]

    def read(header: SliceHeader) -> Picture:
        if header == damaged:
            raise NotDicom("the pixels are cut short")
        return study.slices.read(header)

    levels = locate(study.roles, read)
    assert errors(levels, study).max() <= 5
    assert levels.source != damaged


def test_a_series_damaged_throughout_is_refused_with_the_reason(
    studies: list[Study], locate: Callable[..., Levels]
) -> None:
    def read(header: SliceHeader) -> Picture:
        raise NotDicom("the pixels are cut short")

    with pytest.raises(NotAnalysable, match="the pixels are cut short"):
        locate(studies[0].roles, read)


def test_levels_on_one_slice_of_a_damaged_series_carry_a_caveat(
    studies: list[Study], locate: Callable[..., Levels]
) -> None:
    study = studies[0]
    readable = study.sagittal[len(study.sagittal) // 2]

    def read(header: SliceHeader) -> Picture:
        if header != readable:
            raise NotDicom("the pixels are cut short")
        return study.slices.read(header)

    levels = locate(study.roles, read)
    assert any("too few slices" in caveat for caveat in levels.caveats)
    assert any("could not be read" in note for note in levels.notes)


def test_a_t2_series_damaged_throughout_leaves_the_t1(
    studies: list[Study], locate: Callable[..., Levels]
) -> None:
    study = studies[0]

    def read(header: SliceHeader) -> Picture:
        if header in study.sagittal:
            raise NotDicom("the pixels are cut short")
        return study.slices.read(header)

    levels = locate(study.roles, read)
    assert errors(levels, study).max() <= 8
    assert "Sagittal T1" in levels.notes[0]


@pytest.mark.parametrize("region", [Region.NECK, Region.THORAX])
def test_the_lumbar_station_of_a_whole_spine_is_selected(
    studies: list[Study],
    elsewhere: Callable[[Region], SliceReader],
    region: Region,
    locate: Callable[..., Levels],
) -> None:
    other = elsewhere(region)
    stacks = {
        role: (*assign_roles(other.headers).stacks[role], *studies[0].roles.stacks[role])
        for role in (Role.SAGITTAL_T2, Role.SAGITTAL_T1)
    }

    def read(header: SliceHeader) -> Picture:
        return (other if header in other.headers else studies[0].slices).read(header)

    levels = locate(Roles(stacks, ()), read)
    assert levels.source in studies[0].sagittal
    assert errors(levels, studies[0]).max() <= 5


def test_a_study_without_sagittal_t2_is_refused_with_the_reason(
    studies: list[Study], locate: Callable[..., Levels]
) -> None:
    with pytest.raises(NotAnalysable, match="no sagittal T1 or T2/STIR series was received"):
        locate(Roles({}, ()), studies[0].slices.read)


def test_a_single_midline_slice_is_enough(
    studies: list[Study], locate: Callable[..., Levels]
) -> None:
    study = studies[2]
    alone = study.sagittal[len(study.sagittal) // 2]
    levels = locate(assign_roles([alone]), study.slices.read)
    for level, point in levels.canal.items():
        assert np.linalg.norm((point - study.point(Condition.SPINAL_CANAL_STENOSIS, level))[1:]) < 6
    assert len(levels.canal) == 5
    assert any("mid-line" in note for note in levels.notes)
    assert levels.numbering_uncertain
    assert all(abs(alone.distance(point)) < 0.01 for point in levels.canal.values())


def test_a_single_slice_beside_the_canal_gives_levels_but_no_midline(
    studies: list[Study], locate: Callable[..., Levels]
) -> None:
    study = studies[1]
    alone = study.sagittal[len(study.sagittal) // 2 - 3]
    levels = locate(assign_roles([alone]), study.slices.read)
    assert not levels.midline_known
    assert any("the dural sac is not seen" in note for note in levels.notes)
    for level, point in levels.canal.items():
        assert np.linalg.norm((point - study.point(Condition.SPINAL_CANAL_STENOSIS, level))[1:]) < 8


def mirrored(image: Picture) -> Picture:
    return image[:, ::-1]


def turned(image: Picture) -> Picture:
    return image[::-1, ::-1]


def upper_half(image: Picture) -> Picture:
    return np.where(np.arange(len(image))[:, None] < len(image) // 2, image, 0)


def noise(image: Picture) -> Picture:
    return np.random.default_rng(int(image.sum()) % 1000).random(image.shape, dtype=np.float32)


def clouds(image: Picture) -> Picture:
    return cv2.GaussianBlur(noise(image), (0, 0), len(image) / 30).astype(np.float32)


def ladder(image: Picture) -> Picture:
    """Rungs as far apart as discs."""
    rows, columns = np.mgrid[: len(image), : len(image)] / len(image)
    return ((np.sin(rows * 50) > 0) * (abs(columns - 0.5) < 0.08) + 0.1).astype(np.float32)


def quilt(image: Picture) -> Picture:
    """The patches of the picture in another order."""
    side = len(image) // 8
    patches = [
        image[y : y + side, x : x + side]
        for y in range(0, 8 * side, side)
        for x in range(0, 8 * side, side)
    ]
    order = np.random.default_rng(1).permutation(64)
    return np.block([[patches[i] for i in row] for row in order.reshape(8, 8)])


def nothing(image: Picture) -> Picture:
    return np.zeros_like(image)


@pytest.mark.parametrize(
    "change",
    [mirrored, turned, np.flipud, np.transpose, upper_half, noise, clouds, ladder, quilt, nothing],
)
def test_an_image_other_than_an_upright_lumbar_spine_is_refused(
    studies: list[Study], change: Callable[[Picture], Picture], locate: Callable[..., Levels]
) -> None:
    for study in studies:
        with pytest.raises(NotAnalysable, match="no lumbar spine was found"):
            locate(study.roles, changed(study, change))


def test_a_cervical_spine_described_as_lumbar_is_refused(
    real_files: Path, locate: Callable[..., Levels]
) -> None:
    slices = read_all(real_files / "not-lumbar" / "cervical-says-lspine.dcm")
    with pytest.raises(NotAnalysable, match="no lumbar spine was found"):
        locate(assign_roles(slices.headers), slices.read)


def test_a_real_parasagittal_slice_gives_points_behind_its_discs(
    real_files: Path, locate: Callable[..., Levels]
) -> None:
    slices = read_all(real_files / "lumbar" / "hitachi-0.3T-parasagittal-t2.dcm")
    levels = locate(assign_roles(slices.headers), slices.read)
    # The discs' back edges, read from the picture by eye: column and row.
    edges = [(160, 71), (156, 99.5), (151, 127), (152, 155), (155, 179)]
    for point, edge in zip(levels.canal.values(), edges, strict=True):
        behind, below = np.subtract(slices.headers[0].to_pixel(point), edge) * 1.328
        assert 0 < behind < 16
        assert abs(below) < 12
    assert not levels.midline_known


@pytest.mark.parametrize("region", [Region.THORAX, Region.NECK, Region.PELVIS])
def test_a_phantom_of_another_region_is_refused(
    elsewhere: Callable[[Region], SliceReader], region: Region, locate: Callable[..., Levels]
) -> None:
    slices = elsewhere(region)
    with pytest.raises(NotAnalysable, match="no lumbar spine was found"):
        locate(assign_roles(slices.headers), slices.read)


@pytest.mark.parametrize("seed", [5, 17, 100])
def test_without_the_sacrum_in_view_the_numbering_is_never_sure(
    tmp_path: Path, seed: int, locate: Callable[..., Levels]
) -> None:
    write_study(tmp_path, seed, kind=Kind(HELD_OUT[0], region=Region.CUT))
    slices = read_all(tmp_path)
    try:
        levels = locate(assign_roles(slices.headers), slices.read)
    except NotAnalysable:
        return
    assert levels.numbering_uncertain


@pytest.mark.parametrize("numbering", list(Numbering)[1:])
def test_a_transitional_vertebra_makes_the_numbering_uncertain(
    tmp_path: Path, numbering: Numbering, locate: Callable[..., Levels]
) -> None:
    write_study(tmp_path, 11, kind=Kind(HELD_OUT[1], numbering=numbering))
    slices = read_all(tmp_path)
    assert locate(assign_roles(slices.headers), slices.read).numbering_uncertain


def test_without_t2_the_levels_are_located_on_t1(
    studies: list[Study], locate: Callable[..., Levels]
) -> None:
    for study in studies:
        roles = assign_roles([s for s in study.slices.headers if s not in study.sagittal])
        assert Role.SAGITTAL_T2 not in roles.stacks
        levels = locate(roles, study.slices.read)
        assert errors(levels, study).max() <= 8
        assert "Sagittal T1" in levels.notes[0]


def test_only_the_slices_that_are_needed_are_read(
    studies: list[Study], locate: Callable[..., Levels]
) -> None:
    headers: list[SliceHeader] = []

    def read(header: SliceHeader) -> Picture:
        headers.append(header)
        return studies[0].slices.read(header)

    locate(studies[0].roles, read)
    by_series = Counter(header.series_instance_uid for header in set(headers))
    assert len(by_series) == 2  # T2 and T1
    assert max(by_series.values()) <= 9 < len(studies[0].sagittal)
