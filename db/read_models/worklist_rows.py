"""Studies as lists show them: what is known about each, how urgent it is, and why."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Integer, case, func, select
from sqlalchemy.orm import Session

from db.models import Bundle, FindingRow, Instance, ReadingState, Series, Study, StudyState
from db.read_models.corrections import pending_of
from db.read_models.study_queries import batches, caveats_of, identity_of
from lumbar.spine.anatomy import FindingKey, Severity
from lumbar.spine.findings import MIN_VIEW_PROBABILITY, NUMBERING_UNCERTAIN
from lumbar.spine.provenance import BundleIdentity, TrainedOn
from lumbar.spine.urgency import TriageFactors, Urgency, urgency

NO_SEVERE: Mapping[int, tuple[FindingKey, ...]] = {}


@dataclass(frozen=True)
class Ranking:
    """What a site decides about the order of the worklist."""

    uncertain_below: float = 0.5  # the best probability of a finding, 0–1
    rank_by_synthetic: bool = False
    days: float = 0  # how long an unread study stays listed after its last result; 0: for ever

    def ranks(self, trained_on: TrainedOn | None) -> bool:
        """Whether findings by such weights order the worklist.

        Untrained weights never do; those trained on phantoms only where the site wants it.
        """
        return trained_on in self.trusted

    @property
    def trusted(self) -> tuple[TrainedOn, ...]:
        if self.rank_by_synthetic:
            return (TrainedOn.CLINICAL, TrainedOn.SYNTHETIC)
        return (TrainedOn.CLINICAL,)


@dataclass(frozen=True)
class WorklistRow:
    """A study as the worklist and the list of all studies show it."""

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
    correction: str | None  # that waits to be taken over or for more copies
    flags: tuple[str, ...]  # that correction, caveats, and the warning of the weights
    waiting_s: float  # since the last image
    last_received_at: datetime
    reading: ReadingState
    read_at: datetime | None
    expired_at: datetime | None  # when it left the worklist unread
    bundle: BundleIdentity | None


@dataclass(frozen=True)
class Assessment:
    """How urgent a study is, the reason in words, and the weights of its findings."""

    urgency: Urgency
    why: str
    bundle: Bundle | None


@dataclass(frozen=True)
class _Counts:
    """How many of a study's findings in force are moderate, uncertain and not assessed."""

    moderate: int = 0
    uncertain: int = 0
    not_assessed: int = 0
    bundle: Bundle | None = None


def rows_of(
    session: Session, studies: Sequence[Study], ranking: Ranking, now: datetime
) -> tuple[WorklistRow, ...]:
    """A row for each study, in their order."""
    ids = [study.id for study in studies]
    severe = _keys(session, ids, Severity.SEVERE)
    moderate = _keys(session, ids, Severity.MODERATE)
    images, caveats = _images(session, ids), caveats_of(session, ids)
    corrections = pending_of(session, ids)
    assessments = assess(session, studies, ranking, now, severe)
    rows = []
    for study in studies:
        assessment = assessments[study.id]
        bundle = identity_of(assessment.bundle) if assessment.bundle else None
        warning = bundle.trained_on.warning if bundle else None
        correction = str(corrections[study.id]) if study.id in corrections else None
        rows.append(
            WorklistRow(
                urgency=assessment.urgency,
                why=assessment.why,
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
                correction=correction,
                flags=(
                    *((correction,) if correction else ()),
                    *caveats.get(study.id, ()),
                    *((warning,) if warning else ()),
                ),
                waiting_s=_waited(study, now).total_seconds(),
                last_received_at=study.last_received_at,
                reading=study.reading,
                read_at=study.read_at,
                expired_at=study.expired_at,
                bundle=bundle,
            )
        )
    return tuple(rows)


def assess(
    session: Session,
    studies: Sequence[Study],
    ranking: Ranking,
    now: datetime,
    severe: Mapping[int, tuple[FindingKey, ...]] = NO_SEVERE,
) -> dict[int, Assessment]:
    """How urgent each study is, by its id; ``severe``: the studies' severe findings, by study."""
    ids = [study.id for study in studies]
    counts = _counts(session, ids, ranking.uncertain_below)
    caveats = caveats_of(session, ids)
    assessments = {}
    for study in studies:
        counted = counts.get(study.id, _Counts())
        reanalysis_pending = counted.bundle is not None and study.ended_at is None
        on_numbering = [c.startswith(NUMBERING_UNCERTAIN) for c in caveats.get(study.id, ())]
        factors = TriageFactors(
            severe=severe.get(study.id, ()),
            moderate=counted.moderate,
            uncertain=counted.uncertain,
            not_assessed=counted.not_assessed,
            numbering_uncertain=any(on_numbering),
            images_uncertain=not all(on_numbering),
            no_findings_reason=None if reanalysis_pending else _no_findings_reason(study),
            reanalysis_pending=reanalysis_pending,
            weights_may_rank=counted.bundle is None or ranking.ranks(counted.bundle.trained_on),
            stat=study.stat,
            waiting=_waited(study, now),
        )
        assessments[study.id] = Assessment(*urgency(factors), counted.bundle)
    return assessments


def _keys(
    session: Session, study_ids: Sequence[int], severity: Severity
) -> dict[int, tuple[FindingKey, ...]]:
    """The findings in force of this severity, by study."""
    keys: dict[int, list[FindingKey]] = defaultdict(list)
    for ids in batches(study_ids):
        statement = select(FindingRow.study_id, FindingRow.condition, FindingRow.level).where(
            FindingRow.study_id.in_(ids),
            FindingRow.superseded.is_(False),
            FindingRow.severity == severity,
        )
        for study_id, condition, level in session.execute(statement):
            keys[study_id].append(FindingKey(condition, level))
    return {study_id: tuple(sorted(counted)) for study_id, counted in keys.items()}


def _images(session: Session, study_ids: Sequence[int]) -> dict[int, int]:
    """How many images of each study were received and not quarantined."""
    counts: dict[int, int] = {}
    for ids in batches(study_ids):
        statement = (
            select(Series.study_id, func.count())
            .join(Instance, Instance.series_id == Series.id)
            .where(Series.study_id.in_(ids), Instance.quarantined.is_(None), Instance.is_image)
            .group_by(Series.study_id)
        )
        counts |= {study_id: count for study_id, count in session.execute(statement)}  # noqa: C416
    return counts


def _counts(
    session: Session, study_ids: Sequence[int], uncertain_below: float
) -> dict[int, _Counts]:
    """The counts by study; studies without findings in force are left out."""
    uncertain = (FindingRow.shows < MIN_VIEW_PROBABILITY) | (
        (FindingRow.normal_mild < uncertain_below)
        & (FindingRow.moderate < uncertain_below)
        & (FindingRow.severe < uncertain_below)
    )
    counts: dict[int, _Counts] = {}
    bundles = {bundle.id: bundle for bundle in session.scalars(select(Bundle))}
    for ids in batches(study_ids):
        statement = (
            select(
                FindingRow.study_id,
                _count_where(FindingRow.severity == Severity.MODERATE),
                _count_where(uncertain),
                _count_where(FindingRow.severity.is_(None)),
                func.max(FindingRow.bundle_id),
            )
            .where(FindingRow.study_id.in_(ids), FindingRow.superseded.is_(False))
            .group_by(FindingRow.study_id)
        )
        for study_id, moderate, unsure, not_assessed, bundle_id in session.execute(statement):
            counts[study_id] = _Counts(moderate, unsure, not_assessed, bundles[bundle_id])
    return counts


def _count_where(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0)).cast(Integer)


def _no_findings_reason(study: Study) -> str | None:
    if study.state is StudyState.ANALYSED:
        return None
    words = study.state.replace("_", " ")
    return f"{words}: {study.reason}" if study.reason else f"not read yet: {words}"


def _waited(study: Study, now: datetime) -> timedelta:
    """Since the last image; none where the clock was ahead when that was received."""
    return max(timedelta(), now - study.last_received_at)
