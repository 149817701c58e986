"""Readers mark studies as read, and review findings: agree or correct. Reviews are append-only."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import audit, operating_time, studies
from db.audit import Participant
from db.models import FindingRow, Review, Study
from db.types import read_clock
from lumbar.errors import NotFound, Permanent
from lumbar.spine.anatomy import FindingKey, Severity

MAX_COMMENT = 2000


def mark_read(
    session: Session,
    study: Study,
    actor: Participant,
    *,
    read: bool = True,
    last_received_at: datetime | None = None,
) -> None:
    """Takes a study off the reading worklist, or puts it back, from where it expires anew.

    ``last_received_at``: when the last image that the reader saw was received.

    Raises:
        Permanent: an image has arrived since.
    """
    studies.lock(session, study.id)
    session.refresh(study)
    if read and last_received_at not in (None, study.last_received_at):
        raise Permanent("new images have arrived since you opened the study; look at it again")
    if read:
        study.read_at = read_clock(session)
    else:
        study.read_at = study.expired_at = None
        study.kept_from_s = operating_time.read(session)
        study.result_s = None if study.ended_at is None else study.kept_from_s
    audit.note(session, "study.read" if read else "study.unread", actor, study_id=study.id)


def add_review(
    session: Session,
    finding_id: int,
    severity: Severity,
    comment: str,
    reviewer: Participant,
    study_id: int | None = None,
) -> Review:
    """Records a reader's severity for a finding in force.

    Raises:
        NotFound: there is no such finding, or it is not the study's.
        Permanent: a later revision has superseded it, or the comment is too long.
    """
    finding = session.get(FindingRow, finding_id)
    if finding is None or study_id not in (None, finding.study_id):
        raise NotFound(f"there is no finding {finding_id}")
    if finding.superseded:
        raise Permanent("a later revision has replaced this finding; look at the study again")
    if len(comment) > MAX_COMMENT:
        raise Permanent(f"a comment has at most {MAX_COMMENT} characters")
    review = Review(
        finding_id=finding_id, reviewer=reviewer.name, severity=severity, comment=comment
    )
    session.add(review)
    session.flush()
    audit.note(
        session,
        "finding.reviewed",
        reviewer,
        study_id=finding.study_id,
        finding=finding_id,
        review=review.id,
    )
    return review


def finding_ids(session: Session, study_id: int) -> dict[FindingKey, int]:
    """The ids of a study's findings in force."""
    statement = select(FindingRow.id, FindingRow.condition, FindingRow.level).where(
        FindingRow.study_id == study_id, FindingRow.superseded.is_(False)
    )
    return {
        FindingKey(condition, level): finding_id
        for finding_id, condition, level in session.execute(statement)
    }
