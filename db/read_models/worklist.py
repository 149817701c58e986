"""Studies in the order of reading, a page at a time, however many there are.

The order is four runs, one after the other: STAT orders, studies with a severe finding, those that have waited longest,
and the rest. The first three are read straight from indexes of the unread studies, by who has waited longest; the rest
came within the last hours, are few, and are ranked one by one (``lumbar.spine.urgency``).
"""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Integer, case, func, literal, select, tuple_
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import Tuple

from db.models import Bundle, FindingRow, Instance, Series, Study, StudyState
from db.read_models import study_search
from db.read_models.study_queries import caveats_of, identity_of, in_parts
from db.types import UtcDateTime
from lumbar.errors import NotFound
from lumbar.spine.anatomy import FindingKey, Severity
from lumbar.spine.findings import MIN_VIEW_PROBABILITY
from lumbar.spine.provenance import BundleIdentity, TrainedOn
from lumbar.spine.urgency import LONG_WAIT, TriageFactors, Urgency, urgency

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WRITTEN = re.compile(
    "([0-9])-([0-9])-([0-9]{1,17})-([0-9]{1,10})"
)  # a cursor: run, place, microseconds, study
_LARGEST = 2**31 - 1  # id of a study


@dataclass(frozen=True)
class Ranking:
    """What a site decides about the order."""

    uncertain_below: float = 0.5  # the best probability of a finding, 0–1
    rank_by_synthetic: bool = False
    days: float = 0  # a study whose last image is older has left the worklist; 0: none ever does

    def ranks(self, trained_on: TrainedOn | None) -> bool:
        """Weights that have learnt nothing never rank; those trained on phantoms only where a site wants that."""
        return trained_on in self.trusted

    @property
    def trusted(self) -> tuple[TrainedOn, ...]:
        return (
            (TrainedOn.CLINICAL, TrainedOn.SYNTHETIC)
            if self.rank_by_synthetic
            else (TrainedOn.CLINICAL,)
        )


@dataclass(frozen=True)
class StudyFilter:
    """Which studies; what is empty narrows nothing. ``text``: see ``db.read_models.study_search``."""

    text: str = ""
    states: Collection[StudyState] = ()
    scanner: str = ""
    since: datetime | None = None  # of the last image


@dataclass(frozen=True)
class WorklistRow:
    """A study in the order of reading."""

    urgency: Urgency
    why: str
    study_instance_uid: str
    patient_identifier: str
    patient_name: str
    accession_number: str
    study_date: str  # YYYYMMDD or empty
    description: str
    scanner: str
    state: StudyState
    revision: int
    stat: bool
    images: int  # received and not quarantined
    severe: tuple[FindingKey, ...]
    moderate: tuple[FindingKey, ...]
    flags: tuple[str, ...]  # why not to trust what was found, in words
    waiting_s: float  # since the last image
    last_received_at: datetime
    read_at: datetime | None
    bundle: BundleIdentity | None


@dataclass(frozen=True)
class StudyPage:
    """Some studies, and the place after which the next ones stand; None at the end."""

    rows: tuple[WorklistRow, ...]
    next_after: str | None


@dataclass(frozen=True)
class Waiting:
    """How many studies wait to be read, with how many severe ones, and how many left the list without being read."""

    unread: int
    severe: int
    left_unread: int


def worklist(
    session: Session,
    ranking: Ranking,
    *,
    limit: int | None = None,
    after: str | None = None,
    only: StudyFilter | None = None,
    now: datetime | None = None,
) -> StudyPage:
    """The studies that wait to be read, the most urgent first; ``after``: the ``next_after`` of the page before.

    Raises:
        NotFound: no page ended with ``after``.
    """
    now = now or datetime.now(UTC)
    wanted = [Study.read_at.is_(None), *_narrowed(session, only or StudyFilter(), unread=True)]
    if ranking.days:
        wanted.append(Study.last_received_at >= now - timedelta(days=ranking.days))
    begin = _Cursor.read(after) if after else None
    runs = _runs(ranking, now)
    here = min(begin.run, len(runs)) if begin else 0
    found: list[tuple[_Cursor, Study]] = []
    more = None if limit is None else limit + 1
    for n, run in enumerate(runs[here:], here):
        left = None if more is None else more - len(found)
        if left != 0:
            behind = [_stands() > begin.stands] if begin and n == here else []
            asked = (
                select(Study)
                .where(run, *wanted, *behind)
                .order_by(Study.last_received_at, Study.id)
            )
            found += [(_Cursor.of(study, n), study) for study in session.scalars(asked.limit(left))]
    if more is None or len(found) < more:
        rest = [Study.last_received_at > now - 2 * LONG_WAIT, *(~run for run in runs)]
        few = session.scalars(select(Study).where(*wanted, *rest)).all()
        places = _places(session, few, ranking, now, {})
        ranked = sorted(
            ((_Cursor.of(study, len(runs), places[study.id][0]), study) for study in few),
            key=_by_cursor,
        )
        found += [(cursor, study) for cursor, study in ranked if begin is None or cursor > begin]
    return _page(session, found, limit, ranking, now)


def _by_cursor(found: "tuple[_Cursor, Study]") -> "_Cursor":
    return found[0]


def studies(
    session: Session,
    ranking: Ranking,
    *,
    limit: int,
    after: str | None = None,
    only: StudyFilter | None = None,
    now: datetime | None = None,
) -> StudyPage:
    """All studies, read or not, the newest first. Raises NotFound: no page ended with ``after``."""
    now = now or datetime.now(UTC)
    wanted = _narrowed(session, only or StudyFilter())
    if after:
        wanted.append(_stands() < _Cursor.read(after).stands)
    found = session.scalars(
        select(Study)
        .where(*wanted)
        .order_by(Study.last_received_at.desc(), Study.id.desc())
        .limit(limit + 1)
    )
    return _page(session, [(_Cursor.of(study, 0), study) for study in found], limit, ranking, now)


def row_of(
    session: Session, study: Study, ranking: Ranking, now: datetime | None = None
) -> WorklistRow:
    """One study as the worklist shows it, wherever it stands."""
    return _page(
        session, [(_Cursor.of(study, 0), study)], None, ranking, now or datetime.now(UTC)
    ).rows[0]


def waiting(session: Session, ranking: Ranking, now: datetime | None = None) -> Waiting:
    """How long the list is. ``left_unread`` counts to a thousand at most."""
    now = now or datetime.now(UTC)
    oldest = (
        now - timedelta(days=ranking.days) if ranking.days else datetime(1970, 1, 1, tzinfo=UTC)
    )
    unread, in_time = Study.read_at.is_(None), Study.last_received_at >= oldest
    severe = _severe(ranking)
    gone = select(Study.id).where(unread, Study.last_received_at < oldest).limit(1000).subquery()
    return Waiting(
        unread=session.scalar(select(func.count()).select_from(Study).where(unread, in_time)) or 0,
        severe=session.scalar(
            select(func.count()).select_from(Study).where(unread, in_time, severe)
        )
        or 0,
        left_unread=session.scalar(select(func.count()).select_from(gone)) or 0,
    )


def _runs(ranking: Ranking, now: datetime) -> tuple[ColumnElement[bool], ...]:
    """The runs that are read from indexes, in their order; each study is in one of them at most."""
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


@dataclass(frozen=True, order=True)
class _Cursor:
    """Where in the order a page ended: a place, not a study, which may be elsewhere by the time of the next page."""

    run: int
    place: int  # the urgency, of the last run
    received_us: int  # since 1970
    study_id: int

    @classmethod
    def of(cls, study: Study, run: int, place: int = 0) -> "_Cursor":
        return cls(
            run, place, (study.last_received_at - _EPOCH) // timedelta(microseconds=1), study.id
        )

    @classmethod
    def read(cls, written: str) -> "_Cursor":
        if not (parts := _WRITTEN.fullmatch(written)) or int(parts[4]) > _LARGEST:
            raise NotFound(f"no page ended with {written!r}; take `next_after` as it is")
        return cls(*map(int, parts.groups()))

    @property
    def stands(self) -> Tuple:
        return tuple_(
            literal(_EPOCH + timedelta(microseconds=self.received_us), UtcDateTime()),
            literal(self.study_id),
        )

    def __str__(self) -> str:
        return f"{self.run}-{self.place}-{self.received_us}-{self.study_id}"


def _stands() -> Tuple:
    return tuple_(Study.last_received_at, Study.id)


def _narrowed(
    session: Session, only: StudyFilter, *, unread: bool = False
) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if only.text.strip():
        wanted.append(Study.id.in_(study_search.matching(session, only.text, unread=unread)))
    if only.states:
        wanted.append(Study.state.in_(only.states))
    if only.scanner:
        wanted.append(Study.scanner == only.scanner)
    if only.since is not None:
        wanted.append(Study.last_received_at >= only.since)
    return wanted


@dataclass(frozen=True)
class _Counted:
    """A study's current findings in figures."""

    moderate: int = 0
    uncertain: int = 0
    not_assessed: int = 0
    bundle: Bundle | None = None


def _places(
    session: Session,
    found: Sequence[Study],
    ranking: Ranking,
    now: datetime,
    severe: dict[int, tuple[FindingKey, ...]],
) -> dict[int, tuple[Urgency, str, _Counted]]:
    """Each study's urgency, the reason in words, and what was counted for it."""
    ids = [study.id for study in found]
    counted = _counted(session, ids, ranking.uncertain_below)
    doubtful = caveats_of(session, ids)
    places = {}
    for study in found:
        own = counted.get(study.id, _Counted())
        read_again = own.bundle is not None and study.ended_at is None
        place, why = urgency(
            TriageFactors(
                severe=severe.get(study.id, ()),
                moderate=own.moderate,
                uncertain=own.uncertain,
                not_assessed=own.not_assessed,
                numbering_uncertain=study.id in doubtful,
                no_findings_reason=None if read_again else _unread_because(study),
                reanalysis_pending=read_again,
                weights_may_rank=own.bundle is None or ranking.ranks(own.bundle.trained_on),
                stat=study.stat,
                waiting=now - study.last_received_at,
            )
        )
        places[study.id] = place, why, own
    return places


def _page(
    session: Session,
    found: Sequence[tuple[_Cursor, Study]],
    limit: int | None,
    ranking: Ranking,
    now: datetime,
) -> StudyPage:
    shown = [study for _, study in (found if limit is None else found[:limit])]
    ids = [study.id for study in shown]
    severe = _keys(session, ids, Severity.SEVERE)
    moderate = _keys(session, ids, Severity.MODERATE)
    images, caveats = _images(session, ids), caveats_of(session, ids)
    places = _places(session, shown, ranking, now, severe)
    rows = []
    for study in shown:
        place, why, own = places[study.id]
        flags = list(caveats.get(study.id, ()))
        if own.bundle and own.bundle.trained_on.warning:
            flags.append(own.bundle.trained_on.warning)
        rows.append(
            WorklistRow(
                urgency=place,
                why=why,
                study_instance_uid=study.study_instance_uid,
                patient_identifier=study.patient.patient_identifier,
                patient_name=study.patient.name,
                accession_number=study.accession_number,
                study_date=study.study_date,
                description=study.description,
                scanner=study.scanner,
                state=study.state,
                revision=study.revision,
                stat=study.stat,
                images=images.get(study.id, 0),
                severe=severe.get(study.id, ()),
                moderate=moderate.get(study.id, ()),
                flags=tuple(flags),
                waiting_s=(now - study.last_received_at).total_seconds(),
                last_received_at=study.last_received_at,
                read_at=study.read_at,
                bundle=identity_of(own.bundle),
            )
        )
    return StudyPage(
        tuple(rows), str(found[len(shown) - 1][0]) if len(found) > len(shown) else None
    )


def _keys(
    session: Session, ids: Sequence[int], severity: Severity
) -> dict[int, tuple[FindingKey, ...]]:
    keys: dict[int, list[FindingKey]] = defaultdict(list)
    for some in in_parts(ids):
        asked = select(FindingRow.study_id, FindingRow.condition, FindingRow.level).where(
            FindingRow.study_id.in_(some),
            FindingRow.superseded.is_(False),
            FindingRow.severity == severity,
        )
        for study_id, condition, level in session.execute(asked):
            keys[study_id].append(FindingKey(condition, level))
    return {study_id: tuple(sorted(own)) for study_id, own in keys.items()}


def _images(session: Session, ids: Sequence[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for some in in_parts(ids):
        asked = (
            select(Series.study_id, func.count())
            .join(Instance, Instance.series_id == Series.id)
            .where(Series.study_id.in_(some), Instance.quarantined.is_(None))
            .group_by(Series.study_id)
        )
        counts |= {study_id: count for study_id, count in session.execute(asked)}  # noqa: C416
    return counts


def _counted(session: Session, ids: Sequence[int], uncertain_below: float) -> dict[int, _Counted]:
    """Over the current findings: how many are moderate, uncertain and not assessed, and the bundle."""
    unsure = (FindingRow.shows < MIN_VIEW_PROBABILITY) | (
        (FindingRow.normal_mild < uncertain_below)
        & (FindingRow.moderate < uncertain_below)
        & (FindingRow.severe < uncertain_below)
    )
    counted: dict[int, _Counted] = {}
    bundles = {bundle.id: bundle for bundle in session.scalars(select(Bundle))}
    for some in in_parts(ids):
        asked = (
            select(
                FindingRow.study_id,
                _count_where(FindingRow.severity == Severity.MODERATE),
                _count_where(unsure),
                _count_where(FindingRow.severity.is_(None)),
                func.max(FindingRow.bundle_id),
            )
            .where(FindingRow.study_id.in_(some), FindingRow.superseded.is_(False))
            .group_by(FindingRow.study_id)
        )
        for study_id, moderate, uncertain, not_assessed, bundle_id in session.execute(asked):
            counted[study_id] = _Counted(moderate, uncertain, not_assessed, bundles[bundle_id])
    return counted


def _count_where(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0)).cast(Integer)


def _unread_because(study: Study) -> str | None:
    if study.state is StudyState.ANALYSED:
        return None
    words = study.state.replace("_", " ")
    return f"{words}: {study.reason}" if study.reason else f"not read yet: {words}"
