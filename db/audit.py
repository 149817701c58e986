"""The audit trail (PS3.15 A.5): who did what to which study, and who was refused. Ids only."""

from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.database import Database
from db.models import AuditEvent, AuditForward, Study, Tombstone
from db.types import db_now
from lumbar.audit_messages import AuditLine, Syslog
from lumbar.errors import Transient
from lumbar.throttle import Throttle

log = structlog.get_logger()

REFUSAL_PERIOD_S = 60.0  # one row per event, peer and reason
MAX_REFUSALS = 1000
FORWARDED_AT_ONCE, SETTLED_S = 500, 60.0


def note(
    session: Session, event: str, actor: str, *, study_id: int | None = None, **detail: Any
) -> None:
    """Adds a row in the transaction of the action that it records: neither is written alone."""
    session.add(AuditEvent(event=event, actor=actor[:64], study_id=study_id, detail=detail))


def lines_after(
    session: Session, last_id: int, limit: int, *, settled_s: float = 0
) -> list[tuple[int, AuditLine]]:
    """Rows after an id, in their order; only those older than ``settled_s`` seconds."""
    statement = (
        select(AuditEvent, func.coalesce(Study.study_instance_uid, Tombstone.study_instance_uid))
        .outerjoin(Study, Study.id == AuditEvent.study_id)
        .outerjoin(Tombstone, Tombstone.study_id == AuditEvent.study_id)
        .where(AuditEvent.id > last_id, AuditEvent.happened_at <= db_now(-settled_s))
        .order_by(AuditEvent.id)
        .limit(limit)
    )
    return [
        (row.id, AuditLine(row.happened_at, row.event, row.actor, uid, row.detail))
        for row, uid in session.execute(statement)
    ]


def forward(database: Database, syslog: Syslog) -> int:
    """Forwards what was not forwarded yet, each line at least once; returns how many.

    A row counts once it is a minute old: no transaction lasts longer, so none with a smaller id can
    still appear.

    Raises:
        Transient: the database or the server is unavailable; the next call goes on.
    """
    sent = 0
    while True:
        with database.reading() as session:
            mark = session.scalar(select(AuditForward.last_id)) or 0
            rows = lines_after(session, mark, FORWARDED_AT_ONCE, settled_s=SETTLED_S)
        if not rows:
            return sent
        syslog.send([line for _, line in rows])
        with database.transaction() as session:
            session.merge(AuditForward(id=1, last_id=rows[-1][0]))
        sent += len(rows)


class Auditor:
    """Writes audit events of peers; one that retries a thousand times a minute makes one row."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._throttle = Throttle(REFUSAL_PERIOD_S, MAX_REFUSALS)

    def note(self, event: str, actor: str, why: str, peer: str) -> None:
        """Adds a row.

        An unavailable database is logged, not raised: the peer is refused without it.
        """
        if not self._throttle.claim((event, peer, why)):
            return
        try:
            with self._database.transaction() as session:
                note(session, event, actor, why=why, peer=peer)
        except Transient as error:
            log.warning("audit.not_written", missed=event, why=str(error))
