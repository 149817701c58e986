"""Studies in the order in which to read them, a page at a time, however many there are.

The order is four tiers, one after the other: STAT orders, studies with a severe finding, those that
have waited longest, and the rest. The first three are read straight from indexes of the studies
that wait to be read, the longest-waiting first; the rest were received within the last hours, are
few, and are ranked one by one (``lumbar.spine.urgency``). Studies that have left the worklist
unread (``db.expiry``) are listed among all studies.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import Tuple

from db import operating_time
from db.expiry import expires_by
from db.models import ReadingState, Study, StudyState
from db.operating_time import HOUR_S
from db.read_models import corrections, study_search
from db.read_models.worklist_rows import Ranking, WorklistRow, assess, rows_of
from db.reading_states import is_in, is_on_worklist
from db.types import UtcDateTime, read_clock
from lumbar.errors import NotFound
from lumbar.spine.urgency import LONG_WAIT

MAX_EXPIRED = 1000  # counted
SOON_S = 24 * HOUR_S  # how long before a severe study expires it is warned of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CURSOR = re.compile("([0-9])-([0-9])-([0-9]{1,17})-([0-9]{1,10})")
_MAX_ID = 2**31 - 1  # of a study
_RANKED_TIER = 3  # the last one


@dataclass(frozen=True)
class StudyFilter:
    """Which studies to list; an empty field does not filter."""

    text: str = ""  # see ``db.read_models.study_search``
    states: Collection[StudyState] = ()
    scanner: str = ""
    since: datetime | None = None  # the last image was received then or later
    reading: ReadingState | None = None
    severe: bool = False  # only those with a severe finding that ranks


@dataclass(frozen=True)
class StudyPage:
    """A page of studies, and the cursor of the next page; None at the end."""

    rows: tuple[WorklistRow, ...]
    next_after: str | None


@dataclass(frozen=True)
class Waiting:
    """How many studies are on the worklist, and how many have left it unread."""

    unread: int
    severe: int  # of these, with a severe finding that ranks
    severe_expiring: int  # of these, within ``SOON_S``
    expired: int  # and not read since; counted up to ``MAX_EXPIRED``
    expired_severe: int  # of the newest ``MAX_EXPIRED`` with a severe finding, those that rank


@dataclass(frozen=True, order=True)
class _Cursor:
    """A position in the order, not a study, which may have moved by the time of the next page."""

    tier: int
    urgency: int  # within the last tier; 0 in the others
    received_us: int  # the last image, microseconds since 1970
    study_id: int

    @classmethod
    def of(cls, study: Study, tier: int = 0, urgency: int = 0) -> "_Cursor":
        return cls(tier, urgency, (study.last_received_at - _EPOCH) // _MICROSECOND, study.id)

    @classmethod
    def read(cls, text: str) -> "_Cursor":
        """A cursor as ``str`` writes it.

        Raises:
            NotFound: it is not a cursor.
        """
        if not (parts := _CURSOR.fullmatch(text)) or int(parts[4]) > _MAX_ID:
            raise NotFound(f"no page ended with {text!r}; use `next_after` unchanged")
        return cls(*map(int, parts.groups()))

    @property
    def received(self) -> Tuple:
        """To compare with ``_received()``."""
        moment = _EPOCH + self.received_us * _MICROSECOND
        return tuple_(literal(moment, UtcDateTime()), literal(self.study_id))

    def __str__(self) -> str:
        return f"{self.tier}-{self.urgency}-{self.received_us}-{self.study_id}"


_Positioned = tuple[_Cursor, Study]


def worklist(
    session: Session,
    ranking: Ranking,
    *,
    limit: int | None = None,
    after: str | None = None,
    only: StudyFilter | None = None,
    now: datetime | None = None,
) -> StudyPage:
    """The studies that wait to be read, the most urgent first.

    ``limit``: the maximum number of rows; None: all. ``after``: the previous page's ``next_after``.

    Raises:
        NotFound: no page ended with ``after``.
    """
    now = now or read_clock(session)
    start = _Cursor.read(after) if after else None
    filters = [
        is_on_worklist(),
        *_filters(session, only or StudyFilter(), ranking, unread=True),
    ]
    size = None if limit is None else limit + 1  # one more shows whether another page follows
    positioned: list[_Positioned] = []
    for tier, in_tier in enumerate(_indexed_tiers(ranking, now)):
        if (size is None or len(positioned) < size) and (start is None or start.tier <= tier):
            remaining = None if size is None else size - len(positioned)
            begin = start if start is not None and start.tier == tier else None
            positioned += _read_tier(session, tier, [in_tier, *filters], begin, remaining)
    if size is None or len(positioned) < size:
        positioned += _rank_rest(session, ranking, filters, start, now)
    return _page(session, positioned, limit, ranking, now)


def studies(
    session: Session,
    ranking: Ranking,
    *,
    limit: int,
    after: str | None = None,
    only: StudyFilter | None = None,
    now: datetime | None = None,
) -> StudyPage:
    """All studies, read or not, the newest first.

    Raises:
        NotFound: no page ended with ``after``.
    """
    filters = _filters(session, only or StudyFilter(), ranking)
    if after:
        filters.append(_received() < _Cursor.read(after).received)
    statement = (
        select(Study)
        .where(*filters)
        .order_by(Study.last_received_at.desc(), Study.id.desc())
        .limit(limit + 1)
    )
    positioned = [(_Cursor.of(study), study) for study in session.scalars(statement)]
    return _page(session, positioned, limit, ranking, now or read_clock(session))


def row_of(
    session: Session, study: Study, ranking: Ranking, now: datetime | None = None
) -> WorklistRow:
    """One study as the worklist shows it, wherever it stands."""
    return rows_of(session, [study], ranking, now or read_clock(session))[0]


def waiting(session: Session, ranking: Ranking) -> Waiting:
    """How long the worklist is, and what has left it unread."""
    severe = select(func.count()).where(is_on_worklist(), _severe(ranking))
    expired = select(Study.id).where(is_in(ReadingState.EXPIRED)).limit(MAX_EXPIRED)
    return Waiting(
        unread=_count(session, select(func.count()).where(is_on_worklist())),
        severe=_count(session, severe),
        severe_expiring=_severe_expiring(session, ranking, severe),
        expired=_count(session, select(func.count()).select_from(expired.subquery())),
        expired_severe=_expired_severe(session, ranking),
    )


def counted(count: int) -> str:
    """A count of expired studies for a person: ``1000 or more``."""
    return f"{count} or more" if count >= MAX_EXPIRED else str(count)


def _severe_expiring(session: Session, ranking: Ranking, severe: Select[int]) -> int:
    if not ranking.days:
        return 0
    soon = operating_time.read(session) + SOON_S
    expiring = expires_by(soon, ranking.days)
    corrected = severe.with_only_columns(Study.id).where(expiring, corrections.copies_wait())
    # These do not expire as long as their correction waits.
    waiting = corrections.pending_of(session, session.scalars(corrected).all())
    return _count(session, severe.where(expiring)) - len(waiting)


def _expired_severe(session: Session, ranking: Ranking) -> int:
    """Counted among the newest only: by weights that do not rank, there may be very many."""
    newest = (
        select(Study.trained_on)
        .where(is_in(ReadingState.EXPIRED), Study.severe.is_(True))
        .order_by(Study.last_received_at.desc(), Study.id.desc())
        .limit(MAX_EXPIRED)
        .subquery()
    )
    trusted = newest.c.trained_on.in_(ranking.trusted)
    return _count(session, select(func.count()).select_from(newest).where(trusted))


def _count(session: Session, statement: Select[int]) -> int:
    return session.scalar(statement) or 0


def _indexed_tiers(ranking: Ranking, now: datetime) -> tuple[ColumnElement[bool], ...]:
    """The tiers that are read from indexes, in their order; a study is in at most one of them."""
    stat, severe = Study.stat.is_(True), _severe(ranking)
    waited = Study.last_received_at <= now - 2 * LONG_WAIT
    return stat, Study.stat.is_(False) & severe, Study.stat.is_(False) & ~severe & waited


def _severe(ranking: Ranking) -> ColumnElement[bool]:
    """Has a severe finding by weights that may rank. Never NULL, so that it can be negated."""
    return (
        Study.severe.is_(True)
        & Study.trained_on.is_not(None)
        & Study.trained_on.in_(ranking.trusted)
    )


def _read_tier(
    session: Session,
    tier: int,
    filters: list[ColumnElement[bool]],
    begin: _Cursor | None,
    limit: int | None,
) -> list[_Positioned]:
    """A tier's studies, the longest-waiting first, after ``begin``."""
    if begin is not None:
        filters.append(_received() > begin.received)
    statement = (
        select(Study).where(*filters).order_by(Study.last_received_at, Study.id).limit(limit)
    )
    return [(_Cursor.of(study, tier), study) for study in session.scalars(statement)]


def _rank_rest(
    session: Session,
    ranking: Ranking,
    filters: list[ColumnElement[bool]],
    start: _Cursor | None,
    now: datetime,
) -> list[_Positioned]:
    """The last tier, after ``start``, by urgency and then by waiting."""
    others = [~in_tier for in_tier in _indexed_tiers(ranking, now)]
    recent = Study.last_received_at > now - 2 * LONG_WAIT
    rest = session.scalars(select(Study).where(recent, *others, *filters)).all()
    assessments = assess(session, rest, ranking, now)
    positioned = [
        (_Cursor.of(study, _RANKED_TIER, assessments[study.id].urgency), study) for study in rest
    ]
    following = [entry for entry in positioned if start is None or _position(entry) > start]
    return sorted(following, key=_position)


def _received() -> Tuple:
    return tuple_(Study.last_received_at, Study.id)


def _position(positioned: _Positioned) -> _Cursor:
    return positioned[0]


def _filters(
    session: Session, only: StudyFilter, ranking: Ranking, *, unread: bool = False
) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = []
    if only.text.strip():
        filters.append(Study.id.in_(study_search.matching(session, only.text, unread=unread)))
    if only.states:
        filters.append(Study.state.in_(only.states))
    if only.scanner:
        filters.append(Study.scanner == only.scanner)
    if only.since is not None:
        filters.append(Study.last_received_at >= only.since)
    if only.reading is not None:
        filters.append(is_in(only.reading))
    if only.severe:
        filters.append(_severe(ranking))
    return filters


def _page(
    session: Session,
    positioned: list[_Positioned],
    limit: int | None,
    ranking: Ranking,
    now: datetime,
) -> StudyPage:
    shown = positioned[:limit]
    rows = rows_of(session, [study for _, study in shown], ranking, now)
    return StudyPage(rows, str(shown[-1][0]) if len(positioned) > len(shown) else None)
