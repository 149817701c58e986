"""Lists findings across studies, alike for the page, its CSV, the REST API and the command line.

"All severe L4/L5 canal stenoses of that scanner since Monday": a page at a time or all in a stream,
the newest first. A study that ended without findings (not analysable, failed) is listed with 25
findings that are not assessed; a study with a later revision under way is left out, because what is
known about it is not final.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from sqlalchemy import ColumnElement, exists, func, literal, select, tuple_
from sqlalchemy.orm import Session

from db.database import Database
from db.models import FindingRow, Study, StudyState
from db.read_models.study_queries import ListedFinding, key_of, rsna_order, with_context
from db.types import UtcDateTime
from lumbar.errors import NotFound
from lumbar.reports.finding_records import StudyFinding
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Severity

# Findings are written between the last image of their study and the end of its analysis; the margin
# allows for clocks that were adjusted, and for a row written a moment after the study's.
CLOCK_MARGIN = timedelta(hours=1)
STREAMED_ROWS = 1000  # per page of a stream
CURSOR_PATTERN = "^([0-9]{1,10}|[0-9]{1,17}-[01]-[0-9]{1,10}-[0-9]{1,2})$"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_ID = 2**31 - 1
_WITHOUT_FINDINGS = (StudyState.NOT_ANALYSABLE, StudyState.FAILED)
_STUDY, _FINDING = 0, 1


@dataclass(frozen=True)
class FindingFilter:
    """Which findings to list; an empty field does not filter.

    ``since`` and ``until``: their study's last image was received at ``since`` or later, and before
    ``until``. Findings that are not assessed have no severity: choosing any leaves them out.
    """

    severities: Collection[Severity] = ()
    conditions: Collection[Condition] = ()
    levels: Collection[Level] = ()
    scanner: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class FindingsPage:
    """A page of findings, and the cursor of the next page; None at the end."""

    rows: tuple[StudyFinding, ...]
    next_after: str | None


@dataclass(frozen=True, order=True)
class _Cursor:
    """The position in the order where a page ended; the order is descending in every field."""

    moment_us: int  # since 1970: when the finding was made, or the study's last image was received
    source: int  # of equal moments, _FINDING comes before _STUDY (one that ended without findings)
    row_id: int  # of the finding or of the study
    ordinal: int = 0  # of the study's 25

    @classmethod
    def of(cls, listed: ListedFinding) -> "_Cursor":
        study, key, row = listed
        if row is not None:
            return cls(_microseconds(row.found_at), _FINDING, row.id)
        ordinal = ALL_FINDINGS.index(key)
        return cls(_microseconds(study.last_received_at), _STUDY, study.id, ordinal)

    @classmethod
    def read(cls, session: Session, text: str) -> "_Cursor":
        """A cursor as ``str`` writes it, or the bare id of a finding, as in older links.

        Raises:
            NotFound: it is neither, or no finding has the id.
        """
        numbers = []
        if re.fullmatch(CURSOR_PATTERN, text):
            numbers = [int(part) for part in text.split("-")]
        if len(numbers) == 4 and numbers[2] <= _MAX_ID:
            return cls(*numbers)
        row = None
        if len(numbers) == 1 and numbers[0] <= _MAX_ID:
            row = session.get(FindingRow, numbers[0])
        if row is None:
            raise NotFound(f"no page of findings ended with {text!r}; use `next_after` unchanged")
        return cls(_microseconds(row.found_at), _FINDING, row.id)

    @property
    def moment(self) -> datetime:
        return _EPOCH + self.moment_us * _MICROSECOND

    def __str__(self) -> str:
        return f"{self.moment_us}-{self.source}-{self.row_id}-{self.ordinal}"


def page(
    session: Session, only: FindingFilter, *, limit: int, after: str | None = None
) -> FindingsPage:
    """The findings in force, the newest first; ``after``: the previous page's ``next_after``.

    Raises:
        NotFound: no page ended with ``after``.
    """
    start = _Cursor.read(session, after) if after else None
    listed = _assessed(session, only, start, limit + 1)
    if not only.severities:
        listed += _without_findings(session, only, start, limit + 1)
    listed.sort(key=_Cursor.of, reverse=True)
    rows = tuple(with_context(session, listed[:limit]))
    return FindingsPage(rows, str(_Cursor.of(listed[limit - 1])) if len(listed) > limit else None)


def stream(database: Database, only: FindingFilter) -> Iterator[StudyFinding]:
    """All findings in force, the newest first, but each study's in the order of the RSNA rows.

    They are read a page at a time, each in its own transaction, so that memory and transactions
    stay small however many there are.
    """
    for _, rows in groupby(_pages(database, only), key=_study_uid):
        yield from sorted(rows, key=rsna_order)


def _pages(database: Database, only: FindingFilter) -> Iterator[StudyFinding]:
    after: str | None = None
    while True:
        with database.reading() as session:
            current = page(session, only, limit=STREAMED_ROWS, after=after)
        yield from current.rows
        after = current.next_after
        if after is None:
            return


def _study_uid(row: StudyFinding) -> str:
    return row.study.study_instance_uid


def _assessed(
    session: Session, only: FindingFilter, start: _Cursor | None, limit: int
) -> list[ListedFinding]:
    """Findings in force, graded or not, read from their index."""
    conditions = [
        FindingRow.superseded.is_(False),
        *_study_conditions(only),
        *_finding_conditions(session, only),
    ]
    if start is not None:
        edge = tuple_(
            literal(start.moment, UtcDateTime()),
            literal(start.row_id if start.source == _FINDING else 0),
        )
        conditions.append(tuple_(FindingRow.found_at, FindingRow.id) < edge)
    statement = (
        select(FindingRow, Study)
        .join(Study, Study.id == FindingRow.study_id)
        .where(*conditions)
        .order_by(FindingRow.found_at.desc(), FindingRow.id.desc())
        .limit(limit)
    )
    return [(study, key_of(row), row) for row, study in session.execute(statement)]


def _without_findings(
    session: Session, only: FindingFilter, start: _Cursor | None, limit: int
) -> list[ListedFinding]:
    """The 25 unassessed findings of each study that ended without any.

    The studies are queried state by state, as their index is ordered.
    """
    keys = [key for key in ALL_FINDINGS if _matches(key, only)]
    in_force = exists().where(FindingRow.study_id == Study.id, FindingRow.superseded.is_(False))
    conditions = [~in_force, *_study_conditions(only)]
    if start is not None:
        edge = tuple_(
            literal(start.moment, UtcDateTime()),
            literal(start.row_id if start.source == _STUDY else _MAX_ID),
        )
        conditions.append(tuple_(Study.last_received_at, Study.id) <= edge)
    studies: list[Study] = []
    for state in _WITHOUT_FINDINGS:
        statement = (
            select(Study)
            .where(Study.state == state, *conditions)
            .order_by(Study.last_received_at.desc(), Study.id.desc())
            .limit(limit // len(keys) + 2)
        )
        studies += session.scalars(statement)
    listed: list[ListedFinding] = [(study, key, None) for study in studies for key in keys]
    return [row for row in listed if start is None or _Cursor.of(row) < start]


def _matches(key: FindingKey, only: FindingFilter) -> bool:
    return (not only.conditions or key.condition in only.conditions) and (
        not only.levels or key.level in only.levels
    )


def _study_conditions(only: FindingFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [Study.ended_at.is_not(None)]
    if only.scanner:
        conditions.append(Study.scanner == only.scanner)
    if only.since is not None:
        conditions.append(Study.last_received_at >= only.since)
    if only.until is not None:
        conditions.append(Study.last_received_at < only.until)
    return conditions


def _finding_conditions(session: Session, only: FindingFilter) -> list[ColumnElement[bool]]:
    """The filter's conditions on findings, and index ranges that follow from its other ones."""
    conditions: list[ColumnElement[bool]] = []
    if only.severities:
        conditions.append(FindingRow.severity.in_(only.severities))
    if only.conditions:
        conditions.append(FindingRow.condition.in_(only.conditions))
    if only.levels:
        conditions.append(FindingRow.level.in_(only.levels))
    if only.scanner:
        conditions.append(FindingRow.found_at <= _last_ended(session, only.scanner) + CLOCK_MARGIN)
    if only.since is not None:
        conditions.append(FindingRow.found_at >= _earlier(only.since, CLOCK_MARGIN))
    return conditions


def _last_ended(session: Session, scanner: str) -> datetime:
    """When an analysis of this scanner's studies last ended.

    For a scanner no longer in use, this excludes the later findings of others from the search.
    """
    statement = select(func.max(Study.ended_at)).where(Study.scanner == scanner)
    return session.scalar(statement) or _EPOCH


def _earlier(moment: datetime, by: timedelta) -> datetime:
    return max(moment, datetime(1, 1, 2, tzinfo=UTC)) - by


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND
