"""Whatever the images' headers hold, the report belongs to their patient and conforms to DICOM."""

import subprocess
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset, config, dcmread
from pydicom.filewriter import write_dataset

from lumbar.reports.report import Report
from tests.acceptance.checks import validation_errors
from tests.factories.reports import build, one, read, source

LONG = "0123456789" * 10

# Malformed values of real headers, and what the report has instead.
MALFORMED = {
    "StudyDate": {"2026.11.16": "20261116", "20261332": "", "tomorrow": ""},
    "PatientBirthDate": {"1970.01.02": "19700102", "1970": "", "1970XX02": ""},
    "StudyTime": {"10:20:30": "102030", "10:20:30.1234567": "102030.123456", "25": ""},
    "AccessionNumber": {"A" * 16: "A" * 16, "A" * 17: "", "A1\\A2": "", "A\n1": ""},
    "StudyID": {"7" * 17: "", "7\\8": "", "12/3": "12/3"},
    "IssuerOfPatientID": {"Clinic\\Ward": None, LONG: None, "Clinic": "Clinic"},
    "StudyDescription": {
        LONG: LONG[:64],
        "Ü" * 65: "Ü" * 32,  # 64 bytes, for readers that count those
        "MR\\Spine": "MR Spine",
        "MR\nSpine\t": "MR Spine",
    },
    "PatientSex": {"f": "F", "M": "M", "female": "", "M\\F": "", "X": ""},
    "PatientName": {
        "N" * 70: "N" * 64,
        "A^B^C^D^E^F^G": "A^B^C^D^E",
        "A=B=C=D": "A=B=C",
        "Doe^Jane\\Roe": "Doe^Jane Roe",
        "Doe\x1b^Jane\n": "Doe ^Jane",
    },
    "ReferringPhysicianName": {"R" * 100: "R" * 64, "A\\B": "A B"},
}


def headers_with(**values: str) -> Dataset:
    """A header read from bytes that hold these values as they are."""
    header = source()
    header.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in values.items():
        # As UT, which is written as it is; the VR itself is not written.
        header[keyword] = pydicom.DataElement(keyword, "UT", value)
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = True, True
    write_dataset(buffer, header)
    return dcmread(BytesIO(buffer.getvalue()), force=True)


def report_with(**values: str) -> Report:
    """A report of one finding in an image with such a header."""
    return build([headers_with(**values)], one())


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """pydicom refuses to write what is not legal, and reads anything."""
    monkeypatch.setattr(config.settings, "writing_validation_mode", config.RAISE)
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)


@pytest.mark.parametrize("nth", range(6))
@pytest.mark.filterwarnings("ignore:Found unknown escape sequence")
def test_malformed_values_are_normalised_cut_or_left_out(tmp_path: Path, nth: int) -> None:
    pairs = {k: list(values.items())[nth % len(values)] for k, values in MALFORMED.items()}
    report = report_with(**{keyword: value for keyword, (value, _) in pairs.items()})
    document = read(report)
    assert document.PatientID == "P1"
    assert {
        keyword: str(document[keyword].value) if keyword in document else None for keyword in pairs
    } == {keyword: expected for keyword, (_, expected) in pairs.items()}
    (tmp_path / "sr.dcm").write_bytes(report.content)
    assert validation_errors(tmp_path / "sr.dcm") == []


def test_a_legal_text_is_not_cut_although_it_has_more_bytes_than_characters() -> None:
    description = "Ü" * 64
    document = read(report_with(StudyDescription=description, PatientName=description))
    assert (document.StudyDescription, str(document.PatientName)) == (description, description)


@pytest.mark.parametrize("identifier", ["12\\345", "  0042", "Ž-7", "a\tb", "0042\\"])
def test_the_patients_identifier_is_the_images(identifier: str) -> None:
    """A PACS compares it, so that any change would make another patient."""
    report = report_with(PatientID=identifier)
    raw = dcmread(BytesIO(report.content)).get_item("PatientID")
    assert raw.value.decode().rstrip(" ") == identifier


def test_an_identifier_that_is_too_long_is_left_out(tmp_path: Path) -> None:
    report = report_with(PatientID=LONG)
    (tmp_path / "sr.dcm").write_bytes(report.content)
    assert dcmread(tmp_path / "sr.dcm").PatientID == ""
    assert validation_errors(tmp_path / "sr.dcm") == []


def test_a_geometry_that_is_not_one_is_not_described(tmp_path: Path) -> None:
    for values in (
        {"PixelSpacing": "0\\0", "FrameOfReferenceUID": "none"},
        {"SliceThickness": "0"},
        {"SpacingBetweenSlices": "0"},
        {"ImagePositionPatient": "nan\\0\\0"},
    ):
        report = report_with(**values)
        (tmp_path / "sr.dcm").write_bytes(report.content)
        assert validation_errors(tmp_path / "sr.dcm") == []
        shown = subprocess.run(
            ["dsrdump", tmp_path / "sr.dcm"], capture_output=True, text=True, check=True
        ).stdout
        assert '="0" (mm' not in shown
        assert "none" not in shown
