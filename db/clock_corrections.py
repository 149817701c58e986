"""Corrects times that were written while the clock was wrong, so that nothing waits for them.

A time further ahead than the longest permitted wait was written by a clock that was ahead: the job
is due now, the lease runs from now, and a study's last image was received as long ago as the
operating time says (``db.operating_time``). Only what decides something is corrected.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import InstrumentedAttribute

from db import leases, operating_time
from db.context import PREVIEW_WAIT_S, SiteContext
from db.models import Job, JobState, LeasedRow, Preview, ReadingState, Study, StudyState
from db.reading_states import is_in
from db.types import read_clock
from lumbar.log import get_logger

log = get_logger()

STEP = timedelta(minutes=1)  # by which a clock that is kept right may be set back
EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)  # a clock that shows less has not been set


def correct_times(site: SiteContext) -> int:
    """Corrects such times; returns how many.

    Raises:
        DatabaseUnavailable: the next call corrects the rest.
    """
    with site.database.reading() as session:
        now = read_clock(session)
        if now < EARLIEST:
            return 0
        waits = [wait for wait in _waits(site) if session.scalar(wait.wrong(now).limit(1))]
        received = session.scalar(_wrongly_received(now).limit(1)) is not None
    corrected = 0
    for wait in waits:
        with site.database.transaction() as session:
            corrected += wait.correct(session, now)
    if received:
        with site.database.transaction() as session:
            corrected += _correct_received(session, now)
    if corrected:
        log.warning("clock.times_corrected", count=corrected)
    return corrected


@dataclass(frozen=True)
class _Wait:
    """A time that the rows of a table in a state wait for."""

    table: type[LeasedRow]
    state: JobState
    until: InstrumentedAttribute[datetime] | InstrumentedAttribute[datetime | None]
    longest_s: float
    corrected_s: float  # from now

    def _condition(self, now: datetime) -> tuple[ColumnElement[bool], ...]:
        latest = now + timedelta(seconds=self.longest_s) + STEP
        return self.table.state == self.state, self.until > latest

    def wrong(self, now: datetime) -> Select[int]:
        return select(self.table.id).where(*self._condition(now))

    def correct(self, session: Session, now: datetime) -> int:
        until = now + timedelta(seconds=self.corrected_s)
        change = leases.change(self.table, *self._condition(now)).values({self.until: until})
        return session.execute(change).rowcount  # type: ignore[attr-defined,no-any-return]


def _waits(site: SiteContext) -> Iterator[_Wait]:
    settings = site.settings
    for table, longest_s in ((Job, settings.retry_longest_s), (Preview, PREVIEW_WAIT_S)):
        yield _Wait(table, JobState.PENDING, table.run_after, longest_s, 0)
        lease_s = settings.lease_s
        yield _Wait(table, JobState.RUNNING, table.lease_expires_at, lease_s, lease_s)


def _wrongly_received(now: datetime) -> Select[int]:
    """Studies that wait to be read whose last image cannot have been received when it says."""
    wrong = (Study.last_received_at > now + STEP) | (Study.last_received_at < EARLIEST)
    return select(Study.id).where(is_in(ReadingState.WAITING), wrong).order_by(Study.id)


def _correct_received(session: Session, now: datetime) -> int:
    operating_s = operating_time.read(session)
    locked = _wrongly_received(now).with_for_update(skip_locked=True)
    ids = session.scalars(locked).all()
    for study_id in ids:
        study = session.get_one(Study, study_id, populate_existing=True)
        receiving = study.state is StudyState.RECEIVING  # then it has to be quiet from now
        ago_s = 0 if receiving else max(0, operating_s - study.kept_from_s)
        study.last_received_at = now - timedelta(seconds=ago_s)
    return len(ids)
