"""One rule for every way in: bytes safe on disk, then registered, and only then is anybody told "success".

Killed after the file and before the rows, the file stays and the sender, never told "success", sends again; the same
bytes land under the same name.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import Any

import structlog
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, EnhancedMRImageStorage, MRImageStorage
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import studies
from db.session import Conflict, Database, insert_if_new
from db.tables import AuditEvent, Instance, Patient, Series, Study, Table
from lumbar.dicom.headers import read_up_to_pixels, refusing, slice_headers
from lumbar.errors import NotDicom
from lumbar.spine.anatomy import Role
from lumbar.spine.roles import role_of
from lumbar.store.files import Store, digest_of

log = structlog.get_logger()

IMAGE_CLASSES = (MRImageStorage, EnhancedMRImageStorage)

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class Taken(StrEnum):
    """What became of an instance that is now safe."""

    NEW = "new"
    AGAIN = "again"  # the same bytes as before: nothing changed
    ASIDE = "aside"  # kept, but not used: it contradicts what was received before


@dataclass(frozen=True)
class Arrival:
    """An encoded instance at the door."""

    encoded: bytes  # the dataset in ``transfer_syntax_uid``, without file meta information
    transfer_syntax_uid: str
    sop_class_uid: str  # as the sender announced it
    sop_instance_uid: str
    source: str  # calling AE title, or another name of the way in


@dataclass(frozen=True)
class Identity:
    """What the header says the instance is, and belongs to. Texts are trimmed to their columns."""

    study_instance_uid: str
    series_instance_uid: str
    patient: dict[str, str]  # columns of ``Patient`` beside its key
    issuer: str
    patient_identifier: str  # may be empty (type 2): then nothing but the study tells whose it is
    study: dict[str, Any]  # columns of ``Study`` beside its UID and patient
    series: dict[str, Any]  # columns of ``Series`` beside its UID and study
    slices: int
    role: Role | None


class HeaderDisagrees(NotDicom):
    """The dataset is not the instance that the sender announced."""


def take_in(database: Database, store: Store, arrival: Arrival) -> Taken:
    """Stores and registers one instance; on return it survives any failure.

    Raises:
        NotDicom: the dataset cannot be read, or lacks what identifies it. Nothing was kept.
        HeaderDisagrees: it is another instance than announced. Nothing was kept.
        Transient: disk or database; the sender should try again.
    """
    for announced in (arrival.sop_class_uid, arrival.sop_instance_uid):
        _require_uid(announced, "the announced SOP UID")
    content = as_file(arrival)
    identity = _identify(content, arrival)
    digest = digest_of(arrival.transfer_syntax_uid.encode(), b"\0", arrival.encoded)
    file = store.put("instances", digest, content)
    try:
        with database.transaction() as session:
            return _register(session, arrival, identity, digest, file, len(content))
    except Conflict:  # another association registered the same SOP Instance UID just now: look again
        with database.transaction() as session:
            return _register(session, arrival, identity, digest, file, len(content))


def as_file(arrival: Arrival) -> bytes:
    """The instance as a DICOM file (PS3.10 7): our preamble and file meta information, the dataset as sent."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(arrival.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(arrival.sop_instance_uid)
    meta.TransferSyntaxUID = UID(arrival.transfer_syntax_uid)
    meta.SourceApplicationEntityTitle = arrival.source[:16]
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return b"\0" * 128 + b"DICM" + buffer.getvalue() + arrival.encoded


def _identify(content: bytes, arrival: Arrival) -> Identity:
    """The header, once it is sure that it names this instance and that the names are real UIDs (PS3.5 9.1)."""
    with refusing("the dataset cannot be read; it may be damaged"):
        header = read_up_to_pixels(BytesIO(content))
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
            _require_uid(str(header.get(keyword) or ""), keyword)
        if (header.get("SOPClassUID"), header.SOPInstanceUID) != (arrival.sop_class_uid, arrival.sop_instance_uid):
            raise HeaderDisagrees("the dataset's SOP class or instance is not the one announced")
        if header.SOPClassUID not in IMAGE_CLASSES:
            raise HeaderDisagrees("not an MR image")
        slices, role = _slices(header)
        return Identity(
            study_instance_uid=str(header.StudyInstanceUID),
            series_instance_uid=str(header.SeriesInstanceUID),
            issuer=_issuer(header, arrival),
            patient_identifier=_text(header, "PatientID", 64),
            patient={
                "name": _text(header, "PatientName", 320),
                "birth_date": _text(header, "PatientBirthDate", 8),
                "sex": _text(header, "PatientSex", 16),
            },
            study={
                "accession_number": _text(header, "AccessionNumber", 64),
                "study_date": _text(header, "StudyDate", 8),
                "description": _text(header, "StudyDescription", 64),
                "stat": _text(header, "RequestedProcedurePriority", 16).upper() in ("STAT", "HIGH"),
            },
            series={
                "series_number": _whole(header, "SeriesNumber"),
                "description": _text(header, "SeriesDescription", 64),
            },
            slices=slices,
            role=role,
        )


def _issuer(header: Dataset, arrival: Arrival) -> str:
    """Who gave the patient's number; where there is none, the study stands for the patient."""
    if not _text(header, "PatientID", 64):
        return str(header.StudyInstanceUID)
    return _text(header, "IssuerOfPatientID", 64) or arrival.source


def _require_uid(value: str, name: str) -> None:
    if len(value) > 64 or not _UID.fullmatch(value):
        raise NotDicom(f"{name} is missing or not a UID")


def _slices(header: Dataset) -> tuple[int, Role | None]:
    """How many slices the instance holds and what they would be read for; geometry is judged at the analysis."""
    try:
        slices = slice_headers(header)
    except NotDicom:
        return 1, None
    return len(slices), role_of(slices[0])


def _register(session: Session, arrival: Arrival, identity: Identity, digest: str, file: str, size: int) -> Taken:
    study = _study(session, identity)
    series_key = {"study_id": study.id, "series_instance_uid": identity.series_instance_uid}
    series_id = _keep(session, Series, series_key, identity.series)
    aside = _contradiction(session, study, identity, arrival.sop_instance_uid, digest)
    added = insert_if_new(
        session,
        Instance,
        ("sop_instance_uid", "sha256"),
        series_id=series_id,
        sop_instance_uid=arrival.sop_instance_uid,
        sop_class_uid=arrival.sop_class_uid,
        transfer_syntax_uid=arrival.transfer_syntax_uid,
        sha256=digest,
        size=size,
        file=file,
        slices=identity.slices,
        role=identity.role,
        source=arrival.source,
        aside=aside,
    )
    if not added:
        return Taken.AGAIN
    if aside:
        session.add(AuditEvent(event="instance.aside", actor=arrival.source, study_id=study.id, detail={"why": aside}))
        log.warning("instance.aside", study=study.id, why=aside)
        return Taken.ASIDE
    studies.instance_arrived(session, study.id, stat=identity.study["stat"])
    return Taken.NEW


def _study(session: Session, identity: Identity) -> Study:
    """The instance's study, locked, so that two associations cannot register one UID at once; new with its patient."""
    locked = (
        select(Study)
        .where(Study.study_instance_uid == identity.study_instance_uid)
        .with_for_update(of=Study)
        .execution_options(populate_existing=True)
    )
    study = session.scalar(locked)
    if study is not None:
        return study
    patient_key = {"issuer": identity.issuer, "patient_identifier": identity.patient_identifier}
    patient_id = _keep(session, Patient, patient_key, identity.patient)
    insert_if_new(
        session,
        Study,
        ("study_instance_uid",),
        study_instance_uid=identity.study_instance_uid,
        patient_id=patient_id,
        **identity.study,
    )
    return session.scalars(locked).one()


def _contradiction(session: Session, study: Study, identity: Identity, uid: str, digest: str) -> str | None:
    """Why this instance may not be used: it would put one patient's image under another, or replace an image."""
    patient = study.patient
    same = patient.patient_identifier == identity.patient_identifier
    if same and not identity.patient_identifier:
        same = (patient.name, patient.birth_date) == (identity.patient["name"], identity.patient["birth_date"])
    if not same:
        return "the study was first received for another patient"
    before = session.execute(
        select(Instance.sha256, Series.study_id)
        .join(Series)
        .where(Instance.sop_instance_uid == uid, Instance.aside.is_(None))
    ).first()
    if before is None or (before.sha256, before.study_id) == (digest, study.id):
        return None
    return "other content under the same SOP Instance UID"


def _keep(session: Session, table: type[Table], key: dict[str, Any], first_values: dict[str, Any]) -> int:
    """The row of a key, made with these values if it is not there yet."""
    insert_if_new(session, table, tuple(key), **key, **first_values)
    return int(session.execute(select(table.id).filter_by(**key)).scalar_one())  # type: ignore[attr-defined]


def _text(header: Dataset, keyword: str, longest: int) -> str:
    value = header.get(keyword)
    return "" if value is None else str(value).replace("\0", "").strip()[:longest]


def _whole(header: Dataset, keyword: str) -> int | None:
    """An integer that fits its column; IS allows more digits than that (PS3.5 6.2)."""
    value = header.get(keyword)
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < 2**31 else None
