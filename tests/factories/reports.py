"""Structured Reports to test: headers, findings, and the items of a content tree."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from io import BytesIO
from zoneinfo import ZoneInfo

from highdicom.sr import Comprehensive3DSR
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from lumbar.reports.report import Predecessor, Report
from lumbar.reports.sr import draft_sr
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey
from lumbar.spine.findings import Finding, ImagePoint
from lumbar.spine.provenance import BundleIdentity, Provenance, TrainedOn

STUDY = "1.2.826.0.1.3680043.8.498.1"
SERIES = f"{STUDY}.1"
BERLIN = ZoneInfo("Europe/Berlin")
CREATED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=BERLIN)
BUNDLE = BundleIdentity("baseline", "1", "ab" * 32, TrainedOn.NOTHING, "1")
PROVENANCE = Provenance(BUNDLE, "0.1.0", "cd" * 32, (f"{SERIES}.1", f"{SERIES}.2"), "ef" * 32)
REASON = "no sagittal T1 series"


def source(number: int = 1) -> Dataset:
    """A single-frame MR header with every attribute that a scanner sends."""
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.SOPClassUID = MRImageStorage
    header.SOPInstanceUID = f"{SERIES}.{number}"
    header.StudyInstanceUID = STUDY
    header.SeriesInstanceUID = SERIES
    header.FrameOfReferenceUID = f"{STUDY}.9"
    header.Modality = "MR"
    header.Manufacturer = "Scanner"
    header.PatientID = "P1"
    header.PatientName = "Doe^Jane"
    header.PatientBirthDate = "19700102"
    header.PatientSex = "F"
    header.StudyID = "7"
    header.AccessionNumber = "A7"
    header.StudyDate, header.StudyTime = "20260304", "010203"
    header.ReferringPhysicianName = "Roe^Richard"
    header.Rows, header.Columns = 320, 256
    header.PixelSpacing = [0.7, 0.6]
    header.SliceThickness = 4
    header.ImagePositionPatient = [-10.5, 20, 30]
    header.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    return header


def minimal_header() -> Dataset:
    """A header with nothing but its UIDs."""
    header = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(header, keyword, source()[keyword].value)
    return header


def point(number: int = 1, frame: int | None = None) -> ImagePoint:
    kind = MRImageStorage if frame is None else EnhancedMRImageStorage
    return ImagePoint(
        SERIES, kind, f"{SERIES}.{number}", frame, column=100.0, row=50.25, x=1.0, y=2.0, z=3.0
    )


def assessed(key: FindingKey, where: ImagePoint) -> Finding:
    return Finding(key.condition, key.level, (0.1, 0.25, 0.65), where, shows=0.9)


def mixed() -> list[Finding]:
    """All 25: the left foramina not assessed, the rest severe."""
    left = Condition.LEFT_NEURAL_FORAMINAL_NARROWING
    return [
        Finding(key.condition, key.level, reason=REASON)
        if key.condition is left
        else assessed(key, point())
        for key in ALL_FINDINGS
    ]


def one() -> list[Finding]:
    """Enough where the number of findings makes no difference, and built ten times as fast."""
    return [assessed(ALL_FINDINGS[-1], point())]


def nothing_assessed() -> list[Finding]:
    return [Finding(key.condition, key.level, reason=REASON) for key in ALL_FINDINGS]


@cache
def standard() -> Report:
    """The report most tests read: all 25 findings, one full header."""
    return draft_sr([source()], mixed(), PROVENANCE).finish(CREATED, BERLIN)


def build(
    sources: list[Dataset] | None = None,
    findings: list[Finding] | None = None,
    provenance: Provenance = PROVENANCE,
    predecessors: Sequence[Predecessor] = (),
    number: int = 1,
) -> Report:
    draft = draft_sr(
        [source()] if sources is None else sources,
        mixed() if findings is None else findings,
        provenance,
    )
    return draft.finish(CREATED, BERLIN, number=number, predecessors=predecessors)


def read(report: Report) -> Comprehensive3DSR:
    return Comprehensive3DSR.from_dataset(dcmread(BytesIO(report.content)))


def texts(item: Dataset) -> list[str]:
    """Every text of a content tree, depth first."""
    values = [item.TextValue] if "TextValue" in item else []
    return values + [text for child in item.get("ContentSequence", []) for text in texts(child)]


def items(item: Dataset, value_type: str) -> list[Dataset]:
    """Every item of a value type in a content tree, depth first."""
    matching = [item] if item.get("ValueType") == value_type else []
    return matching + [
        match for child in item.get("ContentSequence", []) for match in items(child, value_type)
    ]
