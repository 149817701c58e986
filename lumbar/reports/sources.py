"""What a report copies from the images: patient, study and the geometry of each image."""

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
    """Whether the report may reference it as an image."""
    return source.SOPClassUID in _MR_IMAGES


def evidence_of(source: Dataset) -> Dataset:
    """The evidence entry of an image: its four UIDs.

    The patient and study attributes that highdicom requires are present but empty.
    """
    evidence = Dataset()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID"):
        setattr(evidence, keyword, source[keyword].value)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(evidence, keyword, "")
    for keyword in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(evidence, keyword, "")
    return evidence


def copy_patient_and_study(document: Dataset, source: Dataset) -> None:
    """Copies patient and study of a source; missing or unreadable values stay empty."""
    for keyword in _TEXTS:
        if source.get(keyword) or keyword not in _OPTIONAL:
            setattr(document, keyword, str(source.get(keyword) or ""))
    # As str, which does not depend on the source's character set.
    for keyword in _NAMES:
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
    """The MR images in the form that an Image Library requires.

    Images without rows and columns are omitted. Those whose geometry is incomplete, or is in
    functional groups, are listed without geometry.
    """
    return [
        _library_entry(source)
        for source in sources
        if is_mr_image(source) and source.get("Rows") and source.get("Columns")
    ]


def _library_entry(source: Dataset) -> Dataset:
    entry = evidence_of(source)
    entry.Rows, entry.Columns = source.Rows, source.Columns
    if source.get("FrameOfReferenceUID"):
        entry.FrameOfReferenceUID = source.FrameOfReferenceUID
    if all(_has_values(source, keyword, count) for keyword, count in _GEOMETRY.items()):
        entry.Modality = "MR"
        for keyword in _GEOMETRY:
            setattr(entry, keyword, source[keyword].value)
        if _has_values(source, "SpacingBetweenSlices", 1):
            entry.SpacingBetweenSlices = source.SpacingBetweenSlices
    else:
        # For Modality MR, highdicom describes the geometry, and fails if it is missing.
        entry.Modality = "OT"
    return entry


def _has_values(source: Dataset, keyword: str, count: int) -> bool:
    return keyword in source and not source[keyword].is_empty and count == source[keyword].VM
