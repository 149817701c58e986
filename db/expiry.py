"""Unread studies leave the worklist after a time, because many sites read elsewhere.

A study expires so many days after its last result, or after it was put back on the worklist, in
operating time. It does not as long as something is still to come: a result, a delivery, a
correction; and once nothing is, it has a day's notice left. Then it is "expired, unread", listed as
such until somebody marks it as read, and from then on retention may remove its images.
"""

from datetime import datetime

from sqlalchemy import ColumnElement, select, tuple_, update
from sqlalchemy.orm import Session

from db import audit, jobs, operating_time, studies
from db.context import SiteContext
from db.database import Database, log_committed
from db.models import Study
from db.operating_time import DAY_S, HOUR_S
from db.read_models import corrections
from db.read_models.worklist_rows import Ranking
from db.reading_states import is_on_worklist
from db.types import db_now
from lumbar.log import get_logger

log = get_logger()

BATCH = 200  # studies per transaction
NOTICE_S = DAY_S  # between the warning of a severe study and its expiry, at least


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
    _give_notice(site.database, site.settings.worklist_days)
    expired = 0
    last: tuple[datetime, int] | None = None
    while True:
        with site.database.transaction() as session:
            due = _due(session, site.settings.worklist_days, last)
            if not due:
                return expired
            last = (due[-1].last_received_at, due[-1].id)
            expired += _expire(session, due, site.ranking)


def _give_notice(database: Database, days: float) -> None:
    """Puts off the expiry of studies for which something is still to come.

    Once it has come, at least ``NOTICE_S`` are left, in which a severe study is warned of.
    """
    last = 0
    while True:
        with database.transaction() as session:
            now = operating_time.read(session)
            warned = min(now, round(now - days * DAY_S + NOTICE_S))  # results that are warned of
            undelivered = jobs.has_undelivered_report()
            statement = (
                select(Study.id, undelivered)
                .where(is_on_worklist(), Study.state.in_(studies.ENDED), Study.result_s < warned)
                .where(undelivered | corrections.copies_wait(), Study.id > last)
                .order_by(Study.id)
                .limit(BATCH)
                .with_for_update(of=Study, skip_locked=True)
            )
            found = session.execute(statement).all()
            if not found:
                return
            last = found[-1][0]
            delivered = [study_id for study_id, waits in found if not waits]
            corrected = corrections.pending_of(session, delivered)
            put_off = {study_id for study_id, _ in found} - set(delivered) | corrected.keys()
            session.execute(
                update(Study)
                .where(Study.id.in_(put_off))
                # an hour more, so that it need not be written every minute
                .values(result_s=min(now, warned + HOUR_S))
                .execution_options(synchronize_session=False)
            )


def _due(session: Session, days: float, last: tuple[datetime, int] | None) -> list[Study]:
    """The next studies to expire, locked; those that another transaction writes are left out."""
    now = operating_time.read(session)
    statement = select(Study).where(is_on_worklist(), expires_by(now, days))
    if last is not None:
        statement = statement.where(tuple_(Study.last_received_at, Study.id) > tuple_(*last))
    ordered = statement.order_by(Study.last_received_at, Study.id).limit(BATCH)
    return list(session.scalars(ordered.with_for_update(of=Study, skip_locked=True)))


def _expire(session: Session, due: list[Study], ranking: Ranking) -> int:
    corrected = corrections.pending_of(session, [study.id for study in due])
    expired = [study for study in due if study.id not in corrected]
    session.execute(
        update(Study)
        .where(Study.id.in_([study.id for study in expired]))
        .values(expired_at=db_now())
        .execution_options(synchronize_session=False)
    )
    for study in expired:
        audit.note(session, "study.expired_unread", audit.on_this_host("sweep"), study_id=study.id)
    if expired:
        severe = sum(s.severe and ranking.ranks(s.trained_on) for s in expired)
        fields = {"studies": len(expired), "severe": severe}
        log_committed(session, log.warning, "worklist.expired_unread", **fields)
    return len(expired)
