"""Unread studies leave the worklist after a time, because many sites read elsewhere.

A study expires so many days after its last result, or after it was put back on the worklist, in
operating time. It does not as long as something is still to come: a result, a delivery, a
correction. Then it is "expired, unread", listed as such until somebody marks it as read, and from
then on retention may remove its images.
"""

from datetime import datetime

from sqlalchemy import ColumnElement, select, tuple_, update
from sqlalchemy.orm import Session

from db import audit, jobs, operating_time, studies
from db.context import SiteContext
from db.models import Study
from db.operating_time import DAY_S
from db.read_models.corrections import pending_of
from db.read_models.worklist_rows import Ranking
from db.reading_states import is_on_worklist
from db.types import db_now
from lumbar.log import get_logger

log = get_logger()

BATCH = 200  # studies per transaction


def expires_by(operating_s: float, days: float) -> ColumnElement[bool]:
    """The condition that a study on the worklist expires by then, if no correction of it waits."""
    return (
        Study.state.in_(studies.ENDED)
        & (Study.result_s <= operating_s - days * DAY_S)
        & ~jobs.has_undelivered_report()
    )


def expire_unread(site: SiteContext) -> int:
    """Takes the studies off the worklist whose time has passed; returns how many.

    Raises:
        DatabaseUnavailable: the next call continues.
    """
    if not site.settings.worklist_days:
        return 0
    expired = 0
    last: tuple[datetime, int] | None = None
    while True:
        with site.database.transaction() as session:
            due = _due(session, site.settings.worklist_days, last)
            if not due:
                return expired
            last = (due[-1].last_received_at, due[-1].id)
            expired += _expire(session, due, site.ranking)


def _due(session: Session, days: float, last: tuple[datetime, int] | None) -> list[Study]:
    """The next studies to expire, locked; those that another transaction writes are left out."""
    now = operating_time.read(session)
    statement = select(Study).where(is_on_worklist(), expires_by(now, days))
    if last is not None:
        statement = statement.where(tuple_(Study.last_received_at, Study.id) > tuple_(*last))
    ordered = statement.order_by(Study.last_received_at, Study.id).limit(BATCH)
    return list(session.scalars(ordered.with_for_update(of=Study, skip_locked=True)))


def _expire(session: Session, due: list[Study], ranking: Ranking) -> int:
    corrected = pending_of(session, [study.id for study in due])
    expired = [study for study in due if study.id not in corrected]
    session.execute(
        update(Study)
        .where(Study.id.in_([study.id for study in expired]))
        .values(expired_at=db_now())
        .execution_options(synchronize_session=False)
    )
    for study in expired:
        audit.note(session, "study.expired_unread", "sweep", study_id=study.id)
    if expired:
        severe = sum(s.severe and ranking.ranks(s.trained_on) for s in expired)
        log.warning("worklist.expired_unread", studies=len(expired), severe=severe)
    return len(expired)
