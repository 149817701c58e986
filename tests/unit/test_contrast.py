"""Without times in the headers, a series' weighting follows from its images or its description."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lumbar.dicom.discover import MRInstance, find_instances
from lumbar.dicom.slice_reader import SliceReader
from lumbar.phantoms import PhantomTruth
from lumbar.phantoms.dicom_files import write_series
from lumbar.phantoms.scanner import Sequence, acquire
from lumbar.phantoms.study import draw_plan
from lumbar.spine.anatomy import Plane
from lumbar.spine.contrast import (
    LIMITS,
    Sample,
    weighting_of_description,
    weighting_of_images,
    weighting_of_samples,
)
from lumbar.spine.keypoint_input import KeypointDetector
from lumbar.spine.roles import assign_roles
from lumbar.spine.slices import SliceHeader
from lumbar.spine.weighting import Weighting, weighting
from tests.factories.headers import SLICE
from tests.stub_networks import StubKeypoints
from worker.series_weighting import with_weighting


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("T1", Weighting.T1),
        ("T2", Weighting.T2),
        ("t2_tse_sag_384", Weighting.T2),
        ("SAG T1 FSE", Weighting.T1),
        ("Sag T1 FLAIR", Weighting.T1),
        ("T1W_TSE", Weighting.T1),
        ("AX T2WI", Weighting.T2),
        ("Sagittal T2/STIR", Weighting.STIR),
        ("SAG STIR", Weighting.STIR),
        ("t2_tirm_sag", Weighting.STIR),
        ("T2* MEDIC", None),
        ("T2 FLAIR", None),
        ("PD T2 DUAL", None),
        ("T1 and T2", None),
        ("LUMBAR SPINE", None),
        ("ST1R T12", None),
        ("", None),
    ],
)
def test_a_description_names_a_weighting_by_its_words(
    description: str, expected: Weighting | None
) -> None:
    assert weighting_of_description(description) is expected


@pytest.mark.parametrize(
    ("csf", "marrow", "fat", "expected"),
    [  # as the signal equation gives them, at most 100
        (19, 75, 100, Weighting.T1),
        (100, 60, 73, Weighting.T2),
        (100, 43, 18, Weighting.STIR),
        (53, 67, 74, None),  # proton density
        (50, 50, 50, None),
        (0, 0, 0, None),
    ],
)
def test_the_ratios_of_the_signal_equation_decide(
    csf: float, marrow: float, fat: float, expected: Weighting | None
) -> None:
    for gain in (0.01, 1.0, 40.0):
        samples = [Sample(csf * gain, marrow * gain, fat * gain)] * 3
        assert weighting_of_samples(samples, LIMITS[Plane.SAGITTAL], 3) is expected
        assert weighting_of_samples(samples[:2], LIMITS[Plane.SAGITTAL], 3) is None


SEQUENCES = {
    Weighting.T1: Sequence(560, 10),
    Weighting.T2: Sequence(3500, 100),
    Weighting.STIR: Sequence(4200, 55, 160),
    None: Sequence(2800, 25),  # proton density
}


@pytest.mark.slow
@pytest.mark.parametrize("expected", SEQUENCES, ids=str)
def test_the_contrast_of_a_phantom_decides(
    keypoints: KeypointDetector, tmp_path: Path, expected: Weighting | None
) -> None:
    plan = draw_plan(700_003)
    series = replace(plan.series[0], sequence=SEQUENCES[expected])
    rng = np.random.default_rng(1)
    slices = acquire(rng, plan.examination.scanner, series.sequence, plan.patient, series.stacks)
    write_series(tmp_path / "1", plan.examination, series, slices)
    reader = SliceReader(find_instances(tmp_path, tmp_path)[0])
    untimed = [replace(s, repetition_time=None, echo_time=None) for s in reader.headers]
    assert weighting_of_images(untimed, reader.read, keypoints) is expected


# By eye; the slices are single, so that only those that show the dural sac can be decided.
REAL = {
    Weighting.T1: ("10009_7",),
    Weighting.T2: ("10008_12", "10015_6", "10015_8", "10026_13", "10028_13"),
    None: ("10009_11", "10024_17", "10027_21", "10030_2"),  # beside the sac
}


@pytest.mark.slow
def test_the_contrast_of_real_slices_decides_where_they_show_the_sac(
    keypoints: KeypointDetector, real_files: Path
) -> None:
    for expected, names in REAL.items():
        for name in names:
            png = cv2.imread(
                str(real_files / "spider" / "images" / f"{name}.png"), cv2.IMREAD_GRAYSCALE
            )
            assert png is not None
            image = np.ascontiguousarray(png[::-1]).astype(np.float32)  # stored upside down
            rows, columns = image.shape
            mm = 300 / rows  # the spacing is lost
            header = replace(
                SLICE,
                rows=rows,
                columns=columns,
                spacing=(mm, mm),
                position=(0.0, -mm * columns / 2, mm * rows / 2),
            )
            decided = weighting_of_images([header], lambda _, image=image: image, keypoints)
            assert decided is expected, name


class Blind(StubKeypoints):
    """Sees nothing on any picture."""

    def sagittal(self, pictures: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return super().sagittal(pictures) * 0

    def axial(self, pictures: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return super().axial(pictures) * 0


def untimed(instances: list[MRInstance], description: str) -> list[MRInstance]:
    changed = []
    for instance in instances:
        instance.header.SeriesDescription = description
        slices = (replace(s, repetition_time=None, echo_time=None) for s in instance.slices)
        changed.append(replace(instance, slices=tuple(slices)))
    return changed


@pytest.mark.slow
def test_the_description_decides_where_the_images_do_not_and_both_are_named(
    phantom: Callable[[int], tuple[Path, PhantomTruth]], keypoints: KeypointDetector
) -> None:
    folder = phantom(1)[0] / "2"  # T1
    instances, _ = find_instances(folder, folder)
    timed = with_weighting(SliceReader(instances), instances, Blind())
    assert {header.weighting_by for header in timed} == {None}

    def read(description: str, network: KeypointDetector) -> tuple[SliceHeader, ...]:
        given = untimed(instances, description)
        return with_weighting(SliceReader(given), given, network)

    by_description = read("SAG T2", Blind())
    assert {weighting(header) for header in by_description} == {Weighting.T2}
    (choice,) = assign_roles(by_description).choices
    assert "sagittal slices, T2 by its description): Sagittal T2/STIR" in choice
    by_contrast = read("SAG T2", keypoints)  # the description is wrong
    (choice,) = assign_roles(by_contrast).choices
    assert "sagittal slices, T1 by its contrast): Sagittal T1" in choice
    unknown = read("LUMBAR", Blind())
    assert {weighting(header) for header in unknown} == {Weighting.UNKNOWN}
    assert "unknown weighting in this plane is not read" in assign_roles(unknown).choices[0]
