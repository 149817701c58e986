"""Studies that ended some time ago, and time that passes: both in operating time."""

from typing import Any

from sqlalchemy import update

from db.database import Database
from db.models import Maintenance, StudyState, operating_s
from db.operating_time import DAY_S
from db.types import db_now


def pass_days(database: Database, days: float) -> None:
    """The system has run for so many days more."""
    with database.transaction() as session:
        seconds = Maintenance.operating_s + round(days * DAY_S)
        session.execute(update(Maintenance).values(operating_s=seconds))


def ended(
    days: float = 0, state: StudyState = StudyState.ANALYSED, *, read: bool = True
) -> dict[str, Any]:
    """The values of a study that ended so many days and a minute ago, and has been read since."""
    ago_s = 60 + round(days * DAY_S)
    return {
        "state": state,
        "ended_at": db_now(-ago_s),
        "result_s": operating_s() - ago_s,
        "kept_from_s": operating_s() - ago_s,
        "read_at": db_now() if read else None,
    }
