"""Corrections upstream: a study is sent again under another patient, name or accession number.

The newer copies are quarantined until every image in use has one; then the study can be taken over:
all at once, in one transaction, so that it is never a mix. It is analysed again as its next
revision, whose report replaces the earlier one.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db import audit, jobs, patients, rejections, stated_attributes, studies
from db.audit import Participant
from db.database import log_committed
from db.models import Instance, JobKind, QuarantineReason, Study
from db.read_models.corrections import NEWER, Copies, copies_of, waiting
from lumbar.errors import Permanent
from lumbar.log import get_logger
from lumbar.study_attributes import StudyAttributes

log = get_logger()


def correct(session: Session, study: Study, actor: Participant, token: str | None = None) -> None:
    """Takes a study over: the newer copies replace the images in use.

    ``token``: of the correction meant (``Correction.token``); None where there is only one.

    Raises:
        Permanent: no newer copies are there, some images have none yet, or it is not clear which
            correction is meant.
    """
    studies.lock(session, study.id)
    session.refresh(study)  # as it is now; it may have been corrected while this waited
    copies = copies_of(session, study.id)
    corrections = waiting(copies)
    if not corrections:
        raise Permanent("no newer copies of the study's images state anything else")
    complete = [correction for correction in corrections if correction.complete]
    if not complete:
        first = corrections[0]
        raise Permanent(
            f"{first.images - first.replaced} of the study's {first.images} images "
            "have not been sent again yet; send the whole study again"
        )
    if token is not None:
        complete = [correction for correction in complete if correction.token == token]
    if len(complete) != 1:
        raise Permanent(
            "several corrections wait, or others than before; look at the study again, and say "
            "which one is meant"
        )
    _take_over(session, study, copies, complete[0].attributes, actor)


def correct_from(
    session: Session, study: Study, sources: Collection[str], actor: Participant
) -> bool:
    """Takes a study over if every newer copy that this needs came from one of these sources."""
    copies = copies_of(session, study.id)
    newer = [row for row in copies.newer if row.source in sources]
    trusted = Copies(copies.in_use, newer, copies.stated)
    correction = next(iter(waiting(trusted)), None)
    if correction is None or not correction.complete:
        return False
    _take_over(session, study, trusted, correction.attributes, actor)
    return True


def adopt(session: Session, study: Study, attributes: StudyAttributes, sender: Participant) -> None:
    """Makes these the attributes of a study of which no image is in use.

    Its first image says whose study it is, whatever other objects or rejected images have said.
    """
    _take_over(session, study, copies_of(session, study.id), attributes, sender)


def adopt_waiting(session: Session, study: Study, actor: Participant) -> None:
    """Uses the quarantined images of another patient where none of the study's own is in use.

    Those that they contradicted have been rejected; the newest says whose study it is.
    """
    copies = copies_of(session, study.id)
    if any(row.is_image for row in copies.in_use):
        return
    rejected = rejections.of_study(session, study.id)
    images = [row for row in copies.newer if row.is_image and row.sop_instance_uid not in rejected]
    stated = map(copies.of, images)
    if (attributes := next(filter(None, stated), None)) is not None:
        _take_over(session, study, copies, attributes, actor)


def _take_over(
    session: Session, study: Study, copies: Copies, target: StudyAttributes, actor: Participant
) -> None:
    matching = copies.matching(target)
    _displace(copies, target, {row.sop_instance_uid for row in matching})
    session.flush()  # before the newer copies: one per SOP Instance UID is in use
    used = _use(session, study, matching)
    _settle_older(copies, target)
    _assign_patient(session, study, target, matching)
    stated_attributes.refresh(session, study, corrected=True)
    stated_attributes.index(session, study)
    studies.supersede_findings(session, study.id)
    studies.images_changed(session, study.id)
    session.execute(
        update(Study).where(Study.id == study.id).values(corrected_revision=Study.revision)
    )
    jobs.cancel_superseded(session, study.id, JobKind.DELIVER)
    rejections.apply(session, study, actor)  # by notes that have come into use
    audit.note(session, "study.corrected", actor, study_id=study.id, images=used)
    log_committed(session, log.warning, "study.corrected", study=study.id, images=used)


def _displace(copies: Copies, target: StudyAttributes, replaced: Collection[str]) -> None:
    """Takes out of use what states something else, or another patient and has no newer copy."""
    for row in copies.in_use:
        stated = copies.of(row)
        if row.sop_instance_uid in replaced:
            row.quarantined = QuarantineReason.REPLACED.value
        elif not _is_of(row, stated, target):
            row.quarantined = QuarantineReason.OTHER_PATIENT.value


def _is_of(row: Instance, stated: StudyAttributes | None, target: StudyAttributes) -> bool:
    """Whether an instance contradicts no patient; another object may state none."""
    if stated is None:
        return False
    nobody = not row.is_image and not stated.patient_identifier
    return nobody or stated.same_patient(target)


def _use(session: Session, study: Study, matching: Sequence[Instance]) -> int:
    """Uses the newer copies, apart from rejected ones; returns how many."""
    rejected = rejections.of_study(session, study.id)
    uids = [row.sop_instance_uid for row in matching]
    elsewhere = set(
        session.scalars(
            select(Instance.sop_instance_uid).where(
                Instance.sop_instance_uid.in_(uids), Instance.quarantined.is_(None)
            )
        )
    )
    used = 0
    for row in matching:
        uid = row.sop_instance_uid
        if uid in elsewhere:
            row.quarantined = QuarantineReason.OTHER_CONTENT.value
        else:
            row.quarantined = rejected[uid].value if uid in rejected else None
            used += uid not in rejected
    session.flush()
    return used


def _settle_older(copies: Copies, target: StudyAttributes) -> None:
    """Marks the older copies that state the same: the newest is in use."""
    for row in copies.newer:
        if row.quarantined in NEWER and copies.states(row, target):
            row.quarantined = QuarantineReason.REPLACED.value


def _assign_patient(
    session: Session, study: Study, target: StudyAttributes, matching: Sequence[Instance]
) -> None:
    former = study.patient
    # an identifier without issuer is still that of the site that first sent the study
    known = "" if former.issuer == study.study_instance_uid else former.issuer
    source = known or next((row.source for row in matching), "")
    study.patient_id = patients.row_id(
        session, target, source=source, study_instance_uid=study.study_instance_uid
    )
    session.flush()
    session.refresh(study)
    if study.patient_id != former.id:
        patients.remove_unused(session, former.id)
