"""The audit trail (PS3.15 A.5): who did what to which study, and who was refused; by ids only."""

import socket
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from sqlalchemy import false, func, select
from sqlalchemy.orm import Session

from db.database import Database
from db.models import AuditEvent, AuditForward, Study, Tombstone
from db.types import db_now
from lumbar.audit_messages import AE_PREFIX, AuditLine, Outcome
from lumbar.errors import NotFound

if TYPE_CHECKING:
    from lumbar.syslog import Syslog

FORWARD_BATCH, SETTLED_S = 500, 60.0


@dataclass(frozen=True)
class Participant:
    """Who does something, and from where (Active Participant, PS3.15 A.5.2).

    ``name``: of a user, a calling AE title, or a service (UserID). ``address``: of the network, or
    a host's name (NetworkAccessPointID); empty: not known.
    """

    name: str
    address: str = ""

    def require(self, session: Session) -> None:
        """Makes sure that they still may do what is being noted; others than users always may.

        Raises:
            Permanent: they may not any more.
        """


def dicom_node(title: str, address: str) -> Participant:
    """Whoever calls itself by this AE title, if by any; no user's name begins so."""
    return Participant(f"{AE_PREFIX}{title}" if title else "", address)


def on_this_host(name: str) -> Participant:
    """A service of ours, or somebody at this host's command line."""
    return Participant(name, socket.gethostname())


@dataclass(frozen=True)
class Filter:
    """Which events a list shows; what is empty matches everything.

    ``study``: the UID of one, deleted or not. ``refused``: only what did not succeed.
    """

    event: str = ""
    actor: str = ""
    address: str = ""
    study: str = ""
    refused: bool = False


def note(
    session: Session,
    event: str,
    actor: Participant,
    *,
    study_id: int | None = None,
    outcome: Outcome = Outcome.SUCCESS,
    times: int = 1,
    **detail: Any,
) -> None:
    """Adds an event in the transaction of the action it records: neither is written alone.

    Whoever does something is asked here whether they still may: a change cannot be made without.

    ``times``: how often it happened; ``detail`` has ids, such as that of the user or token meant.

    Raises:
        NoLongerAllowed: the user has been disabled, say, since the request was admitted.
    """
    if outcome is Outcome.SUCCESS:
        actor.require(session)
    session.add(
        AuditEvent(
            event=event,
            actor=actor.name[:64],
            address=actor.address[:64],
            study_id=study_id,
            outcome=outcome,
            times=times,
            detail=detail,
        )
    )


def lines_after(
    session: Session, last_id: int, limit: int, *, settled_s: float = 0
) -> list[tuple[int, AuditLine]]:
    """Events with an id above ``last_id``, in order, up to the first younger than ``settled_s``.

    An event from the future is not young: the clock was ahead.
    """
    young = AuditEvent.happened_at.between(db_now(-settled_s), db_now(settled_s))
    statement = (
        select(
            AuditEvent,
            func.coalesce(Study.study_instance_uid, Tombstone.study_instance_uid),
            young if settled_s else false(),
        )
        .outerjoin(Study, Study.id == AuditEvent.study_id)
        .outerjoin(Tombstone, Tombstone.study_id == AuditEvent.study_id)
        .where(AuditEvent.id > last_id)
        .order_by(AuditEvent.id)
        .limit(limit)
    )
    settled = takewhile(lambda found: not found[2], session.execute(statement))
    return [(row.id, _line(row, uid)) for row, uid, _ in settled]


def _line(row: AuditEvent, study_instance_uid: str | None) -> AuditLine:
    return AuditLine(
        happened_at=row.happened_at,
        event=row.event,
        actor=row.actor,
        address=row.address,
        outcome=Outcome(row.outcome),
        times=row.times,
        study_instance_uid=study_instance_uid,
        detail=row.detail,
    )


def search(
    session: Session, only: Filter, *, limit: int, after: int | None = None
) -> tuple[list[tuple[int, AuditLine]], int | None]:
    """Audit events with their ids, the newest first, and the ``after`` of the next page.

    That is None at the end. A deleted study is not named.

    Raises:
        NotFound: no study has, or had, the UID.
    """
    statement = select(AuditEvent, Study.study_instance_uid).outerjoin(
        Study, Study.id == AuditEvent.study_id
    )
    for column, wanted in (
        (AuditEvent.event, only.event),
        (AuditEvent.actor, only.actor),
        (AuditEvent.address, only.address),
    ):
        if wanted:
            statement = statement.where(column == wanted)
    if only.study:
        statement = statement.where(AuditEvent.study_id.in_(_study_ids(session, only.study)))
    if only.refused:
        statement = statement.where(AuditEvent.outcome > 0)
    if after is not None:
        statement = statement.where(AuditEvent.id < after)
    found = session.execute(statement.order_by(AuditEvent.id.desc()).limit(limit + 1)).all()
    rows = [(row.id, _line(row, uid)) for row, uid in found]
    return rows[:limit], rows[limit - 1][0] if len(rows) > limit else None


def _study_ids(session: Session, study_instance_uid: str) -> list[int]:
    """The ids of the study with this UID, and of deleted studies that had it.

    Raises:
        NotFound: no study has, or had, the UID.
    """
    present = select(Study.id).where(Study.study_instance_uid == study_instance_uid)
    deleted = select(Tombstone.study_id).where(Tombstone.study_instance_uid == study_instance_uid)
    ids = [*session.scalars(present), *session.scalars(deleted)]
    if not ids:
        raise NotFound("no study has, or had, this UID")
    return ids


def forward(database: Database, syslog: "Syslog") -> int:
    """Forwards the events not yet forwarded, each at least once; returns how many.

    An event is forwarded once it is a minute old: no transaction lasts longer, so no event with a
    smaller id can still appear.

    Raises:
        Transient: the database or the syslog server is unavailable; the next call resumes.
    """
    sent = 0
    while True:
        with database.reading() as session:
            mark = session.scalar(select(AuditForward.last_id)) or 0
            rows = lines_after(session, mark, FORWARD_BATCH, settled_s=SETTLED_S)
        if not rows:
            return sent
        syslog.send([line for _, line in rows])
        with database.transaction() as session:
            session.merge(AuditForward(id=1, last_id=rows[-1][0]))
        sent += len(rows)
