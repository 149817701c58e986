"""What an instance says it is and whom it belongs to, read from its header in a child process.

``python -m lumbar.dicom.instance_identity`` is the child process. What it could read within its limits, a worker can
read within them too.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset

from lumbar.dicom.headers import read_header, refusing, slice_headers, text
from lumbar.dicom.sandbox import Answer, Child, Died, serve
from lumbar.errors import NotDicom
from lumbar.spine.anatomy import Role
from lumbar.spine.roles import role_of

SECONDS = 10  # for one header
MEMORY = 192 * 2**20  # bytes, for one header

SCANNER = ("Manufacturer", "ManufacturerModelName", "StationName")

child = Child("lumbar.dicom.instance_identity")


@dataclass(frozen=True)
class Identity:
    """Values of one header; texts are trimmed to the lengths given, empty where the header has none."""

    sop_class_uid: str  # UIDs as they stand there, not checked
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient_identifier: (
        str  # 64; may be empty (type 2): then nothing but the study tells whose it is
    )
    issuer: str  # 64; of the patient's identifier
    patient_name: str  # 320
    birth_date: str  # 8
    sex: str  # 16
    accession_number: str  # 64
    study_date: str  # 8
    study_time: str  # 16
    study_description: str  # 64
    scanner: str  # 64; maker, model, station
    stat: bool  # ordered as urgent
    series_number: int | None
    series_description: str  # 64
    slices: int  # frames, or 1
    role: Role | None  # what a whole series of such slices would be read for


def identify(path: Path) -> Identity:
    """Reads a DICOM file's header.

    Raises:
        NotDicom: it cannot be read within the limits of time and memory.
    """
    try:
        described, _ = child.ask({"path": str(path.resolve())})
    except Died:
        raise NotDicom("the header takes more time or memory than a header may") from None
    if "why" in described:
        raise NotDicom(described["why"])
    role = described.pop("role")
    del described["bytes"]
    return Identity(**described, role=Role(role) if role else None)


def identity_of(header: Dataset) -> Identity:
    """The identity that a header states. Raises NotDicom where its elements are damaged."""
    with refusing("the header cannot be read; it may be damaged"):
        slices, role = _slices(header)
        return Identity(
            sop_class_uid=text(header, "SOPClassUID")[:128],
            sop_instance_uid=text(header, "SOPInstanceUID")[:128],
            series_instance_uid=text(header, "SeriesInstanceUID")[:128],
            study_instance_uid=text(header, "StudyInstanceUID")[:128],
            patient_identifier=_text(header, "PatientID", 64),
            issuer=_text(header, "IssuerOfPatientID", 64),
            patient_name=_text(header, "PatientName", 320),
            birth_date=_text(header, "PatientBirthDate", 8),
            sex=_text(header, "PatientSex", 16),
            accession_number=_text(header, "AccessionNumber", 64),
            study_date=_text(header, "StudyDate", 8),
            study_time=_text(header, "StudyTime", 16),
            study_description=_text(header, "StudyDescription", 64),
            scanner=_scanner(header),
            stat=_text(header, "RequestedProcedurePriority", 16).upper() in ("STAT", "HIGH"),
            series_number=_whole(header, "SeriesNumber"),
            series_description=_text(header, "SeriesDescription", 64),
            slices=slices,
            role=role,
        )


def _scanner(header: Dataset) -> str:
    """``SIEMENS Aera MRC40123``; the maker's name is left out where the model's begins with it."""
    maker, model, station = (_text(header, word, 64) for word in SCANNER)
    parts = ("" if model.lower().startswith(maker.lower()) else maker, model, station)
    return " ".join(filter(None, parts))[:64].strip()


def _slices(header: Dataset) -> tuple[int, Role | None]:
    """How many slices the instance holds and what they would be read for; geometry is judged at the analysis."""
    try:
        slices = slice_headers(header)
    except NotDicom:
        return 1, None
    return len(slices), role_of(slices[0])


def _text(header: Dataset, keyword: str, longest: int) -> str:
    """The element's text as a database can hold it: no NUL, nothing that is no character."""
    value = header.get(keyword)
    if value is None:
        return ""
    return str(value).replace("\0", "").encode("utf-8", "replace").decode().strip(" ")[:longest]


def _whole(header: Dataset, keyword: str) -> int | None:
    """An integer that fits its column; IS allows more digits than that (PS3.5 6.2)."""
    value = header.get(keyword)
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < 2**31 else None


def _answer(request: dict[str, Any]) -> Answer:
    try:
        return asdict(identity_of(read_header(Path(request["path"])))), b""
    except NotDicom as error:
        return {"why": str(error)}, b""


if __name__ == "__main__":
    serve(_answer, seconds=SECONDS, memory=MEMORY)
