"""The operating time: seconds during which the system has run, counted in small steps.

By it the ages are counted after which something is removed or leaves the worklist. The calendar
does not do: a clock that is a year ahead for ten minutes, or in 1970 until it has been set, would
make everything old, or nothing. Maintenance reads the database's clock every minute, and of what
has passed since the last reading, at most ``MAX_STEP`` counts: however the clock is turned, and
however long the system was off. Several processes may count; what one has counted is past for the
others.

It begins with the seconds since 1970 at the migration, so that the ages of older rows fit to it.
"""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.database import Database
from db.models import Maintenance
from db.types import read_clock

MAX_STEP, SECOND = timedelta(minutes=5), timedelta(seconds=1)
DAY_S, HOUR_S = 86_400, 3600


def count(database: Database) -> None:
    """Adds the time since the last reading of the clock.

    Raises:
        DatabaseUnavailable: it is counted at the next reading.
    """
    with database.transaction() as session:
        row = session.scalars(select(Maintenance).with_for_update()).one()
        now = read_clock(session)
        passed = now - row.read_at
        if timedelta() <= passed <= MAX_STEP:
            seconds = passed // SECOND  # the rest counts next time
            row.read_at += seconds * SECOND
        else:
            seconds = MAX_STEP // SECOND if passed > MAX_STEP else 0
            row.read_at = now
        row.operating_s += seconds


def read(session: Session) -> int:
    """The operating time, seconds."""
    return session.scalars(select(Maintenance.operating_s)).one()
