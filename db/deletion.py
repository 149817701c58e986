"""Deletes a study permanently: its files, then its rows. A tombstone and the audit trail remain.

It takes three steps, so that a process killed in between leaves a study that can be deleted again,
and no file without a row: the next start would register that file as an acknowledged image
(``db.reconcile``). While an image of the study waits in ``arrived``, it is not deleted.
"""

from sqlalchemy import delete, select, true
from sqlalchemy.orm import Session

from db import audit, operating_time, patients, retention, studies
from db.audit import Participant
from db.context import SiteContext
from db.models import (
    Delivery,
    Explanation,
    FindingRow,
    Instance,
    Job,
    Rejection,
    ReportRow,
    Review,
    SearchKey,
    Series,
    StatedAttributes,
    Study,
    StudyState,
    Tombstone,
)
from db.types import db_now
from lumbar.errors import Permanent

MAX_REASON = 500


def delete_study(
    site: SiteContext, study_instance_uid: str, reason: str, actor: Participant
) -> None:
    """Deletes a study's images, reports, findings and reviews.

    Raises:
        NotFound: there is no such study.
        Permanent: the reason is missing or too long, or an image arrived meanwhile.
        Transient: the disk or the database failed; delete the study again.
    """
    if not 1 <= len(reason.strip()) <= MAX_REASON:
        raise Permanent(f"give a reason of at most {MAX_REASON} characters; the tombstone keeps it")
    if study_instance_uid in site.store.arriving():
        raise Permanent("an image of the study has just arrived; delete it once none arrives")
    site.store.sync_shares()  # else a power cut could bring back what was registered from there
    with site.database.transaction() as session:
        study_id = studies.find(session, study_instance_uid).id
        studies.lock(session, study_id)
        study = session.get_one(Study, study_id, populate_existing=True)
        # a worker that is doing one of them finds its lease lost
        session.execute(delete(Job).where(Job.study_id == study.id))
        retention.mark_removed(session, study.id, true())
        study.images_removed_at = study.ended_at = db_now()
        study.result_s = operating_time.read(session)
        # an interrupted deletion can be repeated from here
        study.state, study.reason = StudyState.FAILED, "its deletion was started"
        audit.note(session, "study.deletion_begun", actor, study_id=study.id)
    retention.unlink_removed(site, study_id)
    with site.database.transaction() as session:
        reports = _remove_rows(session, study_instance_uid, reason.strip(), actor)
        # before the commit: where the disk refuses, the rows remain, and name what is left
        for report in reports:
            site.store.remove(report)
        site.store.remove_quarantined(study_instance_uid)


def _remove_rows(
    session: Session, study_instance_uid: str, reason: str, actor: Participant
) -> list[str]:
    """Deletes the rows; returns the reports' files, which no row refers to any more.

    Raises:
        Permanent: an image arrived after the files were deleted.
    """
    study = studies.find(session, study_instance_uid)
    studies.lock(session, study.id)
    arrived_again = (
        select(Instance.id)
        .join(Series)
        .where(Series.study_id == study.id, Instance.removed_at.is_(None))
    )
    if session.scalar(arrived_again.limit(1)) is not None:
        raise Permanent(
            "an image of the study arrived during its deletion; delete it again once none arrives"
        )
    reports_of_study = (ReportRow.study_id == study.id, ReportRow.file.is_not(None))
    files = [str(file) for file in session.scalars(select(ReportRow.file).where(*reports_of_study))]
    findings = select(FindingRow.id).where(FindingRow.study_id == study.id)
    reports = select(ReportRow.id).where(ReportRow.study_id == study.id)
    series = select(Series.id).where(Series.study_id == study.id)
    for statement in (
        delete(Review).where(Review.finding_id.in_(findings)),
        delete(FindingRow).where(FindingRow.study_id == study.id),
        delete(Explanation).where(Explanation.study_id == study.id),
        delete(Job).where(Job.study_id == study.id),
        delete(Delivery).where(Delivery.report_id.in_(reports)),
        delete(ReportRow).where(ReportRow.study_id == study.id),
        delete(Rejection).where(Rejection.study_id == study.id),
        delete(Instance).where(Instance.series_id.in_(series)),
        delete(Series).where(Series.study_id == study.id),
        delete(StatedAttributes).where(StatedAttributes.study_id == study.id),
        delete(SearchKey).where(SearchKey.study_id == study.id),
    ):
        session.execute(statement.execution_options(synchronize_session=False))
    study_id, patient_id = study.id, study.patient_id
    session.execute(
        delete(Study).where(Study.id == study_id).execution_options(synchronize_session=False)
    )
    patients.remove_unused(session, patient_id)
    session.add(
        Tombstone(
            study_instance_uid=study_instance_uid,
            study_id=study_id,
            reason=reason,
            actor=actor.name,
        )
    )
    audit.note(session, "study.deleted", actor, study_id=study_id)
    return files
