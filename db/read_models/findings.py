"""Findings across studies, a page at a time: "all severe L4/L5 canal stenoses of that scanner since Monday"."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, func, literal, select, tuple_
from sqlalchemy.orm import Session

from db.models import Bundle, FindingRow, Study
from db.read_models.study_queries import assembled, identity_of
from db.types import UtcDateTime
from lumbar.errors import NotFound
from lumbar.spine.anatomy import Condition, Level, Severity
from lumbar.spine.findings import Finding
from lumbar.spine.provenance import BundleIdentity

FOUND_AS_IT_ENDS = timedelta(
    hours=1
)  # a study's findings are written when its analysis ends, or a moment beside


@dataclass(frozen=True)
class FindingFilter:
    """Which findings; what is empty narrows nothing. ``since``: found then or later."""

    severities: Collection[Severity] = ()
    conditions: Collection[Condition] = ()
    levels: Collection[Level] = ()
    scanner: str = ""
    since: datetime | None = None


@dataclass(frozen=True)
class FoundRow:
    """A finding in force, with the study it belongs to."""

    finding_id: int
    found_at: datetime
    study_instance_uid: str
    patient_identifier: str
    patient_name: str
    accession_number: str
    scanner: str
    finding: Finding
    bundle: BundleIdentity


@dataclass(frozen=True)
class FoundPage:
    """Some findings, and the id after which the next ones stand; None at the end."""

    rows: tuple[FoundRow, ...]
    next_after: int | None


def found(
    session: Session, only: FindingFilter, *, limit: int, after: int | None = None
) -> FoundPage:
    """The findings in force, the newest first. Those of a study that is being read again are left out.

    Raises:
        NotFound: no finding has the id ``after``.
    """
    wanted = [
        FindingRow.superseded.is_(False),
        Study.ended_at.is_not(None),
        *_narrowed(session, only),
    ]
    if after is not None:
        begin = session.get(FindingRow, after)
        if begin is None:
            raise NotFound(
                f"no finding has the number {after}, after which the next page would begin"
            )
        stands = tuple_(literal(begin.found_at, UtcDateTime()), literal(begin.id))
        wanted.append(tuple_(FindingRow.found_at, FindingRow.id) < stands)
    asked = (
        select(FindingRow, Study, Bundle)
        .join(Study, Study.id == FindingRow.study_id)
        .join(Bundle, Bundle.id == FindingRow.bundle_id)
        .where(*wanted)
        .order_by(FindingRow.found_at.desc(), FindingRow.id.desc())
        .limit(limit + 1)
    )
    rows = [
        FoundRow(
            finding_id=finding.id,
            found_at=finding.found_at,
            study_instance_uid=study.study_instance_uid,
            patient_identifier=study.patient.patient_identifier,
            patient_name=study.patient.name,
            accession_number=study.accession_number,
            scanner=study.scanner,
            finding=assembled(finding),
            bundle=_known(bundle),
        )
        for finding, study, bundle in session.execute(asked)
    ]
    shown = tuple(rows[:limit])
    return FoundPage(shown, shown[-1].finding_id if len(rows) > limit else None)


def _known(bundle: Bundle) -> BundleIdentity:
    identity = identity_of(bundle)
    assert identity is not None  # noqa: S101 - the row is there
    return identity


def _narrowed(session: Session, only: FindingFilter) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if only.severities:
        wanted.append(FindingRow.severity.in_(only.severities))
    if only.conditions:
        wanted.append(FindingRow.condition.in_(only.conditions))
    if only.levels:
        wanted.append(FindingRow.level.in_(only.levels))
    if only.scanner:
        wanted += [
            Study.scanner == only.scanner,
            FindingRow.found_at <= _newest(session, only.scanner),
        ]
    if only.since is not None:
        wanted.append(FindingRow.found_at >= only.since)
    return wanted


def _newest(session: Session, scanner: str) -> datetime:
    """Nothing of this scanner was found later: of one long gone, what others found since need not be gone through."""
    ended = session.scalar(select(func.max(Study.ended_at)).where(Study.scanner == scanner))
    return (ended or datetime(1970, 1, 1, tzinfo=UTC)) + FOUND_AS_IT_ENDS
