"""Instances that rejection notes name are not read (IHE RAD TF-2 4.66), whenever they arrive.

A note counts if it came from one of the sources that the site names, and once it is itself in use:
for the same patient and the same study. An instance stays rejected until an operator releases it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session

from db import audit, studies
from db.audit import Participant
from db.models import Instance, QuarantineReason, Rejection, Series, Study
from lumbar.log import get_logger
from lumbar.rejection_reason import RejectionReason

if TYPE_CHECKING:
    from lumbar.dicom.rejection_note import RejectionNote

log = get_logger()

_REASONS = {
    RejectionReason.QUALITY: QuarantineReason.REJECTED_QUALITY,
    RejectionReason.PATIENT_SAFETY: QuarantineReason.REJECTED_SAFETY,
    RejectionReason.WORKLIST_ENTRY: QuarantineReason.REJECTED_WORKLIST,
}


def record(session: Session, study: Study, row: Instance, note: "RejectionNote") -> None:
    """Records which of the study's instances a note names; those of other studies are ignored."""
    known = set(
        session.scalars(select(Rejection.sop_instance_uid).where(Rejection.note_id == row.id))
    )
    named = {uid for study_uid, uid in note.references if study_uid == study.study_instance_uid}
    session.add_all(
        Rejection(
            note_id=row.id,
            study_id=study.id,
            sop_instance_uid=uid,
            reason=str(note.reason),
            in_force=False,
        )
        for uid in sorted(named - known)
    )
    session.flush()


def of_study(session: Session, study_id: int) -> dict[str, QuarantineReason]:
    """The rejected instances of a study by SOP Instance UID; the latest note gives the reason."""
    rows = session.execute(
        select(Rejection.sop_instance_uid, Rejection.reason)
        .where(Rejection.study_id == study_id, Rejection.in_force.is_(True))
        .order_by(Rejection.id)
    )
    return {
        uid: _REASONS[RejectionReason(reason)]
        for uid, reason in rows
        if RejectionReason(reason) in _REASONS
    }


def bring_into_force(session: Session, study_id: int) -> None:
    """What the notes in use name is rejected from now on."""
    in_use = select(Instance.id).where(Instance.quarantined.is_(None))
    session.execute(
        update(Rejection)
        .where(
            Rejection.study_id == study_id,
            Rejection.in_force.is_(False),
            Rejection.note_id.in_(in_use),
        )
        .values(in_force=True)
        .execution_options(synchronize_session=False)
    )


def note_dropped(session: Session, note_id: int) -> None:
    """A note is deleted: what it has rejected stays rejected."""
    of_note = Rejection.note_id == note_id
    session.execute(delete(Rejection).where(of_note, Rejection.in_force.is_(False)))
    session.execute(update(Rejection).where(of_note).values(note_id=None))


def apply(session: Session, study: Study, actor: Participant) -> bool:
    """Takes out of use what the notes in use name; whether an image was among it.

    ``actor``: the source of the note. The study is read again without them; one of which none is
    left has nothing to read (``studies.complete``).
    """
    bring_into_force(session, study.id)
    rejected = of_study(session, study.id)
    rows = [row for row in _in_use(session, study.id) if row.sop_instance_uid in rejected]
    for row in rows:
        row.quarantined = rejected[row.sop_instance_uid]
    if not rows:
        return False
    session.flush()
    audit.note(session, "instances.rejected", actor, study_id=study.id, count=len(rows))
    log.warning("instances.rejected", study=study.id, count=len(rows), source=actor.name)
    images = any(row.is_image for row in rows)
    if images:
        studies.images_changed(session, study.id)
    return images


def forget(session: Session, study_id: int, sop_instance_uid: str) -> None:
    """An instance no longer counts as rejected, whatever notes have said."""
    for row in session.scalars(
        select(Rejection).where(
            Rejection.study_id == study_id, Rejection.sop_instance_uid == sop_instance_uid
        )
    ):
        session.delete(row)
    session.flush()


def expired(session: Session, study_id: int) -> list[int]:
    """The ids of the study's instances whose retention has expired and that still have files."""
    return list(
        session.scalars(_expired(select(Instance.id)).where(Rejection.study_id == study_id))
    )


def studies_with_expired(session: Session) -> list[int]:
    """The ids of the studies that have such instances."""
    return list(session.scalars(_expired(select(Rejection.study_id)).distinct()))


def _expired(selected: Select[tuple[int]]) -> Select[tuple[int]]:
    return (
        selected.select_from(Rejection)
        .join(Series, Series.study_id == Rejection.study_id)
        .join(
            Instance,
            (Instance.series_id == Series.id)
            & (Instance.sop_instance_uid == Rejection.sop_instance_uid),
        )
        .where(
            Rejection.reason == str(RejectionReason.RETENTION),
            Rejection.in_force.is_(True),
            Instance.removed_at.is_(None),
        )
    )


def _in_use(session: Session, study_id: int) -> Sequence[Instance]:
    return session.scalars(
        select(Instance)
        .join(Series)
        .where(Series.study_id == study_id, Instance.quarantined.is_(None))
        .execution_options(populate_existing=True)
    ).all()
