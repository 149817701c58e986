"""Uploads read once: the result, and that the files are removed whatever they contain."""

import re

import numpy as np
import pytest

from db.models import JobState
from lumbar.spine.anatomy import ALL_FINDINGS, Condition
from tests.hostile.archives import INPUTS
from tests.integration.upload_factory import (
    create_upload,
    image,
    large_header_image,
    read,
    remaining_files,
    result_of,
    row,
    study_files,
    zip_of,
)
from tests.integration.web_client import audit_rows
from tests.memory import peak_memory

ONE_GREY = np.full(64, 7, np.uint16).tobytes()
HOSTILE_ZIPS = [case for case in INPUTS if "zip" in case.name and "a folder" not in case.name]


@pytest.mark.slow
def test_a_zip_of_a_study_yields_25_findings_and_a_picture_and_leaves_nothing_else(site, phantom):
    study, _ = phantom(3)
    name = create_upload(
        site, [zip_of({f"{n}.dcm": content for n, content in enumerate(study_files(study))})]
    )
    assert read(site)
    upload = row(site, name)
    result = result_of(site, name)
    assert (upload.state, upload.failure) == (JobState.DONE, None)
    assert upload.images == len(study_files(study))
    assert set(result.cells) == set(ALL_FINDINGS)
    graded = [grade for grade in result.findings if grade.severity]
    assert len(graded) > 10
    assert all(
        sum(grade.probabilities) == pytest.approx(1) and 0 <= grade.shows <= 1 for grade in graded
    )
    assert result.notices[0].startswith("Research use only")
    assert result.choices
    assert remaining_files(site, name) == ["picture.png"]
    assert audit_rows(site) == [("upload.analysed", "worker", None)]
    assert not read(site)


@pytest.mark.slow
def test_many_files_are_read_and_those_not_dicom_are_reported(site, phantom):
    name = create_upload(site, [*study_files(phantom(3)[0]), b"no image", b""])
    read(site)
    assert "2 files skipped: not a DICOM file" in result_of(site, name).choices
    assert len(result_of(site, name).findings) == len(ALL_FINDINGS)


def test_a_loose_axial_slice_gives_its_recesses_without_a_level(site):
    name = create_upload(site, [image(plane="axial")])
    read(site)
    result = result_of(site, name)
    assert {grade.condition for grade in result.readings} == {
        Condition.LEFT_SUBARTICULAR_STENOSIS,
        Condition.RIGHT_SUBARTICULAR_STENOSIS,
    }
    assert not result.findings
    assert remaining_files(site, name) == ["picture.png"]


def test_one_image_that_shows_no_spine_is_classified_as_a_whole(site):
    name = create_upload(site, [image()])
    read(site)
    result = result_of(site, name)
    assert (len(result.conditions), len(result.severities)) == (6, 3)
    assert not result.findings
    assert "the middle of the image" in result.choices[0].lower()
    assert remaining_files(site, name) == ["picture.png"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([b"\x89PNG"], "the input holds no DICOM files"),
        ([image(), image(study=2)], "the slices belong to several studies; analyse one at a time"),
        ([image(number=1), image(number=2)], "no lumbar spine was found .*"),
        ([image(RepetitionTime=None, EchoTime=None)], ".*"),
        ([image(PixelData=ONE_GREY)], "the image is blank around 3.5, 3.5"),
        ([image(PixelData=ONE_GREY, plane="axial")], "the image is blank .*"),
    ],
    ids=["no image", "two studies", "two odd slices", "no weighting", "blank", "blank axial"],
)
def test_an_unreadable_upload_has_a_reason_and_is_removed_as_well(site, files, reason):
    name = create_upload(site, files)
    assert read(site)
    upload = row(site, name)
    assert upload.state is JobState.DONE
    assert upload.attempts == 1
    assert re.fullmatch(reason, upload.failure)
    assert remaining_files(site, name) == []
    assert audit_rows(site)[-1] == ("upload.not_analysable", "worker", None)


@pytest.mark.parametrize("keep", [False, True])
def test_a_header_that_bloats_its_parser_costs_the_worker_nothing(site, keep):
    name = create_upload(site, [large_header_image(), image()], keep)
    before = peak_memory()
    read(site)
    assert peak_memory() - before < 100 * 2**20
    notes = [line for line in result_of(site, name).choices if line.startswith("1 file ")]
    assert len(notes) == 1
    assert row(site, name).state is JobState.DONE
    assert row(site, name).reason is None


@pytest.mark.parametrize("hostile", HOSTILE_ZIPS, ids=lambda case: case.name)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_hostile_zip_is_refused_with_a_reason_and_writes_nowhere_else(site, tmp_path, hostile):
    place = tmp_path / "made"
    place.mkdir()
    name = create_upload(site, [hostile.make(place).read_bytes()])
    before = {path for path in tmp_path.rglob("*") if "previews" not in path.parts}
    read(site)
    upload = row(site, name)
    assert upload.state is JobState.DONE
    if hostile.reason:
        assert re.fullmatch(hostile.reason, upload.failure)
    else:
        assert result_of(site, name).readings  # it is axial
    new = {path for path in tmp_path.rglob("*") if "previews" not in path.parts} - before
    assert {path.name for path in new} <= {"store", "lumbar.sqlite-wal", "lumbar.sqlite-shm"}
    assert set(remaining_files(site, name)) <= {"picture.png"}
