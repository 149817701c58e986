"""The whole reading of one study: whatever happens to it on its way, the same findings at the same points."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from lumbar.dicom.folder import Found, find_instances
from lumbar.networks import Networks, load
from lumbar.phantoms import PhantomTruth
from lumbar.spine.levels import KeypointReader
from lumbar.spine.slices import SliceHeader
from tests.stubbed import StubNetworks
from tests.studies import duplicated, renamed, renumbered, sent_twice, shuffled, split
from worker.pipeline import Analysis, analyse, picture_of

CHANGES = (shuffled, renamed, renumbered, split, duplicated, sent_twice)
SEED = 21


class Reading(StubNetworks):
    """The real level locator, and grades that follow from the crops."""

    def __init__(self, keypoints: KeypointReader) -> None:
        self.keypoints = keypoints


@pytest.fixture(scope="module")
def clean(phantom: Callable[[int], tuple[Path, PhantomTruth]]) -> list[Found]:
    folder, _ = phantom(SEED)
    return find_instances(folder, folder)[0]


@pytest.fixture(scope="module")
def networks(keypoints: KeypointReader) -> Reading:
    return Reading(keypoints)


@pytest.fixture(scope="module")
def usual(clean: list[Found], networks: Reading) -> Analysis:
    return analyse(clean, networks)


def sent(clean: Sequence[Found], slices: Sequence[SliceHeader], random: Random) -> list[Found]:
    """The instances as they would arrive with these headers, and with wrong descriptions; the pixels stay."""
    by_place = {(f.slices[0].position, f.slices[0].echo_time, f.slices[0].orientation): f for f in clean}
    assert len(by_place) == len(clean)
    arrived = []
    for header in slices:
        source = by_place[header.position, header.echo_time, header.orientation]
        told = Dataset()
        told.SOPInstanceUID, told.SeriesInstanceUID = header.sop_instance_uid, header.series_instance_uid
        told.SeriesDescription = random.choice(("AX T1 BRAIN", "SAG T2 C-SPINE", ""))
        told.BodyPartExamined = random.choice(("BRAIN", "KNEE", "LSPINE"))
        arrived.append(Found(source.path, told, (header,)))
    return arrived


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), changes=st.lists(st.sampled_from(CHANGES), min_size=1, max_size=4))
def test_a_study_in_disorder_is_read_like_the_clean_one(
    clean: list[Found], usual: Analysis, networks: Reading, seed: int, changes: list[Callable[..., object]]
) -> None:
    random = Random(seed)
    slices: list[SliceHeader] = [found.slices[0] for found in clean]
    for change in changes:
        slices = change(slices, random)  # type: ignore[assignment]
    analysis = analyse(sent(clean, slices, random), networks)
    assert analysis.doubts == usual.doubts
    for here, there in zip(analysis.findings, usual.findings, strict=True):
        assert (here.key, here.severity, here.reason) == (there.key, there.severity, there.reason)
        if here.place and there.place:
            assert np.allclose(here.probabilities, there.probabilities, atol=1e-5)
            here_at, there_at = ((p.x, p.y, p.z) for p in (here.place, there.place))
            assert np.allclose(here_at, there_at, atol=0.01)


def test_the_same_holds_for_the_real_networks(clean: list[Found]) -> None:
    networks: Networks = load(None)
    random = Random(5)
    slices = [found.slices[0] for found in clean]
    there = analyse(clean, networks)
    here = analyse(sent(clean, duplicated(split(renamed(slices, random), random), random), random), networks)
    for one, other in zip(here.findings, there.findings, strict=True):
        assert one.severity is other.severity
        assert np.allclose(one.probabilities or 0, other.probabilities or 0, atol=1e-5)


def test_every_finding_of_a_usual_study_is_assessed(usual: Analysis) -> None:
    assert all(finding.assessed for finding in usual.findings)
    assert usual.levels is not None
    assert len(usual.views) == 25


def test_only_slices_that_are_used_are_decoded(
    clean: list[Found], networks: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    from lumbar.dicom import reader

    read = reader.read_slice
    monkeypatch.setattr(reader, "read_slice", lambda path, frame: decoded.append(path) or read(path, frame))
    analyse(clean, networks)
    assert len(decoded) == len(set(decoded)) < 0.6 * len(clean)


def test_a_picture_can_be_drawn_of_it(clean: list[Found], usual: Analysis) -> None:
    png = picture_of(usual, clean, ["Research use only"])
    assert png.startswith(b"\x89PNG")
    assert png != picture_of(replace(usual, levels=None), clean, ["Research use only"])
