"""Hostile pixels: each is refused with its reason, alone and in a study."""

import re
from itertools import cycle

import pydicom
import pytest

from lumbar.dicom.pixels import read_slice
from lumbar.errors import NotDicom
from tests.hostile import wire
from tests.hostile.pixels import FILES, UNDECODABLE, changed
from tests.system import wait_until

SETTINGS = {"LUMBAR_QUIET_S": "1", "LUMBAR_QUIET_INCOMPLETE_S": "2"}


@pytest.mark.parametrize("hostile", FILES, ids=lambda file: file.name)
def test_hostile_pixels_are_refused_with_their_reason(tmp_path, hostile):
    path = tmp_path / "hostile.dcm"
    path.write_bytes(hostile.content())
    if hostile.reason is None:
        assert read_slice(path, None).shape == (64, 64)
        return
    with pytest.raises(NotDicom) as refused:
        read_slice(path, None)
    assert re.fullmatch(hostile.reason, str(refused.value))


def test_intact_pixels_are_read(tmp_path):
    path = tmp_path / "good.dcm"
    path.write_bytes(changed())
    assert read_slice(path, None).shape == (64, 64)


@pytest.mark.slow
def test_a_study_of_undecodable_pixels_is_not_analysable_with_the_reason(monitored, phantom):
    study = send(monitored, phantom(1)[0], undecodable=(1, 2, 3))
    wait_until(
        lambda: monitored.system.states().get(study) == "not_analysable", 60, monitored.system.tail
    )
    assert re.search(
        "not analysable: .*(cannot be decoded|rows and columns)",
        monitored.system.lumbar("study", study).stdout,
    )


@pytest.mark.slow
def test_a_study_with_one_undecodable_series_is_analysed_from_the_rest(monitored, phantom):
    study = send(monitored, phantom(2)[0], undecodable=(2,))
    wait_until(
        lambda: monitored.system.states().get(study) == "analysed", 60, monitored.system.tail
    )
    rows = [row for row in monitored.system.findings() if row["row_id"].startswith(study)]
    assert len(rows) == 25
    reasons = {row["reason"] for row in rows if "foraminal" in row["row_id"]}
    assert reasons
    assert all(re.search("cannot be decoded|rows and columns", reason) for reason in reasons)
    assert {row["assessed"] for row in rows if "foraminal" not in row["row_id"]} == {"true"}


@pytest.mark.slow
def test_after_all_inputs_the_system_is_unharmed(monitored):
    monitored.require_unharmed()


def send(monitored, folder, undecodable):
    """A phantom study whose series of these numbers have pixels that cannot be decoded; its UID."""
    encodings, sent = cycle(UNDECODABLE.values()), []
    for path in sorted(folder.rglob("*.dcm")):
        ds = pydicom.dcmread(path)
        syntax = wire.EXPLICIT
        if ds.SeriesNumber in undecodable:
            syntax, content = next(encodings)
            ds.PixelData = pydicom.encaps.encapsulate([content])
            ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        buffer = pydicom.filebase.DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        pydicom.filewriter.write_dataset(buffer, ds)
        sent.append((buffer.getvalue(), ds.SOPInstanceUID.encode(), syntax))
    monitored.store_all(sent)
    return ds.StudyInstanceUID
