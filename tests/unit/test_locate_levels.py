"""One refused or misread series does not sink a study: which series names the levels."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lumbar.dicom.discover import find_instances
from lumbar.dicom.slice_reader import SliceReader
from lumbar.errors import NotAnalysable
from lumbar.phantoms import PhantomTruth
from lumbar.spine.anatomy import Condition, FindingKey, Level, Role
from lumbar.spine.keypoint_input import KeypointDetector
from lumbar.spine.locate_levels import locate_levels
from lumbar.spine.roles import Roles, assign_roles
from lumbar.spine.slices import SliceHeader

pytestmark = pytest.mark.slow

Phantom = Callable[[int], tuple[Path, PhantomTruth]]
T1, T2 = Role.SAGITTAL_T1, Role.SAGITTAL_T2


@pytest.fixture(scope="module")
def study(phantom: Phantom) -> tuple[SliceReader, Mapping[Level, np.ndarray]]:
    """A study's slices, and the true middle of the dural sac at each level."""
    folder, truth = phantom(1)
    points = {
        level: np.array(truth.points[FindingKey(Condition.SPINAL_CANAL_STENOSIS, level)])
        for level in Level
    }
    return SliceReader(find_instances(folder, folder)[0]), points


def reading(
    slices: SliceReader, change: Callable[[np.ndarray], np.ndarray], series: str
) -> Callable[[SliceHeader], np.ndarray]:
    """Reads the slices of one series changed, the others as they are."""
    return lambda header: (
        np.ascontiguousarray(change(slices.read(header)))
        if header.series_instance_uid == series
        else slices.read(header)
    )


def series_of(roles: Roles, role: Role) -> str:
    return roles.stacks[role][0].slices[0].series_instance_uid


def distance(located, points) -> float:
    return max(float(np.linalg.norm(located.canal[level] - points[level])) for level in Level)


def test_series_that_agree_give_no_caveat(study, keypoints: KeypointDetector) -> None:
    slices, points = study
    levels = locate_levels(assign_roles(slices.headers), slices.read, keypoints)
    assert levels.caveats == ()
    assert levels.role is T2
    assert distance(levels, points) < 6


@pytest.mark.parametrize(("refused", "read"), [(T2, T1), (T1, T2)])
def test_where_one_series_is_refused_the_other_names_the_levels(
    study, keypoints: KeypointDetector, refused: Role, read: Role
) -> None:
    slices, points = study
    roles = assign_roles(slices.headers)
    blank = reading(slices, np.zeros_like, series_of(roles, refused))
    levels = locate_levels(roles, blank, keypoints)
    assert levels.role is read
    assert distance(levels, points) < 8
    (caveat,) = levels.caveats
    assert f"it rests on {read.label} alone" in caveat
    assert f"no lumbar spine was found on the {refused.label} images" in caveat


def test_where_all_are_refused_the_first_reason_is_given(
    study, keypoints: KeypointDetector
) -> None:
    slices, _ = study
    with pytest.raises(NotAnalysable, match=T2.label):
        locate_levels(
            assign_roles(slices.headers),
            lambda header: np.zeros_like(slices.read(header)),
            keypoints,
        )


def test_a_series_that_another_was_preferred_to_is_tried_last(
    study, keypoints: KeypointDetector
) -> None:
    slices, points = study
    first = [
        h
        for h in slices.headers
        if h.series_instance_uid == series_of(assign_roles(slices.headers), T2)
    ]
    again = [
        replace(
            h,
            series_instance_uid="1.2.3",
            sop_instance_uid=f"1.2.3.{n}",
            spacing=(h.spacing[0] * 1.0001, h.spacing[1] * 1.0001),
        )
        for n, h in enumerate(first)
    ]
    original = dict(zip(again, first, strict=True))
    roles = assign_roles([*first, *again])
    assert series_of(roles, T2) == first[0].series_instance_uid

    def read(header: SliceHeader) -> np.ndarray:
        if header in original:
            return slices.read(original[header])
        return np.zeros_like(slices.read(header))

    levels = locate_levels(roles, read, keypoints)
    assert levels.source.series_instance_uid == "1.2.3"
    assert distance(levels, points) < 6


def test_series_that_name_the_discs_differently_give_a_caveat(
    study, keypoints: KeypointDetector
) -> None:
    """The T1 series states a position one level lower than it was taken at."""
    slices, _ = study
    roles = assign_roles(slices.headers)
    t1 = series_of(roles, T1)
    moved = {
        replace(h, position=(h.position[0], h.position[1], h.position[2] - 34.0)): h
        for h in slices.headers
        if h.series_instance_uid == t1
    }
    headers = [h for h in slices.headers if h.series_instance_uid != t1]
    levels = locate_levels(
        assign_roles([*headers, *moved]), lambda h: slices.read(moved.get(h, h)), keypoints
    )
    assert any(f"the {T1.label} images are numbered differently" in c for c in levels.caveats)
