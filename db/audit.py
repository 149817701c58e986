"""The audit trail (PS3.15 A.5): who did what to which study, and who was refused. Ids only."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.database import Database
from db.models import AuditEvent, AuditForward, Study, Tombstone
from db.types import db_now
from lumbar.audit_messages import AuditLine, Syslog
from lumbar.errors import NotFound, Transient
from lumbar.throttle import Throttle

log = structlog.get_logger()

REFUSAL_PERIOD_S = 60.0  # one row per event, peer and reason
MAX_REFUSALS = 1000
FORWARDED_AT_ONCE, SETTLED_S = 500, 60.0


@dataclass(frozen=True)
class AuditRow:
    """An event of the audit trail, as the page shows it."""

    id: int
    happened_at: datetime
    event: str
    actor: str
    study: str | None  # its UID, while the study is in the database
    detail: str


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


def search(
    session: Session, *, event: str, actor: str, study: str, limit: int, after: int | None = None
) -> tuple[list[AuditRow], int | None]:
    """Events of the trail, the newest first, and the id after which more follow; None at the end.

    What is empty narrows nothing; ``study`` is the UID of a study, or of one that was deleted.

    Raises:
        NotFound: no study has, or had, the UID.
    """
    statement = select(AuditEvent, Study.study_instance_uid).outerjoin(
        Study, Study.id == AuditEvent.study_id
    )
    if event:
        statement = statement.where(AuditEvent.event == event)
    if actor:
        statement = statement.where(AuditEvent.actor == actor)
    if study:
        statement = statement.where(AuditEvent.study_id.in_(_study_ids(session, study)))
    if after is not None:
        statement = statement.where(AuditEvent.id < after)
    rows = [
        AuditRow(
            id=row.id,
            happened_at=row.happened_at,
            event=row.event,
            actor=row.actor,
            study=uid,
            detail=_in_words(row.detail),
        )
        for row, uid in session.execute(statement.order_by(AuditEvent.id.desc()).limit(limit + 1))
    ]
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


def _in_words(detail: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in detail.items())


def _study_ids(session: Session, study_instance_uid: str) -> list[int]:
    """Of the study and of those deleted that had this UID.

    Raises:
        NotFound: there is and was none.
    """
    present = select(Study.id).where(Study.study_instance_uid == study_instance_uid)
    deleted = select(Tombstone.study_id).where(Tombstone.study_instance_uid == study_instance_uid)
    ids = [*session.scalars(present), *session.scalars(deleted)]
    if not ids:
        raise NotFound("no study has, or had, this UID")
    return ids


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
