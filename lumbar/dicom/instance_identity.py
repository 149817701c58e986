"""The identity of an instance and its patient, read from its header in a child process.

``python -m lumbar.dicom.instance_identity`` is the child process. A worker can read, within the
same limits, every MR image's header that the child process could read. Of the other classes only
the groups up to 0020 are read, which hold the UIDs, so nothing else may be taken for readable.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
)

from lumbar.dicom.header_scan import BEHIND_UIDS, scan_uids
from lumbar.dicom.headers import IMAGE_CLASSES, raising_not_dicom, read_header, slice_headers
from lumbar.dicom.part10 import read_file_meta, read_up_to, skip_foreign_groups
from lumbar.dicom.rejection_note import END as NOTE_END
from lumbar.dicom.rejection_note import RejectionNote, rejection_note_of
from lumbar.elements import date, text, time
from lumbar.errors import NotDicom, Unreadable
from lumbar.sandbox import ChildProcess, ChildProcessDied, serve
from lumbar.spine.anatomy import Role
from lumbar.spine.roles import role_of
from lumbar.study_attributes import StudyAttributes
from lumbar.untrusted_pipe import Response

SECONDS = 10  # per header
MEMORY = 192 * 2**20  # bytes, per header
NOTE_BYTES = 2**21  # of a rejection note that are read: about 13,000 references

SCANNER = ("Manufacturer", "ManufacturerModelName", "StationName")
REQUIRED = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"),
    *("PatientID", "IssuerOfPatientID", "PatientName"),
)
# All that an identity is made of, geometry and contrast of MR images aside.
KEYWORDS = (
    *REQUIRED,
    *("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "ReferringPhysicianName"),
    *("StudyDate", "StudyTime", "StudyDescription", "SeriesNumber", "SeriesDescription"),
    *SCANNER,
)

child = ChildProcess("lumbar.dicom.instance_identity", seconds=SECONDS, max_line=2 * NOTE_BYTES)


@dataclass(frozen=True)
class Identity:
    """Values of one header.

    Those of another class than the MR images may lack any but the UIDs and the patient's, because
    they are read from groups up to 0020 only, and because unreadable ones are left empty.

    Texts have at most the number of characters stated below. Longer ones are cut, but identifiers
    are left empty: one that was cut could be another's. Empty where the header has none.
    """

    sop_class_uid: str  # 128, like all UIDs; as in the header, not validated
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    # 64; may be empty (type 2), and then only the study identifies the patient
    patient_identifier: str
    issuer: str  # 64; of the patient identifier
    patient_name: str  # 320
    birth_date: str  # YYYYMMDD
    sex: str  # 16
    accession_number: str  # 64
    study_id: str  # 16
    referring_physician: str  # 320
    study_date: str  # YYYYMMDD
    study_time: str  # HHMMSS.FFFFFF, as far as it goes
    study_description: str  # 64
    scanner: str  # 64; manufacturer, model, station
    stat: bool  # requested with STAT or HIGH priority
    series_number: int | None
    series_description: str  # 64
    # the number of frames; 1 in a single-frame instance, 0 if the class is none of the MR images
    slices: int
    role: Role | None  # that a series of such slices has
    note: RejectionNote | None  # that a Key Object Selection Document is


def identify(path: Path, *, whole: bool = False) -> Identity:
    """Reads a DICOM file's header.

    ``whole``: up to the pixels whatever its class, for a caller that reads it itself afterwards.

    Raises:
        NotDicom: it cannot be read.
        Unreadable: because of the disk, or within the time and memory limits.
    """
    try:
        response, _ = child.request({"path": str(path.resolve()), "whole": whole})
    except ChildProcessDied:
        raise Unreadable("reading the header exceeds the time or memory limit") from None
    if "error" in response:
        raise (Unreadable if response["unreadable"] else NotDicom)(response["error"])
    role, note = response.pop("role"), response.pop("note")
    del response["bytes"]
    return Identity(
        **response,
        role=Role(role) if role else None,
        note=RejectionNote.from_json(note) if note else None,
    )


def identity_of(header: Dataset, note: RejectionNote | None = None) -> Identity:
    """The identity stated in a header, which for other classes than MR images may end anywhere.

    Raises:
        NotDicom: its elements are damaged.
    """
    with raising_not_dicom("the header cannot be read; it may be damaged"):
        is_image = (text(header, "SOPClassUID") or MRImageStorage) in IMAGE_CLASSES
        if not is_image:
            header = _readable(header)
        slices, role = _slices(header) if is_image else (0, None)
        return Identity(
            sop_class_uid=text(header, "SOPClassUID")[:128],
            sop_instance_uid=text(header, "SOPInstanceUID")[:128],
            series_instance_uid=text(header, "SeriesInstanceUID")[:128],
            study_instance_uid=text(header, "StudyInstanceUID")[:128],
            **asdict(study_attributes(header)),
            scanner=_scanner(header),
            stat=_text(header, "RequestedProcedurePriority", 16).upper() in ("STAT", "HIGH"),
            series_number=_integer(header, "SeriesNumber"),
            series_description=_text(header, "SeriesDescription", 64),
            slices=slices,
            role=role,
            note=note,
        )


def study_attributes(header: Dataset) -> StudyAttributes:
    """What a header states of patient and study."""
    return StudyAttributes(
        patient_identifier=_identifier(header, "PatientID", 64),
        issuer=_identifier(header, "IssuerOfPatientID", 64),
        patient_name=_text(header, "PatientName", 320),
        birth_date=date(header, "PatientBirthDate"),
        sex=_text(header, "PatientSex", 16),
        accession_number=_identifier(header, "AccessionNumber", 64),
        study_id=_identifier(header, "StudyID", 16),
        referring_physician=_text(header, "ReferringPhysicianName", 320),
        study_date=date(header, "StudyDate"),
        study_time=time(header, "StudyTime"),
        study_description=_text(header, "StudyDescription", 64),
    )


def _readable(header: Dataset) -> Dataset:
    """The elements that can be read; one that is damaged is left out, and the object is kept.

    Raises:
        NotDicom: one that no object can do without is damaged.
    """
    readable = Dataset()
    for keyword in filter(header.__contains__, KEYWORDS):
        try:
            with raising_not_dicom(f"{keyword} cannot be read; it may be damaged"):
                readable[keyword] = header[keyword]
        except NotDicom:
            if keyword in REQUIRED:
                raise
    return readable


def _scanner(header: Dataset) -> str:
    """``SIEMENS Aera MRC40123``; no manufacturer if the model's name already begins with it."""
    manufacturer, model, station = (_text(header, keyword, 64) for keyword in SCANNER)
    repeated = model.lower().startswith(manufacturer.lower())
    parts = ("" if repeated else manufacturer, model, station)
    return " ".join(filter(None, parts))[:64].strip()


def _slices(header: Dataset) -> tuple[int, Role | None]:
    """The number of slices, and the role of the first that has one.

    The frames of one instance may be magnitude and phase. The analysis reports invalid geometry.
    """
    try:
        slices = slice_headers(header)
    except NotDicom:
        return 1, None
    return max(1, len(slices)), next(filter(None, map(role_of, slices)), None)


def _text(header: Dataset, keyword: str, max_length: int) -> str:
    """The element's text as a database can store it: no NUL, no invalid characters."""
    return _storable(text(header, keyword))[:max_length]


def _identifier(header: Dataset, keyword: str, max_length: int) -> str:
    value = _storable(text(header, keyword))
    return value if len(value) <= max_length else ""


def _storable(value: str) -> str:
    return value.replace("\0", "").encode("utf-8", "replace").decode().strip(" ")


def _integer(header: Dataset, keyword: str) -> int | None:
    """An integer that fits a 32-bit column; IS permits longer ones (PS3.5 6.2)."""
    value = header.get(keyword)
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < 2**31 else None


def _read(path: Path, *, whole: bool) -> Identity:
    """The identity of a file's instance, whose class is the one that its meta information states.

    Raises:
        NotDicom: it cannot be read.
    """
    with raising_not_dicom("the file cannot be read as DICOM; it may be damaged"):
        with path.open("rb") as stream:
            meta = read_file_meta(stream)
            sop_class = text(meta, "MediaStorageSOPClassUID")
            if whole:
                _require_limits(stream, text(meta, "TransferSyntaxUID"))
        if whole or not sop_class or sop_class in IMAGE_CLASSES:
            return identity_of(read_header(path))
        with path.open("rb") as stream:
            header = read_up_to(stream, BEHIND_UIDS, KEYWORDS)
    is_note = sop_class == KeyObjectSelectionDocumentStorage
    return identity_of(header, _note(path) if is_note else None)


def _require_limits(stream: BinaryIO, syntax: str) -> None:
    """Checks the data set that begins here as the receiver does, which has not seen an upload.

    Raises:
        NotDicom: it has too many elements, or they are too deeply nested.
    """
    if syntax == DeflatedExplicitVRLittleEndian:
        return  # refused when it is read
    skip_foreign_groups(stream)
    start = stream.tell()

    def read(count: int, offset: int) -> bytes:
        stream.seek(start + offset)
        return stream.read(count)

    scan_uids(read, syntax)


def _note(path: Path) -> RejectionNote | None:
    """The rejection note in a file; None if there is none that can be read within the limits."""
    with suppress(NotDicom), raising_not_dicom("no note"):
        with path.open("rb") as file:
            content = file.read(NOTE_BYTES)
        stream = BytesIO(content)
        header = read_up_to(stream, NOTE_END)
        if len(content) < NOTE_BYTES or stream.tell() < NOTE_BYTES:  # nothing is missing
            return rejection_note_of(header)
    return None


def _respond(request: dict[str, Any]) -> Response:
    try:
        return asdict(_read(Path(request["path"]), whole=request["whole"])), b""
    except NotDicom as error:
        return {"error": str(error), "unreadable": isinstance(error, Unreadable)}, b""


if __name__ == "__main__":
    serve(_respond, seconds=SECONDS, memory=MEMORY)
