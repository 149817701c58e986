"""Writes the rows of instances whose files are durable: patient, study, series, instance.

Many at once, in one transaction: a row that names a file is written only while that file is there,
and all under the study's lock, so that retention and deletion come before or after, never between.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from db import studies
from db.database import insert_if_new
from db.models import AuditEvent, Instance, Patient, Series, Study, Table, Tombstone
from db.read_models import study_search
from db.types import db_now
from lumbar.dicom.instance_identity import Identity
from lumbar.log import get_logger

log = get_logger()

OTHER_PATIENT = "the study was first received for another patient"
OTHER_CONTENT = "other content under the same SOP Instance UID"


class IngestResult(StrEnum):
    """The outcome for an instance that is now durable and registered."""

    NEW = "new"
    DUPLICATE = "duplicate"  # the same bytes as before: nothing changed
    QUARANTINED = "quarantined"  # kept, but not used: it contradicts what was received before


@dataclass(frozen=True)
class StoredInstance:
    """An instance whose bytes are durable."""

    identity: Identity
    transfer_syntax_uid: str
    digest: str  # sha256 of transfer syntax UID, a NUL and the data set
    file: str  # relative to the store
    source: str
    age_s: float = 0.0  # since it was received

    @property
    def key(self) -> tuple[str, str]:
        """What tells instances apart: one UID may have several contents."""
        return self.identity.sop_instance_uid, self.digest


def write_rows(
    session: Session, instances: Sequence[StoredInstance], ensure_file: Callable[[str], int]
) -> list[IngestResult]:
    """Writes the rows of all instances; the results are in their order.

    ``ensure_file`` is called with each file under the study's lock, puts it back if it was removed
    meanwhile, and returns its size in bytes.
    """
    order = sorted(range(len(instances)), key=lambda n: instances[n].identity.study_instance_uid)
    results: dict[int, IngestResult] = {}
    # Sorted by study, so that two registrars lock studies in the same order.
    for _, group in groupby(order, key=lambda n: instances[n].identity.study_instance_uid):
        numbers = list(group)
        batch = _StudyBatch(session, [instances[n] for n in numbers], ensure_file)
        results.update(zip(numbers, batch.write(), strict=True))
    return [results[n] for n in range(len(instances))]


@dataclass
class _StudyBatch:
    """Instances of one study."""

    session: Session
    instances: Sequence[StoredInstance]
    ensure_file: Callable[[str], int]
    known: dict[tuple[str, str], Instance | None] = field(default_factory=dict)
    # of each SOP Instance UID: digest and study of the content in use
    in_use: dict[str, tuple[str, int]] = field(default_factory=dict)

    def write(self) -> list[IngestResult]:
        now = self.session.scalars(select(db_now())).one()
        study = self._study(now)
        series = self._series(study)
        self._read_known(study)
        rows, results = list[dict[str, Any]](), list[IngestResult]()
        for stored in self.instances:
            size = self.ensure_file(stored.file)
            if stored.key in self.known:
                self._restore(study, stored, size)
                results.append(IngestResult.DUPLICATE)
                continue
            quarantined = self._contradiction(study, stored)
            row = _row(stored, series, now)
            rows.append(row | {"size": size, "quarantined": quarantined})
            self.known[stored.key] = None
            if quarantined:
                self._note_quarantined(study, stored, quarantined)
                results.append(IngestResult.QUARANTINED)
            else:
                self.in_use[stored.identity.sop_instance_uid] = (stored.digest, study.id)
                results.append(IngestResult.NEW)
        if rows:
            self.session.execute(insert(Instance), rows)
        if IngestResult.NEW in results:
            stat = any(
                stored.identity.stat
                for stored, result in zip(self.instances, results, strict=True)
                if result is IngestResult.NEW
            )
            studies.instance_arrived(self.session, study.id, stat=stat)
        return results

    def _study(self, now: datetime) -> Study:
        """The study, created with its patient if it is new.

        Its row is locked, so that two registrars cannot register one UID at once.
        """
        first = self.instances[0]
        identity = first.identity
        locked = (
            select(Study)
            .where(Study.study_instance_uid == identity.study_instance_uid)
            .with_for_update(of=Study)
            .execution_options(populate_existing=True)
        )
        study = self.session.scalar(locked)
        if study is not None:
            return study
        patient_key = {"issuer": _issuer(first), "patient_identifier": identity.patient_identifier}
        patient = {
            "name": identity.patient_name,
            "birth_date": identity.birth_date,
            "sex": identity.sex,
        }
        patient_id = _row_id(self.session, Patient, patient_key, patient)
        added = insert_if_new(
            self.session,
            Study,
            ("study_instance_uid",),
            study_instance_uid=identity.study_instance_uid,
            patient_id=patient_id,
            accession_number=identity.accession_number,
            study_date=identity.study_date,
            study_time=identity.study_time,
            description=identity.study_description,
            scanner=identity.scanner,
            first_received_at=now - timedelta(seconds=first.age_s),
            **_next_id(self.session),
        )
        study = self.session.scalars(locked).one()
        if added:
            self.session.add_all(study_search.keys_of(study))
        return study

    def _series(self, study: Study) -> dict[str, int]:
        """The ids of the instances' series, by UID."""
        ids: dict[str, int] = {}
        for identity in (stored.identity for stored in self.instances):
            uid = identity.series_instance_uid
            if uid not in ids:
                key = {"study_id": study.id, "series_instance_uid": uid}
                values = {
                    "series_number": identity.series_number,
                    "description": identity.series_description,
                }
                ids[uid] = _row_id(self.session, Series, key, values)
        return ids

    def _read_known(self, study: Study) -> None:
        """What is registered under the instances' UIDs."""
        uids = {stored.identity.sop_instance_uid for stored in self.instances}
        for row in self.session.scalars(
            select(Instance)
            .where(Instance.sop_instance_uid.in_(uids))
            .execution_options(populate_existing=True)
        ):
            self.known[row.sop_instance_uid, row.sha256] = row
            if row.quarantined is None:
                self.in_use[row.sop_instance_uid] = (row.sha256, row.series.study_id)

    def _restore(self, study: Study, stored: StoredInstance, size: int) -> None:
        """Unmarks an image as removed, if retention had removed its file."""
        row = self.known[stored.key]
        if row is None:
            return
        row.size = size
        if row.removed_at is not None:
            row.removed_at = None
            study.images_removed_at = None

    def _contradiction(self, study: Study, stored: StoredInstance) -> str | None:
        """The reason to quarantine an instance, or None.

        It would file one patient's image under another patient, or replace an image.
        """
        identity, patient = stored.identity, study.patient
        same_patient = patient.patient_identifier == identity.patient_identifier
        if same_patient and not identity.patient_identifier:
            known = (patient.name, patient.birth_date)
            same_patient = known == (identity.patient_name, identity.birth_date)
        if not same_patient:
            return OTHER_PATIENT
        in_use = self.in_use.get(identity.sop_instance_uid)
        return None if in_use in (None, (stored.digest, study.id)) else OTHER_CONTENT

    def _note_quarantined(self, study: Study, stored: StoredInstance, why: str) -> None:
        event = "instance.quarantined"
        detail = {"why": why}
        self.session.add(
            AuditEvent(event=event, actor=stored.source, study_id=study.id, detail=detail)
        )
        log.warning("instance.quarantined", study=study.id, why=why)


def _row(stored: StoredInstance, series: dict[str, int], now: datetime) -> dict[str, Any]:
    identity = stored.identity
    return {
        "series_id": series[identity.series_instance_uid],
        "sop_instance_uid": identity.sop_instance_uid,
        "sop_class_uid": identity.sop_class_uid,
        "transfer_syntax_uid": stored.transfer_syntax_uid,
        "sha256": stored.digest,
        "file": stored.file,
        "slices": identity.slices,
        "role": identity.role,
        "source": stored.source,
        "received_at": now - timedelta(seconds=stored.age_s),
    }


def _next_id(session: Session) -> dict[str, int]:
    """The id of a new study on SQLite, which would otherwise reuse the id of a deleted one.

    The audit trail names studies by their ids.
    """
    if session.get_bind().dialect.name != "sqlite":
        return {}
    newest_ids = func.max(Study.id), func.max(Tombstone.study_id)
    return {"id": 1 + max(session.scalar(select(newest)) or 0 for newest in newest_ids)}


def _issuer(stored: StoredInstance) -> str:
    """Who issued the PatientID.

    If that is empty, or neither the header nor the sender says who, the study stands for the
    patient.
    """
    identity = stored.identity
    issuer = identity.issuer or stored.source if identity.patient_identifier else ""
    return issuer or identity.study_instance_uid


def _row_id(
    session: Session, table: type[Table], key: dict[str, Any], values: dict[str, Any]
) -> int:
    """The id of the row with this key; it is created with these values if there is none."""
    insert_if_new(session, table, tuple(key), **key, **values)
    return int(session.execute(select(table.id).filter_by(**key)).scalar_one())  # type: ignore[attr-defined]
