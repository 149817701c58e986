"""What is kept but not used, and what an operator does with it: release it, or drop it.

Instances with a row are quarantined for the reason in it. Files that could not be registered have
no row (``db.registration``); their reason is in the audit trail.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import audit, patients, rejections, stated_attributes, studies
from db.audit import Participant
from db.context import SiteContext
from db.models import (
    REJECTED,
    AuditEvent,
    Instance,
    QuarantineReason,
    Series,
    StatedAttributes,
    Study,
)
from db.types import db_now
from lumbar.errors import NotFound, Permanent
from lumbar.log import get_logger
from lumbar.store.files import QUARANTINED, raising_store_full
from lumbar.store.shares import ArrivedFile
from lumbar.study_attributes import StudyAttributes

log = get_logger()

_ID = re.compile("([0-9]{1,9})-[0-9a-f]{8}")


@dataclass(frozen=True)
class QuarantinedInstance:
    """An instance that is kept but not used, or a file that could not be registered.

    What is not known of such a file is empty.
    """

    id: str  # of its row and content, or the file's name
    study_instance_uid: str
    sop_instance_uid: str
    patient_identifier: str  # as the instance itself states it, like the next two
    patient_name: str
    accession_number: str
    source: str
    received_at: datetime
    size: int  # bytes
    reason: str
    has_file: bool  # False: retention has removed it


def list_quarantined(
    site: SiteContext, study_instance_uid: str | None = None, limit: int | None = None
) -> list[QuarantinedInstance]:
    """What is quarantined, of one study or of all, the newest first."""
    rows = _registered(site, study_instance_uid, limit) + _unregistrable(site, study_instance_uid)
    rows.sort(key=lambda row: row.received_at, reverse=True)
    return rows[:limit]


def release(site: SiteContext, instance_id: str, actor: Participant) -> None:
    """Uses a quarantined instance after all, in place of the copy in use; the study is read again.

    A file that could not be registered is registered again.

    Raises:
        NotFound: nothing is quarantined under this id.
        Permanent: it states another patient or accession number than its study, or has no file.
    """
    if instance_id.endswith(".dcm"):
        file = _file(site, instance_id)
        with site.database.transaction() as session:
            audit.note(session, "instance.released", actor, file=instance_id)
        site.store.retry_quarantined([file])
        return
    with site.database.transaction() as session:
        row, study = _locked(session, instance_id)
        copy = _copy_in_use(session, row, study)
        _require_releasable(session, row, study, copy)
        if row.quarantined in REJECTED:
            rejections.forget(session, study.id, row.sop_instance_uid)
        if copy is not None:
            copy.quarantined = QuarantineReason.REPLACED.value
            session.flush()
        row.quarantined = None
        session.flush()
        stated_attributes.refresh(session, study)
        if row.is_image:
            studies.images_changed(session, study.id)
        else:
            rejections.apply(session, study, actor)  # it may be a note
        audit.note(session, "instance.released", actor, study_id=study.id, instance=row.id)
        log.info("instance.released", study=study.id, instance=row.id)


def drop(site: SiteContext, instance_id: str, actor: Participant) -> None:
    """Deletes a quarantined instance, its file included.

    Raises:
        NotFound: nothing is quarantined under this id.
        Transient: the disk or the database failed; drop it again.
    """
    if instance_id.endswith(".dcm"):
        file = _file(site, instance_id)
        with site.database.transaction() as session:
            audit.note(session, "instance.dropped", actor, file=instance_id)
            site.store.remove(f"{QUARANTINED}/{file}")
        return
    with site.database.transaction() as session:
        row, study = _locked(session, instance_id)
        study_id, row_id = study.id, row.id
        row.removed_at = db_now()
        audit.note(session, "instance.dropped", actor, study_id=study_id, instance=row_id)
        log.info("instance.dropped", study=study_id, instance=row_id)
    _remove(site, study_id, row_id)


def count(session: Session) -> int:
    """How many registered instances are quarantined."""
    counted = select(func.count()).where(Instance.quarantined.is_not(None))
    return session.scalar(counted) or 0


def _remove(site: SiteContext, study_id: int, row_id: int) -> None:
    """Removes a dropped instance's file and row, unless it has been sent again meanwhile.

    The file first, as one without a row is registered again at the next start; under the study's
    lock, as an instance that is sent again needs it.
    """
    with site.database.transaction() as session:
        studies.lock(session, study_id)
        row = session.get(Instance, row_id, populate_existing=True)
        if row is None or row.removed_at is None:
            return
        site.store.remove(row.file)
        with raising_store_full(site.store.root), suppress(FileNotFoundError):
            site.store.sync({row.file})  # else a power cut could bring it back
        rejections.note_dropped(session, row_id)
        session.delete(row)


def _registered(
    site: SiteContext, study_instance_uid: str | None, limit: int | None
) -> list[QuarantinedInstance]:
    statement = (
        select(Instance, Study.study_instance_uid, StatedAttributes)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .outerjoin(StatedAttributes, StatedAttributes.id == Instance.attributes_id)
        .where(Instance.quarantined.is_not(None))
        .order_by(Instance.received_at.desc(), Instance.id.desc())
        .limit(limit)
    )
    if study_instance_uid is not None:
        statement = statement.where(Study.study_instance_uid == study_instance_uid)
    with site.database.reading() as session:
        return [
            _listed(row, uid, stated) for row, uid, stated in session.execute(statement).unique()
        ]


def _listed(row: Instance, study_uid: str, stated: StatedAttributes | None) -> QuarantinedInstance:
    attributes = stated_attributes.attributes_of(stated) if stated else StudyAttributes()
    return QuarantinedInstance(
        id=_id_of(row),
        study_instance_uid=study_uid,
        sop_instance_uid=row.sop_instance_uid,
        patient_identifier=attributes.patient_identifier,
        patient_name=attributes.patient_name,
        accession_number=attributes.accession_number,
        source=row.source,
        received_at=row.received_at,
        size=row.size,
        reason=row.quarantined or "",
        has_file=row.removed_at is None,
    )


def _unregistrable(site: SiteContext, study_instance_uid: str | None) -> list[QuarantinedInstance]:
    """The files without a row, of which only the name and the audit trail tell anything."""
    files = [ArrivedFile.parse(site.store.path(file)) for file in site.store.files(QUARANTINED)]
    arrived = [
        file
        for file in files
        if file is not None and study_instance_uid in (None, file.study_instance_uid)
    ]
    if not arrived:
        return []
    with site.database.reading() as session:
        events = session.scalars(
            select(AuditEvent)
            .where(AuditEvent.event == "instance.unregistrable")
            .order_by(AuditEvent.id)
        )
        reasons = {str(event.detail["file"]): str(event.detail["why"]) for event in events}
    listed = []
    for file in arrived:
        with suppress(FileNotFoundError):  # released or dropped meanwhile
            listed.append(
                QuarantinedInstance(
                    id=file.path.name,
                    study_instance_uid=file.study_instance_uid,
                    sop_instance_uid="",
                    patient_identifier="",
                    patient_name="",
                    accession_number="",
                    source="",
                    received_at=datetime.fromtimestamp(file.received_ns / 1e9, UTC),
                    size=file.path.stat().st_size,
                    reason=reasons.get(f"{QUARANTINED}/{file.path.name}", "not known"),
                    has_file=True,
                )
            )
    return listed


def _file(site: SiteContext, name: str) -> str:
    """The name, if a file that could not be registered has it.

    Raises:
        NotFound: none has.
    """
    if f"{QUARANTINED}/{name}" not in site.store.files(QUARANTINED):
        raise NotFound(_unknown(name))
    return name


def _id_of(row: Instance) -> str:
    """Not the row's id alone, which SQLite may give to another instance once this one is gone."""
    return f"{row.id}-{row.sha256[:8]}"


def _locked(session: Session, instance_id: str) -> tuple[Instance, Study]:
    """A quarantined instance and its study, locked.

    Raises:
        NotFound: nothing is quarantined under this id.
    """
    parts = _ID.fullmatch(instance_id)
    row = session.get(Instance, int(parts[1])) if parts else None
    if row is None:
        raise NotFound(_unknown(instance_id))
    study_id = row.series.study_id
    studies.lock(session, study_id)
    row = session.get(Instance, row.id, populate_existing=True)
    if row is None or row.quarantined is None or _id_of(row) != instance_id:
        raise NotFound(_unknown(instance_id))
    return row, session.get_one(Study, study_id, populate_existing=True)


def _require_releasable(
    session: Session, row: Instance, study: Study, copy: Instance | None
) -> None:
    """Requires that the study's findings remain those of its patient.

    Raises:
        Permanent: it must not or cannot be used.
    """
    if row.removed_at is not None:
        raise Permanent("its file was removed to make room; send it again")
    if copy is not None and copy.is_image and not row.is_image:
        raise Permanent("an image has its SOP Instance UID; drop it")
    by_id = stated_attributes.by_id(session, study.id)
    stated = by_id.get(row.attributes_id or 0)
    if stated is None:
        raise Permanent("an earlier version quarantined it without its patient; send it again")
    known = stated_attributes.of_study(session, study.id)
    patient = known if known.patient_identifier else patients.attributes_of(study.patient)
    of_copy = by_id.get(copy.attributes_id or 0) if copy is not None else None
    corrects = of_copy is not None and stated.corrects(of_copy) and stated.corrects(patient)
    if corrects or not stated.same_patient(patient):
        raise Permanent(
            "it states another patient or accession number than the study; correct the whole "
            "study (`lumbar study correct`), or drop it"
        )


def _copy_in_use(session: Session, row: Instance, study: Study) -> Instance | None:
    """The copy in use under the same SOP Instance UID.

    Raises:
        Permanent: another study has it.
    """
    copy = session.scalar(
        select(Instance).where(
            Instance.sop_instance_uid == row.sop_instance_uid, Instance.quarantined.is_(None)
        )
    )
    if copy is not None and copy.series.study_id != study.id:
        raise Permanent("an instance of another study has its SOP Instance UID")
    return copy


def _unknown(instance_id: str) -> str:
    return f"nothing is quarantined under {instance_id!r}; `lumbar quarantine list` shows what is"
