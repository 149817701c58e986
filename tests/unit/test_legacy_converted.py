"""A study converted to Legacy Converted Enhanced MR is read like its single-frame images."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless, generate_uid

from lumbar.dicom.discover import MRInstance, find_instances
from lumbar.dicom.pixels import read_slice
from lumbar.phantoms import PhantomTruth
from lumbar.spine.roles import assign_roles
from lumbar.spine.slices import SliceHeader

pytestmark = pytest.mark.slow

SEED = 21


@pytest.fixture(scope="module")
def single(
    phantom: Callable[[int], tuple[Path, PhantomTruth]], tmp_path_factory: pytest.TempPathFactory
) -> list[MRInstance]:
    """The images, as other scanners write them: with a slope, fat suppression, a contrast agent."""
    folder, _ = phantom(SEED)
    out = tmp_path_factory.mktemp("single")
    for file in folder.rglob("*.dcm"):
        ds = dcmread(file)
        if ds.SeriesNumber == 2:
            ds.RescaleSlope, ds.RescaleIntercept = 1.5 + 0.1 * ds.InstanceNumber, 3
            ds.ScanOptions, ds.ContrastBolusAgent = ["FS", "PFP"], "Gd"
        ds.save_as(out / f"{ds.SeriesNumber}-{ds.InstanceNumber}.dcm")
    return find_instances(out, out)[0]


@pytest.fixture(scope="module", params=[None, JPEGLSLossless], ids=["native", "JPEG-LS"])
def converted(
    request: pytest.FixtureRequest,
    single: list[MRInstance],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[MRInstance]:
    out = tmp_path_factory.mktemp("converted")
    for number in (1, 2, 3):
        files = [i.path for i in single if i.header.SeriesNumber == number]
        image = LegacyConvertedEnhancedMRImage(
            [dcmread(file) for file in files],
            series_instance_uid=single_uid(single, number),
            series_number=number,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            **({} if request.param is None else {"transfer_syntax_uid": request.param}),
        )
        image.save_as(out / f"{number}.dcm")
    return find_instances(out, out)[0]


def single_uid(single: list[MRInstance], number: int) -> str:
    return next(str(i.header.SeriesInstanceUID) for i in single if i.header.SeriesNumber == number)


def by_place(instances: list[MRInstance]) -> dict[object, tuple[SliceHeader, Path]]:
    return {
        (h.series_instance_uid, *np.round(h.position, 3)): (h, i.path)
        for i in instances
        for h in i.slices
    }


def test_every_frame_has_the_header_and_the_pixels_of_its_image(
    single: list[MRInstance], converted: list[MRInstance]
) -> None:
    expected, found = by_place(single), by_place(converted)
    assert expected.keys() == found.keys()
    for place, (frame, path) in found.items():
        image, original = expected[place]
        same = {
            name: getattr(image, name)
            for name in ("sop_class_uid", "sop_instance_uid", "frame", "instance_number")
        }
        assert replace(frame, **same, image_type=image.image_type) == image
        np.testing.assert_array_equal(read_slice(path, frame.frame), read_slice(original, None))


def test_the_roles_are_those_of_the_single_images(
    single: list[MRInstance], converted: list[MRInstance]
) -> None:
    def places(instances: list[MRInstance]) -> dict[object, list[object]]:
        roles = assign_roles([h for i in instances for h in i.slices])
        return {
            role: [[s.position for s in stack.slices] for stack in stacks]
            for role, stacks in roles.stacks.items()
        }

    assert places(converted) == places(single)
    assert len(places(single)) == 3
