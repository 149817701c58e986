"""Ingests instances, from any source: the bytes are made durable, then registered in the database.

Only then are they acknowledged. A process killed between the file and the rows leaves the file; the
sender, which got no acknowledgement, sends the instance again, and the same bytes get the same file
name. If the sender never does, ``db.reconcile`` finds the file and registers it.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import IO, Any

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db import studies
from db.database import Conflict, Database, insert_if_new
from db.models import AuditEvent, Instance, Patient, Series, Study, Table, Tombstone
from db.read_models import study_search
from lumbar.dicom.instance_identity import Identity, identify
from lumbar.errors import NotDicom, Transient
from lumbar.log import get_logger
from lumbar.store.files import StagingFile, Store

log = get_logger()

IMAGE_CLASSES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)

CHUNK = 2**20  # bytes copied at a time
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class IngestResult(StrEnum):
    """The outcome for an instance that is now durable."""

    NEW = "new"
    DUPLICATE = "duplicate"  # the same bytes as before: nothing changed
    QUARANTINED = "quarantined"  # kept, but not used: it contradicts what was received before


@dataclass(frozen=True)
class Arrival:
    """An encoded instance as it arrives."""

    # positioned at its start; in ``transfer_syntax_uid``, without file meta information
    dataset: IO[bytes]
    transfer_syntax_uid: str
    sop_class_uid: str  # as the sender announced it
    sop_instance_uid: str
    source: str  # calling AE title, or the name of another source


@dataclass(frozen=True)
class StoredInstance:
    """An instance whose bytes are durable."""

    identity: Identity
    transfer_syntax_uid: str
    digest: str  # sha256 of transfer syntax UID, a NUL and the dataset
    file: str  # relative to the store
    size: int  # of the file, bytes
    source: str


class HeaderDisagrees(NotDicom):
    """The dataset is not the instance that the sender announced."""


class RemovedMeanwhile(Transient):
    """Retention removed the file before the instance was registered."""


def ingest(database: Database, store: Store, arrival: Arrival) -> IngestResult:
    """Stores and registers one instance; on return it survives any failure.

    Raises:
        NotDicom: the dataset cannot be read, or lacks its identifiers. Nothing was kept.
        HeaderDisagrees: the dataset is not the instance announced. Nothing was kept.
        Transient: the disk or the database failed; the sender should send it again.
    """
    for announced in (arrival.sop_class_uid, arrival.sop_instance_uid):
        _require_uid(announced, "the announced SOP UID")
    with store.staging_file() as staging:
        digest, size = _write(arrival, staging)
        identity = _identify(staging, arrival)
        file = staging.commit("instances", digest)
    return register(
        database,
        store,
        StoredInstance(identity, arrival.transfer_syntax_uid, digest, file, size, arrival.source),
    )


def register(database: Database, store: Store, stored: StoredInstance) -> IngestResult:
    """Writes the rows of an instance whose bytes are durable.

    Raises:
        Transient: the database failed, or the file was removed meanwhile.
    """
    try:
        with database.transaction() as session:
            return _register(session, store, stored)
    except Conflict:  # another association registered the same SOP Instance UID just now
        with database.transaction() as session:
            return _register(session, store, stored)


def _write(arrival: Arrival, staging: StagingFile) -> tuple[str, int]:
    """Writes a DICOM file (PS3.10 7): our preamble and file meta information, the dataset as sent.

    Returns the digest and the file's size in bytes. The digest does not cover our own part: the
    same image has the same digest if another AE sends it or another version of this code gets it.
    """
    digest = sha256(arrival.transfer_syntax_uid.encode() + b"\0")
    size = staging.file.write(_head(arrival))
    while chunk := arrival.dataset.read(CHUNK):
        digest.update(chunk)
        size += staging.file.write(chunk)
    staging.file.flush()
    return digest.hexdigest(), size


def _head(arrival: Arrival) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(arrival.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(arrival.sop_instance_uid)
    meta.TransferSyntaxUID = UID(arrival.transfer_syntax_uid)
    meta.SourceApplicationEntityTitle = arrival.source[:16]
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return b"\0" * 128 + b"DICM" + buffer.getvalue()


def _identify(staging: StagingFile, arrival: Arrival) -> Identity:
    """The header's identity, checked against what was announced.

    Raises:
        NotDicom: the header cannot be read, or its UIDs are not valid (PS3.5 9.1).
        HeaderDisagrees: it names another instance, or is not an MR image.
    """
    identity = identify(staging.path)
    require_uids(identity)
    if (identity.sop_class_uid, identity.sop_instance_uid) != (
        arrival.sop_class_uid,
        arrival.sop_instance_uid,
    ):
        raise HeaderDisagrees("the dataset's SOP class or instance is not the one announced")
    if identity.sop_class_uid not in IMAGE_CLASSES:
        raise HeaderDisagrees("not an MR image")
    return identity


def require_uids(identity: Identity) -> None:
    """Requires valid UIDs of instance, series and study.

    Raises:
        NotDicom: one is missing or not valid.
    """
    _require_uid(identity.sop_instance_uid, "SOPInstanceUID")
    _require_uid(identity.series_instance_uid, "SeriesInstanceUID")
    _require_uid(identity.study_instance_uid, "StudyInstanceUID")


def _require_uid(value: str, name: str) -> None:
    if len(value) > 64 or not _UID.fullmatch(value):
        raise NotDicom(f"{name} is missing or not a UID")


def _register(session: Session, store: Store, stored: StoredInstance) -> IngestResult:
    identity = stored.identity
    study = _study(session, stored)
    series_key = {"study_id": study.id, "series_instance_uid": identity.series_instance_uid}
    series = {"series_number": identity.series_number, "description": identity.series_description}
    series_id = _row_id(session, Series, series_key, series)
    quarantined = _contradiction(session, study, stored)
    added = insert_if_new(
        session,
        Instance,
        ("sop_instance_uid", "sha256"),
        series_id=series_id,
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=identity.sop_class_uid,
        transfer_syntax_uid=stored.transfer_syntax_uid,
        sha256=stored.digest,
        size=stored.size,
        file=stored.file,
        slices=identity.slices,
        role=identity.role,
        source=stored.source,
        quarantined=quarantined,
    )
    if not added:
        _restore(session, store, study, stored)
        return IngestResult.DUPLICATE
    if not store.path(stored.file).exists():
        raise RemovedMeanwhile(
            "the image's file was removed with its study at this moment; send it again"
        )
    if quarantined:
        session.add(
            AuditEvent(
                event="instance.quarantined",
                actor=stored.source,
                study_id=study.id,
                detail={"why": quarantined},
            )
        )
        log.warning("instance.quarantined", study=study.id, why=quarantined)
        return IngestResult.QUARANTINED
    studies.instance_arrived(session, study.id, stat=identity.stat)
    return IngestResult.NEW


def _restore(session: Session, store: Store, study: Study, stored: StoredInstance) -> None:
    """Unmarks an image as removed, if retention had removed its file and it was sent again.

    ``db.retention`` explains why the two do not interfere with each other.

    Raises:
        RemovedMeanwhile: the file was being removed at this moment.
    """
    restored = session.execute(
        update(Instance)
        .where(
            Instance.sop_instance_uid == stored.identity.sop_instance_uid,
            Instance.sha256 == stored.digest,
        )
        .where(Instance.removed_at.is_not(None))
        .values(removed_at=None, size=stored.size)
    )
    if not restored.rowcount:  # type: ignore[attr-defined]
        return
    if not store.path(stored.file).exists():
        raise RemovedMeanwhile(
            "the image's earlier file was being removed at this moment; send it again"
        )
    study.images_removed_at = None


def _study(session: Session, stored: StoredInstance) -> Study:
    """The instance's study, created with its patient if it is new.

    Its row is locked, so that two associations cannot register one UID at once.
    """
    identity = stored.identity
    locked = (
        select(Study)
        .where(Study.study_instance_uid == identity.study_instance_uid)
        .with_for_update(of=Study)
        .execution_options(populate_existing=True)
    )
    study = session.scalar(locked)
    if study is not None:
        return study
    patient_key = {"issuer": _issuer(stored), "patient_identifier": identity.patient_identifier}
    patient = {
        "name": identity.patient_name,
        "birth_date": identity.birth_date,
        "sex": identity.sex,
    }
    patient_id = _row_id(session, Patient, patient_key, patient)
    added = insert_if_new(
        session,
        Study,
        ("study_instance_uid",),
        study_instance_uid=identity.study_instance_uid,
        patient_id=patient_id,
        accession_number=identity.accession_number,
        study_date=identity.study_date,
        study_time=identity.study_time,
        description=identity.study_description,
        scanner=identity.scanner,
        stat=identity.stat,
        **_next_id(session),
    )
    study = session.scalars(locked).one()
    if added:
        session.add_all(study_search.keys_of(study))
    return study


def _next_id(session: Session) -> dict[str, int]:
    """The id of a new study on SQLite, which would otherwise reuse the id of a deleted one.

    The audit trail names studies by their ids.
    """
    if session.get_bind().dialect.name != "sqlite":
        return {}
    newest_ids = func.max(Study.id), func.max(Tombstone.study_id)
    return {"id": 1 + max(session.scalar(select(newest)) or 0 for newest in newest_ids)}


def _issuer(stored: StoredInstance) -> str:
    """Who issued the PatientID. If that is empty, the study stands for the patient."""
    if not stored.identity.patient_identifier:
        return stored.identity.study_instance_uid
    return stored.identity.issuer or stored.source


def _contradiction(session: Session, study: Study, stored: StoredInstance) -> str | None:
    """The reason to quarantine this instance, or None.

    It would file one patient's image under another patient, or replace an image.
    """
    identity, patient = stored.identity, study.patient
    same_patient = patient.patient_identifier == identity.patient_identifier
    if same_patient and not identity.patient_identifier:
        known = (patient.name, patient.birth_date)
        same_patient = known == (identity.patient_name, identity.birth_date)
    if not same_patient:
        return "the study was first received for another patient"
    earlier = session.execute(
        select(Instance.sha256, Series.study_id)
        .join(Series)
        .where(
            Instance.sop_instance_uid == identity.sop_instance_uid, Instance.quarantined.is_(None)
        )
    ).first()
    if earlier is None or (earlier.sha256, earlier.study_id) == (stored.digest, study.id):
        return None
    return "other content under the same SOP Instance UID"


def _row_id(
    session: Session, table: type[Table], key: dict[str, Any], values: dict[str, Any]
) -> int:
    """The id of the row with this key; it is created with these values if there is none."""
    insert_if_new(session, table, tuple(key), **key, **values)
    return int(session.execute(select(table.id).filter_by(**key)).scalar_one())  # type: ignore[attr-defined]
