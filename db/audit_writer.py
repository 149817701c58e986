"""Audit events that belong to no transaction: refusals, and views of what names no patient.

A thread writes them, at most one transaction in ``GATHER_S``, so that nobody waits for them and a
stranger's request takes no lock of the database. A flood is summed: of what differs in nothing but
the time, the first few in a period have lines of their own, and what follows is one line for each
event, name and address that says how often.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import audit
from db.audit import Participant
from db.database import Database
from db.models import Study, Tombstone, User
from lumbar.audit_messages import Outcome
from lumbar.closing import Closing
from lumbar.elements import is_uid
from lumbar.errors import Transient
from lumbar.log import get_logger

log = get_logger()

GATHER_S = 0.5
RETRY_S = 5.0  # after the database has failed
PERIOD_S = 60.0  # after which what was only counted is written
FIRST = 3  # lines in a period that differ in nothing but the time; the others are counted
MAX_LINES = 500  # at once; with ``LINES_PER_S`` it bounds what the trail grows by in a flood
LINES_PER_S = 500 / 3600
FOR_SUMS = 100  # of these lines: for how often those did it who had no more lines of their own
OTHERS = Participant("")
MAX_USERS = 1000  # who have lines of their own
CLOSE_WITHIN_S = 10.0


@dataclass(frozen=True)
class Line:
    """An event to be written; ``times``: how often it happened.

    ``study`` (a UID) and ``user`` (a name) are what was asked for; each is written only where there
    is, or was, such a study or user, because anything may have been asked for.
    """

    event: str
    actor: Participant
    outcome: Outcome = Outcome.SUCCESS
    study: str = ""
    user: str = ""
    times: int = 1
    detail: Mapping[str, Any] = field(default_factory=dict)


class Flood:
    """Which of many events have lines of their own; counts the others. Not for several threads.

    Each event is in exactly one line, alone or counted: by event, name and address or, when too
    many of these are different, by event. So strangers, whoever they say they are, make at most
    ``MAX_LINES`` lines, ``LINES_PER_S``, and one per kind of event and period.
    """

    def __init__(self) -> None:
        self._left = float(MAX_LINES)
        self._refilled_at: float | None = None
        self._began_at: float | None = None
        self._written: Counter[tuple[object, ...]] = Counter()
        self._counted: Counter[tuple[str, Participant, Outcome]] = Counter()

    def add(self, line: Line, now: float) -> Line | None:
        """The line, if it is to be written; None: it is counted. ``now``: monotonic seconds."""
        if self._began_at is None:
            self._begin(now)
        one = (line.event, line.actor, line.study, line.user, *line.detail.items())
        if self._left > FOR_SUMS and self._written[one] < FIRST:
            self._written[one] += 1
            self._left -= 1
            return line
        key = (line.event, line.actor, line.outcome)
        if key not in self._counted:
            if self._left < 1:
                key = (line.event, OTHERS, line.outcome)
            else:
                self._left -= 1
        self._counted[key] += 1
        return None

    def _begin(self, now: float) -> None:
        if self._refilled_at is not None:
            refilled = self._left + (now - self._refilled_at) * LINES_PER_S
            self._left = min(float(MAX_LINES), refilled)
        self._began_at = self._refilled_at = now

    @property
    def idle(self) -> bool:
        """Whether no period has begun."""
        return self._began_at is None

    def has_ended(self, now: float) -> bool:
        """Whether the period, if one has begun, is over."""
        return self._began_at is not None and now - self._began_at >= PERIOD_S

    def end(self, now: float) -> list[Line]:
        """Ends the period; a line for what was counted of each kind."""
        seconds = 0 if self._began_at is None else round(now - self._began_at)
        lines = [
            Line(event, actor, outcome, times=times, detail={"seconds": seconds})
            for (event, actor, outcome), times in self._counted.items()
        ]
        self._began_at = None
        self._written.clear()
        self._counted.clear()
        return lines


class AuditWriter(Closing):
    """Writes lines in a thread of its own; closing it writes what is left.

    While the database is away, lines wait and what follows is counted: memory stays bounded.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        # everybody who is signed in has lines of their own, however many strangers there are, and
        # lines for what was refused, however much was not
        self._strangers = Flood()
        self._known: dict[tuple[str, Outcome], Flood] = {}
        self._unwritten: list[Line] = []
        self._busy, self._closing = Event(), Event()
        self._thread: Thread | None = None

    def note(self, line: Line, *, stranger: bool) -> None:
        """Takes a line; ``stranger``: nobody who is signed in did it. Never waits, never raises."""
        with self._lock:
            flood = self._strangers if stranger else self._flood_of(line)
            if (written := flood.add(line, monotonic())) is not None:
                self._unwritten.append(written)
            if self._thread is None and not self._closing.is_set():
                self._thread = Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()
            self._busy.set()

    def _flood_of(self, line: Line) -> Flood:
        """That of the line's user; the last one, if there are too many users, of all others."""
        key = (line.actor.name, line.outcome)
        if key not in self._known and len(self._known) >= MAX_USERS:
            key = (OTHERS.name, line.outcome)
        return self._known.setdefault(key, Flood())

    def close(self) -> None:
        """Writes what is left, what was counted included."""
        self._closing.set()
        self._busy.set()
        if self._thread is not None:
            self._thread.join(CLOSE_WITHIN_S)

    def _run(self) -> None:
        while True:
            self._busy.wait()
            closing = self._closing.wait(GATHER_S)
            written = self._write(self._due(closing))
            if closing:
                return
            if not written:
                self._closing.wait(RETRY_S)

    def _due(self, closing: bool) -> list[Line]:
        """The lines to be written now. Periods end only once all earlier lines are written."""
        now = monotonic()
        with self._lock:
            floods = (self._strangers, *self._known.values())
            for flood in floods:
                if closing or (not self._unwritten and flood.has_ended(now)):
                    self._unwritten += flood.end(now)
            if not self._unwritten and all(flood.idle for flood in floods):
                self._busy.clear()
            return list(self._unwritten)

    def _write(self, lines: list[Line]) -> bool:
        """Writes the lines; False: they are to be tried again, unless this is the end."""
        if not lines:
            return True
        try:
            with self._database.transaction() as session:
                for line in lines:
                    _add(session, line)
        except Transient as error:
            log.warning("audit.not_written", lines=len(lines), why=str(error))
            return False
        except Exception:  # a fault of ours: the line that has it is dropped, and no other
            if len(lines) > 1:
                return all(self._write([line]) for line in lines)
            log.exception("audit.not_written", lines=1)
        with self._lock:
            del self._unwritten[: len(lines)]
        return True


def _add(session: Session, line: Line) -> None:
    detail = dict(line.detail)
    if line.user and session.scalar(select(User.id).where(User.name == line.user)) is not None:
        detail["user"] = line.user
    audit.note(
        session,
        line.event,
        # who was admitted then: it does not matter whether they still would be
        Participant(line.actor.name, line.actor.address),
        study_id=_study_id(session, line.study),
        outcome=line.outcome,
        times=line.times,
        **detail,
    )


def _study_id(session: Session, uid: str) -> int | None:
    if not is_uid(uid):
        return None
    present = select(Study.id).where(Study.study_instance_uid == uid)
    deleted = select(Tombstone.study_id).where(Tombstone.study_instance_uid == uid)
    study_id = session.scalar(present)
    return study_id if study_id is not None else session.scalar(deleted.limit(1))
