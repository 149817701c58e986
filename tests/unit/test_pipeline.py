"""The analysis of one study: the findings are the same however the study was sent."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from lumbar.dicom.discover import MRInstance, find_instances
from lumbar.errors import NotAnalysable
from lumbar.networks import Networks, load
from lumbar.phantoms import PhantomTruth
from lumbar.spine.anatomy import Plane, Side
from lumbar.spine.keypoint_input import KeypointDetector
from lumbar.spine.slices import SliceHeader
from tests.stub_networks import StubKeypoints, StubNetworks
from tests.study_factory import CHANGES, duplicated, split, turned
from worker.analysis_picture import picture_of
from worker.pipeline import Analysis, analyse

pytestmark = pytest.mark.slow

SEED = 21


class Reading(StubNetworks):
    """The real level locator, and grades that follow from the crops."""

    def __init__(self, keypoints: KeypointDetector) -> None:
        self.keypoints = keypoints


@pytest.fixture(scope="module")
def clean(phantom: Callable[[int], tuple[Path, PhantomTruth]]) -> list[MRInstance]:
    folder, _ = phantom(SEED)
    return find_instances(folder, folder)[0]


@pytest.fixture(scope="module")
def datasets(clean: list[MRInstance]) -> dict[object, Dataset]:
    """The instances with their pixels, by position and timing of acquisition."""
    by_position = {_taken(instance.slices[0]): dcmread(instance.path) for instance in clean}
    assert len(by_position) == len(clean)
    return by_position


@pytest.fixture(scope="module")
def networks(keypoints: KeypointDetector) -> Reading:
    return Reading(keypoints)


@pytest.fixture(scope="module")
def reference(clean: list[MRInstance], networks: Reading) -> Analysis:
    return analyse(clean, networks)


def _taken(header: SliceHeader) -> object:
    return (*np.round(header.centre, 2).tolist(), header.echo_time)


@contextmanager
def sent(
    datasets: dict[object, Dataset], slices: Sequence[SliceHeader], random: Random
) -> Iterator[list[MRInstance]]:
    """The files as they would arrive with these headers.

    The pixels are stored in the headers' orientation; the descriptions are wrong.
    """
    with TemporaryDirectory() as folder:
        for n, header in enumerate(random.sample(list(slices), len(slices))):
            ds = deepcopy(datasets[_taken(header)])
            pixels = ds.pixel_array
            stored = np.array(ds.ImageOrientationPatient).reshape(2, 3)
            right, down = header.along_row, header.down_column
            if abs(stored[0] @ right) < 0.5:
                pixels, stored = pixels.T, stored[::-1]
            pixels = pixels[
                :: 1 if stored[1] @ down > 0 else -1, :: 1 if stored[0] @ right > 0 else -1
            ]
            ds.PixelData = np.ascontiguousarray(pixels).tobytes()
            ds.Rows, ds.Columns = pixels.shape
            ds.ImageOrientationPatient = [*right.tolist(), *down.tolist()]
            ds.ImagePositionPatient, ds.PixelSpacing = list(header.position), list(header.spacing)
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = header.sop_instance_uid
            ds.SeriesInstanceUID, ds.InstanceNumber = (
                header.series_instance_uid,
                header.instance_number,
            )
            ds.RepetitionTime = header.repetition_time
            ds.SeriesDescription = ds.ProtocolName = random.choice(
                ("AX T1 BRAIN", "SAG T2 C-SPINE", "")
            )
            ds.BodyPartExamined = random.choice(("BRAIN", "KNEE", "LSPINE"))
            ds.save_as(Path(folder) / f"{n}.dcm")
        yield find_instances(Path(folder), Path(folder))[0]


@pytest.mark.no_cover
@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32), changes=st.lists(st.sampled_from(CHANGES), min_size=1, max_size=4)
)
def test_a_study_in_disorder_is_read_like_the_clean_one(
    clean: list[MRInstance],
    datasets: dict[object, Dataset],
    reference: Analysis,
    networks: Reading,
    seed: int,
    changes: list[Callable[..., list[SliceHeader]]],
) -> None:
    random = Random(seed)
    slices: list[SliceHeader] = [instance.slices[0] for instance in clean]
    for change in changes:
        slices = change(slices, random)
    with sent(datasets, slices, random) as arrived:
        analysis = analyse(arrived, networks)
    assert analysis.caveats == reference.caveats
    for finding, expected in zip(analysis.findings, reference.findings, strict=True):
        assert (finding.key, finding.severity, finding.reason) == (
            expected.key,
            expected.severity,
            expected.reason,
        )
        if finding.point and expected.point:
            assert np.allclose(finding.probabilities, expected.probabilities, atol=1e-5)
            here_at, there_at = ((p.x, p.y, p.z) for p in (finding.point, expected.point))
            assert np.allclose(here_at, there_at, atol=0.01)


@pytest.mark.no_cover
def test_a_study_in_disorder_is_read_alike_by_the_real_networks(
    clean: list[MRInstance], datasets: dict[object, Dataset]
) -> None:
    networks: Networks = load(None)
    random = Random(5)
    slices = [instance.slices[0] for instance in clean]
    clean_analysis = analyse(clean, networks)
    with sent(
        datasets, turned(duplicated(split(slices, random), random), random), random
    ) as arrived:
        analysis = analyse(arrived, networks)
    for finding, expected in zip(analysis.findings, clean_analysis.findings, strict=True):
        assert finding.severity is expected.severity
        assert np.allclose(finding.probabilities or 0, expected.probabilities or 0, atol=1e-5)


def test_every_finding_of_a_usual_study_is_assessed(reference: Analysis) -> None:
    assert all(finding.assessed for finding in reference.findings)
    assert reference.levels is not None
    assert len(reference.views) == 25


def test_only_slices_that_are_used_are_decoded(
    clean: list[MRInstance], networks: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    from lumbar.dicom import slice_reader

    read = slice_reader.read_slice
    monkeypatch.setattr(
        slice_reader, "read_slice", lambda path, frame: decoded.append(path) or read(path, frame)
    )
    analyse(clean, networks)
    assert len(decoded) == len(set(decoded)) < 0.6 * len(clean)


def test_a_picture_of_the_analysis_can_be_drawn(
    clean: list[MRInstance], reference: Analysis
) -> None:
    png = picture_of(reference, clean, ["Research use only"])
    assert png.startswith(b"\x89PNG")
    assert png != picture_of(replace(reference, levels=None), clean, ["Research use only"])


class Chest(StubKeypoints):
    """An axial slice with a sac but no recesses."""

    def axial(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().axial(pictures) * np.array([1.0, 0.4, 0.4], np.float32)


def loose_axial(clean: list[MRInstance]) -> MRInstance:
    return next(instance for instance in clean if instance.slices[0].plane is Plane.AXIAL)


def test_a_loose_axial_slice_is_read_without_its_level_however_often_it_arrived(
    clean: list[MRInstance],
) -> None:
    instance = loose_axial(clean)
    for instances in ([instance], [instance] * 3):
        analysis = analyse(instances, StubNetworks())
        assert not any(finding.assessed for finding in analysis.findings)
        assert [r.condition.side for r in analysis.readings] == list(Side)


def test_the_second_loose_slice_is_read_where_the_first_is_damaged(
    clean: list[MRInstance], tmp_path: Path
) -> None:
    axials = [instance for instance in clean if instance.slices[0].plane is Plane.AXIAL][:2]
    for damaged in axials:
        content = damaged.path.read_bytes()
        (tmp_path / "cut.dcm").write_bytes(content[: len(content) // 2])
        instances = [replace(f, path=tmp_path / "cut.dcm") if f is damaged else f for f in axials]
        analysis = analyse(instances, StubNetworks())
        (read,) = {reading.point.sop_instance_uid for reading in analysis.readings}
        assert read != damaged.slices[0].sop_instance_uid


def test_a_loose_axial_slice_without_recesses_is_refused(clean: list[MRInstance]) -> None:
    networks = StubNetworks()
    networks.keypoints = Chest()
    with pytest.raises(NotAnalysable, match="recesses"):
        analyse([loose_axial(clean)], networks)
