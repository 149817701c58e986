"""What a report takes over from the images: whose study it is, and how each image lies."""

from collections.abc import Sequence
from contextlib import suppress

from pydicom import Dataset
from pydicom.uid import (
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)
from pydicom.valuerep import DA, TM, PersonName

_MR_IMAGES = frozenset(
    (
        MRImageStorage,
        EnhancedMRImageStorage,
        EnhancedMRColorImageStorage,
        LegacyConvertedEnhancedMRImageStorage,
    )
)

_TEXTS = (
    "PatientID",
    "IssuerOfPatientID",
    "StudyID",
    "AccessionNumber",
    "StudyDescription",
)
_NAMES = ("PatientName", "ReferringPhysicianName")
_DATES_AND_TIMES = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_OPTIONAL = ("IssuerOfPatientID", "StudyDescription")
_GEOMETRY = {
    "PixelSpacing": 2,
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "SliceThickness": 1,
}


def is_mr_image(source: Dataset) -> bool:
    """Whether the report may point at it as an image."""
    return source.SOPClassUID in _MR_IMAGES


def reference(source: Dataset) -> Dataset:
    """What evidence needs: the four UIDs, and every attribute of patient and study there but empty."""
    bare = Dataset()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID"):
        setattr(bare, keyword, source[keyword].value)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(bare, keyword, "")
    for keyword in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(bare, keyword, "")
    return bare


def identify(document: Dataset, source: Dataset) -> None:
    """Give the document the patient and study of a source; what is missing or unreadable there stays empty."""
    for keyword in _TEXTS:
        if source.get(keyword) or keyword not in _OPTIONAL:
            setattr(document, keyword, str(source.get(keyword) or ""))
    for keyword in _NAMES:  # by way of str, so that the name leaves the source's character set
        setattr(document, keyword, PersonName(str(source.get(keyword) or "")))
    for keyword, parse in _DATES_AND_TIMES.items():
        text = str(source.get(keyword) or "")
        setattr(document, keyword, "")
        with suppress(ValueError):
            parse(text)
            setattr(document, keyword, text)
    sex = source.get("PatientSex")
    document.PatientSex = sex if sex in ("M", "F", "O") else ""


def library_entries(sources: Sequence[Dataset]) -> list[Dataset]:
    """The MR images, as an Image Library can describe them.

    Images without rows and columns are left out; those whose geometry is incomplete, or lies in functional groups,
    are listed without it.
    """
    return [
        _entry(source)
        for source in sources
        if is_mr_image(source) and source.get("Rows") and source.get("Columns")
    ]


def _entry(source: Dataset) -> Dataset:
    entry = reference(source)
    entry.Rows, entry.Columns = source.Rows, source.Columns
    if source.get("FrameOfReferenceUID"):
        entry.FrameOfReferenceUID = source.FrameOfReferenceUID
    if all(_has(source, keyword, count) for keyword, count in _GEOMETRY.items()):
        entry.Modality = "MR"
        for keyword in _GEOMETRY:
            setattr(entry, keyword, source[keyword].value)
        if _has(source, "SpacingBetweenSlices", 1):
            entry.SpacingBetweenSlices = source.SpacingBetweenSlices
    else:
        entry.Modality = "OT"  # highdicom describes the geometry of MR, and would not do without it
    return entry


def _has(source: Dataset, keyword: str, count: int) -> bool:
    return keyword in source and not source[keyword].is_empty and count == source[keyword].VM
