"""The audit trail (PS3.15 A.5): who did what to which study, and what happened at the door. Ids and addresses only."""

from threading import Lock
from time import monotonic
from typing import Any

import structlog
from sqlalchemy.orm import Session

from db.session import Database
from db.tables import AuditEvent
from lumbar.errors import Transient

log = structlog.get_logger()

ONCE_IN_S = 60.0  # the same event of the same actor for the same reason
MOST_KNOWN = 1000


def note(session: Session, event: str, actor: str, *, study_id: int | None = None, **detail: Any) -> None:
    """Adds a row in the transaction of what it tells of: one is not written without the other."""
    session.add(AuditEvent(event=event, actor=actor[:64], study_id=study_id, detail=detail))


class Auditor:
    """Writes audit events; a peer that knocks a thousand times a minute makes one row."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[tuple[str, str, str], float] = {}
        self._lock = Lock()

    def note(self, event: str, actor: str, why: str, peer: str) -> None:
        """Adds a row. A database that is away is logged: the door stays guarded without it."""
        key, now = (event, peer, why), monotonic()
        with self._lock:
            if now - self._noted.get(key, -ONCE_IN_S) < ONCE_IN_S:
                return
            if len(self._noted) >= MOST_KNOWN:
                self._noted.clear()
            self._noted[key] = now
        try:
            with self._database.transaction() as session:
                session.add(AuditEvent(event=event, actor=actor[:64], detail={"why": why, "peer": peer}))
        except Transient as error:
            log.warning("audit.not_written", missed=event, why=str(error))
