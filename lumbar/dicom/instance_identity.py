"""The identity of an instance and its patient, read from its header in a child process.

``python -m lumbar.dicom.instance_identity`` is the child process. A worker can read, within the
same limits, every header that the child process could read.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset

from lumbar.dicom.headers import raising_not_dicom, read_header, slice_headers
from lumbar.dicom.sandbox import ChildProcess, ChildProcessDied, Response, serve
from lumbar.elements import date, text, time
from lumbar.errors import NotDicom, Unreadable
from lumbar.spine.anatomy import Role
from lumbar.spine.roles import role_of

SECONDS = 10  # per header
MEMORY = 192 * 2**20  # bytes, per header

SCANNER = ("Manufacturer", "ManufacturerModelName", "StationName")

child = ChildProcess("lumbar.dicom.instance_identity")


@dataclass(frozen=True)
class Identity:
    """Values of one header.

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
    study_date: str  # YYYYMMDD
    study_time: str  # HHMMSS.FFFFFF, as far as it goes
    study_description: str  # 64
    scanner: str  # 64; manufacturer, model, station
    stat: bool  # requested with STAT or HIGH priority
    series_number: int | None
    series_description: str  # 64
    slices: int  # the number of frames; 1 in a single-frame instance
    role: Role | None  # that a series of such slices has


def identify(path: Path) -> Identity:
    """Reads a DICOM file's header.

    Raises:
        NotDicom: it cannot be read.
        Unreadable: because of the disk, or within the time and memory limits.
    """
    try:
        response, _ = child.request({"path": str(path.resolve())})
    except ChildProcessDied:
        raise Unreadable("reading the header exceeds the time or memory limit") from None
    if "error" in response:
        raise (Unreadable if response["unreadable"] else NotDicom)(response["error"])
    role = response.pop("role")
    del response["bytes"]
    return Identity(**response, role=Role(role) if role else None)


def identity_of(header: Dataset) -> Identity:
    """The identity stated in a header.

    Raises:
        NotDicom: its elements are damaged.
    """
    with raising_not_dicom("the header cannot be read; it may be damaged"):
        slices, role = _slices(header)
        return Identity(
            sop_class_uid=text(header, "SOPClassUID")[:128],
            sop_instance_uid=text(header, "SOPInstanceUID")[:128],
            series_instance_uid=text(header, "SeriesInstanceUID")[:128],
            study_instance_uid=text(header, "StudyInstanceUID")[:128],
            patient_identifier=_identifier(header, "PatientID", 64),
            issuer=_identifier(header, "IssuerOfPatientID", 64),
            patient_name=_text(header, "PatientName", 320),
            birth_date=date(header, "PatientBirthDate"),
            sex=_text(header, "PatientSex", 16),
            accession_number=_identifier(header, "AccessionNumber", 64),
            study_date=date(header, "StudyDate"),
            study_time=time(header, "StudyTime"),
            study_description=_text(header, "StudyDescription", 64),
            scanner=_scanner(header),
            stat=_text(header, "RequestedProcedurePriority", 16).upper() in ("STAT", "HIGH"),
            series_number=_integer(header, "SeriesNumber"),
            series_description=_text(header, "SeriesDescription", 64),
            slices=slices,
            role=role,
        )


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
    return len(slices), next(filter(None, map(role_of, slices)), None)


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


def _respond(request: dict[str, Any]) -> Response:
    try:
        return asdict(identity_of(read_header(Path(request["path"])))), b""
    except NotDicom as error:
        return {"error": str(error), "unreadable": isinstance(error, Unreadable)}, b""


if __name__ == "__main__":
    serve(_respond, seconds=SECONDS, memory=MEMORY)
