"""What a report copies from the images: patient, study and the geometry of each image."""

import re
import warnings
from collections.abc import Sequence

from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.uid import (
    UID,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)
from pydicom.valuerep import PersonName

from lumbar.elements import date, first_positive, items, numbers, stored_text, text, time

_MR_IMAGES = frozenset(
    (
        MRImageStorage,
        EnhancedMRImageStorage,
        EnhancedMRColorImageStorage,
        LegacyConvertedEnhancedMRImageStorage,
    )
)

# Characters (PS3.5 6.2): of LO and of each group of a PN; and of the identifiers, LO and SH.
_LENGTH = 64
_IDENTIFIERS = {"IssuerOfPatientID": 64, "StudyID": 16, "AccessionNumber": 16}
_REQUEST = {
    "AccessionNumber": 16,
    "PlacerOrderNumberImagingServiceRequest": 64,
    "FillerOrderNumberImagingServiceRequest": 64,
    "RequestedProcedureID": 16,
    "RequestedProcedureDescription": 64,
}
_CODE = {"CodeValue": 16, "CodingSchemeDesignator": 16, "CodeMeaning": 64}
_UTC_OFFSET = re.compile(r"\+(0[0-9]|1[0-3])[0-5][0-9]|\+1400|-(0[0-9]|1[01])[0-5][0-9]|-1200")
_NAMES = ("PatientName", "ReferringPhysicianName")
_OPTIONAL = ("IssuerOfPatientID", "StudyDescription")
_GROUPS, _COMPONENTS = 3, 5  # of a name
_ILLEGAL = re.compile(r"[\x00-\x1f\x7f-\x9f\\]+")  # in a single text or name
_GEOMETRY = {
    "PixelSpacing": 2,
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "SliceThickness": 1,
}
_POSITIVE = ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")


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
    """Copies patient and study of a source, so that the report belongs to both.

    A PACS matches PatientID, which is copied as it is, even with an illegal backslash. Other values
    are legal in the report: dates are normalised, descriptions and names are cut. Identifiers that
    do not fit stay empty, as a part could identify another one, and so do unreadable values.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's quote the values
        values = _patient_and_study(source)
        identifier = stored_text(source, "PatientID")
        if len(identifier) > _LENGTH:
            identifier = ""
    document["PatientID"] = DataElement("PatientID", "LO", identifier, validation_mode=IGNORE)
    for keyword, value in values.items():
        if value or keyword not in _OPTIONAL:
            setattr(document, keyword, value)


def _patient_and_study(source: Dataset) -> dict[str, str | PersonName]:
    """What the report states of them beside the identifier, by keyword."""
    values: dict[str, str | PersonName] = {
        "PatientBirthDate": date(source, "PatientBirthDate"),
        "StudyDate": date(source, "StudyDate"),
        "StudyTime": time(source, "StudyTime"),
        "StudyDescription": _cut(_ILLEGAL.sub(" ", text(source, "StudyDescription"))),
    }
    for keyword, length in _IDENTIFIERS.items():
        values[keyword] = _legal(source, keyword, length)
    sex = text(source, "PatientSex").upper()
    values["PatientSex"] = sex if sex in ("M", "F", "O") else ""
    # From str, which does not depend on the source's character set.
    for keyword in _NAMES:
        values[keyword] = PersonName(_legal_name(text(source, keyword)))
    return values


def requested_procedures(sources: Sequence[Dataset]) -> list[Dataset]:
    """The requested procedures that the images fulfil, each once (PS3.3 table C.17-2).

    As an image's Referenced Request Sequence states them or, without one, its Request Attributes
    Sequence.
    """
    found: dict[str, Dataset] = {}
    for source in sources:
        stated = items(source, "ReferencedRequestSequence")
        for request in stated or items(source, "RequestAttributesSequence"):
            procedure = Dataset()
            procedure.StudyInstanceUID = source.StudyInstanceUID
            procedure.ReferencedStudySequence = []
            for keyword, length in _REQUEST.items():
                setattr(procedure, keyword, _legal(request, keyword, length))
            codes = items(request, "RequestedProcedureCodeSequence")
            procedure.RequestedProcedureCodeSequence = list(filter(None, map(_code, codes)))
            if issuer := _issuer_of_accession_number(request):
                procedure.IssuerOfAccessionNumberSequence = [issuer]
            found.setdefault(str(procedure), procedure)
    return [procedure for _, procedure in sorted(found.items())]


def copy_issuer_of_accession_number(document: Dataset, sources: Sequence[Dataset]) -> None:
    """Copies the issuer from an image that states the document's accession number."""
    for source in sources:
        same = text(source, "AccessionNumber") == text(document, "AccessionNumber")
        if same and (issuer := _issuer_of_accession_number(source)):
            document.IssuerOfAccessionNumberSequence = [issuer]
            return


def utc_offset(sources: Sequence[Dataset]) -> str:
    """TimezoneOffsetFromUTC, if all images that state one state the same; empty if not."""
    stated = {text(source, "TimezoneOffsetFromUTC") for source in sources} - {""}
    offset = stated.pop() if len(stated) == 1 else ""
    return offset if _UTC_OFFSET.fullmatch(offset) else ""


def _issuer_of_accession_number(dataset: Dataset) -> Dataset | None:
    """PS3.3 table 10-17, HL7v2 Hierarchic Designator Macro; None if it says nothing."""
    for item in items(dataset, "IssuerOfAccessionNumberSequence"):
        issuer = Dataset()
        for keyword in ("LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType"):
            if value := text(item, keyword):
                setattr(issuer, keyword, value)
        complete = "UniversalEntityID" in issuer and "UniversalEntityIDType" in issuer
        if complete or "LocalNamespaceEntityID" in issuer:
            return issuer
    return None


def _code(item: Dataset) -> Dataset | None:
    """A code with its scheme and meaning; None if it is incomplete."""
    code = Dataset()
    for keyword, length in _CODE.items():
        if not (value := _legal(item, keyword, length)):
            return None
        setattr(code, keyword, value)
    return code


def _legal(dataset: Dataset, keyword: str, length: int) -> str:
    """A text of the dataset; empty if it is longer or has illegal characters."""
    value = text(dataset, keyword)
    return "" if len(value) > length or _ILLEGAL.search(value) else value


def _legal_name(name: str) -> str:
    """A name with as many and as long parts as PS3.5 6.2 allows."""
    groups = _ILLEGAL.sub(" ", name).split("=")[:_GROUPS]
    components = ("^".join(group.split("^")[:_COMPONENTS]) for group in groups)
    return "=".join(map(_cut, components))


def _cut(value: str) -> str:
    """At most ``_LENGTH`` characters; a longer one is cut to as many bytes, which some count."""
    if len(value) > _LENGTH:
        value = value.encode(errors="replace")[:_LENGTH].decode(errors="ignore")
    return value.strip()


def library_entries(sources: Sequence[Dataset]) -> list[Dataset]:
    """The MR images in the form that an Image Library requires.

    Images without rows and columns are omitted. Those whose geometry is incomplete, or is in
    functional groups, are listed without geometry.
    """
    return [
        _library_entry(source)
        for source in sources
        if is_mr_image(source)
        and first_positive([source], "Rows")
        and first_positive([source], "Columns")
    ]


def _library_entry(source: Dataset) -> Dataset:
    entry = evidence_of(source)
    entry.Rows, entry.Columns = source.Rows, source.Columns
    frame = text(source, "FrameOfReferenceUID")
    if UID(frame).is_valid:
        entry.FrameOfReferenceUID = frame
    if all(_are_known(source, keyword, count) for keyword, count in _GEOMETRY.items()):
        entry.Modality = "MR"
        for keyword in _GEOMETRY:
            setattr(entry, keyword, source[keyword].value)
        if _are_known(source, "SpacingBetweenSlices", 1):
            entry.SpacingBetweenSlices = source.SpacingBetweenSlices
    else:
        # For Modality MR, highdicom describes the geometry, and fails if it is missing.
        entry.Modality = "OT"
    return entry


def _are_known(source: Dataset, keyword: str, count: int) -> bool:
    values = numbers(source, keyword)
    return len(values) == count and (keyword not in _POSITIVE or min(values) > 0)
