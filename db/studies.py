"""The states of a study: one table of transitions, and the only functions that apply it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Integer, case, func, literal, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from db import jobs
from db.database import log_committed
from db.models import (
    REJECTED,
    FindingRow,
    Instance,
    JobKind,
    Series,
    Study,
    StudyState,
    operating_s,
)
from db.types import db_now
from lumbar.errors import NotFound, Permanent
from lumbar.log import get_logger
from lumbar.spine.anatomy import Role
from lumbar.spine.findings import Finding
from lumbar.spine.provenance import TrainedOn

log = get_logger()


class StudyEvent(StrEnum):
    """What can happen to a study."""

    ARRIVED = "an instance arrived"
    COMPLETED = "its last image has arrived"
    CLAIMED = "a worker began"
    RELEASED = "the worker failed or was lost; another may try"
    ANALYSED = "25 findings and their report are stored"
    REFUSED = "it cannot be analysed"
    EXHAUSTED = "it has had all its attempts"
    CANCELLED = "an operator cancelled its analysis"
    REQUEUED = "an operator requeued it"
    EMPTIED = "none of its images is in use"


_S, _E = StudyState, StudyEvent

TRANSITIONS: dict[tuple[StudyState, StudyEvent], StudyState] = {
    (_S.RECEIVING, _E.ARRIVED): _S.RECEIVING,
    (_S.RECEIVING, _E.COMPLETED): _S.QUEUED,
    (_S.RECEIVING, _E.EMPTIED): _S.NO_IMAGES,
    (_S.NO_IMAGES, _E.ARRIVED): _S.RECEIVING,
    (_S.QUEUED, _E.CLAIMED): _S.ANALYSING,
    (_S.ANALYSING, _E.RELEASED): _S.QUEUED,
    (_S.ANALYSING, _E.ANALYSED): _S.ANALYSED,
    (_S.ANALYSING, _E.REFUSED): _S.NOT_ANALYSABLE,
    (_S.ANALYSING, _E.EXHAUSTED): _S.FAILED,
    # late: the next revision starts receiving
    (_S.QUEUED, _E.ARRIVED): _S.RECEIVING,
    (_S.ANALYSING, _E.ARRIVED): _S.RECEIVING,
    (_S.ANALYSED, _E.ARRIVED): _S.RECEIVING,
    (_S.NOT_ANALYSABLE, _E.ARRIVED): _S.RECEIVING,
    (_S.FAILED, _E.ARRIVED): _S.RECEIVING,
    # by an operator
    (_S.QUEUED, _E.CANCELLED): _S.FAILED,
    (_S.ANALYSING, _E.CANCELLED): _S.FAILED,
    (_S.ANALYSED, _E.REQUEUED): _S.QUEUED,
    (_S.NOT_ANALYSABLE, _E.REQUEUED): _S.QUEUED,
    (_S.FAILED, _E.REQUEUED): _S.QUEUED,
}

ENDED = (
    StudyState.ANALYSED,
    StudyState.NOT_ANALYSABLE,
    StudyState.FAILED,
    StudyState.NO_IMAGES,
)
NO_MR_IMAGES = "it has no MR images"
UNREAD: dict[str, None] = {"read_at": None, "expired_at": None}
_ENDINGS = {event for (_, event), after in TRANSITIONS.items() if after in ENDED}
# The states in which a revision has begun that must not change any more
_LATE = tuple(
    state
    for state, event in TRANSITIONS
    if event is _E.ARRIVED and state not in (_S.RECEIVING, _S.NO_IMAGES)
)


def advance(
    session: Session,
    study_id: int,
    event: StudyEvent,
    *,
    revision: int | None = None,
    reason: str | None = None,
) -> bool:
    """Changes a study's state by one conditional UPDATE; False if it does not allow the event."""
    allowed = {state: after for (state, cause), after in TRANSITIONS.items() if cause is event}
    ends = event in _ENDINGS
    statement = (
        update(Study)
        .where(Study.id == study_id, Study.state.in_(allowed))
        .values(
            state=case(
                {state.value: after.value for state, after in allowed.items()}, value=Study.state
            ),
            reason=reason,
            ended_at=db_now() if ends else None,
            result_s=operating_s() if ends else None,
            kept_from_s=operating_s(),
        )
        .execution_options(synchronize_session=False)
    )
    if revision is not None:
        statement = statement.where(Study.revision == revision)
    return session.execute(statement).rowcount == 1  # type: ignore[attr-defined,no-any-return]


def lock(session: Session, study_id: int) -> None:
    """Locks the study's row until the end of the transaction.

    Everything that writes a study and its jobs locks the study first, as receivers do: locking in
    different orders would deadlock.
    """
    session.execute(select(Study.id).where(Study.id == study_id).with_for_update())


def try_lock(session: Session, study_id: int) -> bool:
    """As ``lock``, but False at once if another transaction has the row locked.

    On SQLite a writer locks the whole database.
    """
    return (
        session.scalar(
            select(Study.id).where(Study.id == study_id).with_for_update(skip_locked=True)
        )
        is not None
    )


def image_arrived(session: Session, study_id: int, *, stat: bool = False) -> None:
    """Records a new image. If the study was complete, this opens its next revision.

    Analyses of earlier revisions are cancelled.
    """
    _reopen(session, study_id, last_received_at=db_now(), stat=or_(Study.stat, literal(stat)))


def images_changed(session: Session, study_id: int) -> None:
    """As ``image_arrived``, where none has arrived: the study need not be quiet again."""
    _reopen(session, study_id)


def attributes_changed(session: Session, study_id: int) -> None:
    """Opens the next revision of a study whose report states, or may be about to, other values.

    Not where retention has removed images: without them there would be no new report.
    """
    if images_removed(session, study_id):
        return
    state = session.scalars(select(Study.state).where(Study.id == study_id)).one()
    if state in (_S.ANALYSING, _S.ANALYSED):
        images_changed(session, study_id)


def _reopen(session: Session, study_id: int, **values: Any) -> None:
    late = Study.state.in_(_LATE).cast(Integer)
    session.execute(
        update(Study)
        .where(Study.id == study_id)
        .values(
            revision=Study.revision + late,
            state=_S.RECEIVING,
            reason=None,
            ended_at=None,
            result_s=None,
            images_removed_at=None,
            kept_from_s=operating_s(),
            **UNREAD,
            **values,
        )
        .execution_options(synchronize_session=False)
    )
    jobs.cancel_superseded(session, study_id, JobKind.ANALYSE)


@dataclass(frozen=True)
class Quiet:
    """Seconds without a new image to complete a study: with all three roles, and in any case."""

    complete_s: float
    incomplete_s: float

    def holds(self) -> ColumnElement[bool]:
        return (Study.last_received_at < db_now(-self.incomplete_s)) | (
            (Study.last_received_at < db_now(-self.complete_s)) & (_roles_present() == len(Role))
        )


def quiet_studies(session: Session, quiet: Quiet) -> list[int]:
    """Studies that have been quiet for long enough."""
    return list(
        session.scalars(
            select(Study.id).where(Study.state == _S.RECEIVING, quiet.holds()).order_by(Study.id)
        )
    )


def _roles_present() -> ColumnElement[int]:
    """How many of the three roles have enough slices."""
    # imported here, because it loads NumPy, which most commands do not need
    from lumbar.spine.roles import MIN_SLICES

    enough = (
        select(Instance.role)
        .join(Series)
        .where(
            Series.study_id == Study.id, Instance.role.is_not(None), Instance.quarantined.is_(None)
        )
        .group_by(Instance.role)
        .having(func.sum(Instance.slices) >= MIN_SLICES)
        .correlate(Study)
        .subquery()
    )
    return select(func.count()).select_from(enough).scalar_subquery()


def complete(
    session: Session,
    study_id: int,
    quiet: Quiet | None = None,
    arriving: Collection[str] = (),
) -> bool:
    """Closes a study's revision and creates its ANALYSE job; False if it was not receiving.

    A study without an image in use has nothing to read, and leaves the worklist.

    Also False if the study is among those ``arriving``, of which images wait for their rows
    (``Store.arriving``, listed just before); and, with ``quiet``, if an image has arrived since the
    study was found quiet.
    """
    lock(session, study_id)
    if quiet is not None and not session.scalar(select(quiet.holds()).where(Study.id == study_id)):
        return False
    if arriving and session.get_one(Study, study_id).study_instance_uid in arriving:
        return False
    if why := why_empty(session, study_id):
        return _empty(session, study_id, why)
    if not advance(session, study_id, _E.COMPLETED):
        return False
    study = session.get_one(Study, study_id, populate_existing=True)
    jobs.create(session, JobKind.ANALYSE, study)
    log_committed(session, log.info, "study.completed", study=study_id, revision=study.revision)
    return True


def why_empty(session: Session, study_id: int) -> str | None:
    """Why none of a study's images is in use; None if one is."""
    reasons = session.scalars(
        select(Instance.quarantined)
        .join(Series)
        .where(Series.study_id == study_id, Instance.is_image)
        .distinct()
    ).all()
    if None in reasons:
        return None
    stated = "; ".join(sorted(reason for reason in reasons if reason is not None))
    return f"none of its images is in use: {stated}" if reasons else NO_MR_IMAGES


def _empty(session: Session, study_id: int, why: str) -> bool:
    """Ends a study that has nothing to read; its findings and pending deliveries are superseded."""
    if not advance(session, study_id, _E.EMPTIED, reason=why):
        return False
    supersede_findings(session, study_id)
    jobs.cancel_superseded(session, study_id, JobKind.DELIVER)
    log_committed(session, log.info, "study.no_images", study=study_id)
    return True


def requeue(session: Session, study_id: int, *, keep_read: bool = False) -> bool:
    """Analyses an ended study again, as its next revision; False if it has not ended.

    ``keep_read``: a study that has been read need not be read again.

    Raises:
        Permanent: its images were removed; its findings remain.
    """
    lock(session, study_id)
    study = session.get_one(Study, study_id, populate_existing=True)
    if images_removed(session, study_id):
        raise Permanent(
            "the study's images were removed to make room; send the study again, then requeue it"
        )
    if not advance(session, study_id, _E.REQUEUED):
        return False
    session.refresh(study)
    study.revision += 1
    if not keep_read:
        study.read_at = study.expired_at = None
    jobs.create(session, JobKind.ANALYSE, study)
    return True


def find(session: Session, study_instance_uid: str) -> Study:
    """The study with this UID.

    Raises:
        NotFound: no such study was received.
    """
    study = session.scalar(select(Study).where(Study.study_instance_uid == study_instance_uid))
    if study is None:
        raise NotFound(
            f"no study with UID {study_instance_uid!r} was received; "
            "`lumbar worklist --all` lists those that were"
        )
    return study


def images_in_use(session: Session, study_id: int) -> list[Instance]:
    """The images an analysis reads, in the order of their UIDs."""
    return list(
        session.scalars(
            select(Instance)
            .join(Series)
            .where(Series.study_id == study_id, Instance.quarantined.is_(None), Instance.is_image)
            .order_by(Instance.sop_instance_uid)
        )
    )


def images_removed(session: Session, study_id: int) -> bool:
    """Whether the file of an image in use was removed."""
    return any(row.removed_at is not None for row in images_in_use(session, study_id))


def report_superseded(session: Session, study_id: int, revision: int) -> bool:
    """Whether the report of a revision is no longer true: corrected since, or its images rejected.

    A report that late images will have replaced is still the newest that there is.
    """
    study = session.get_one(Study, study_id, populate_existing=True)
    return revision < study.corrected_revision or (
        study.state is _S.NO_IMAGES and revision < study.revision
    )


def supersede_findings(session: Session, study_id: int) -> None:
    """Supersedes the findings of earlier revisions; they no longer rank the study."""
    session.execute(
        update(FindingRow)
        .where(FindingRow.study_id == study_id, FindingRow.superseded.is_(False))
        .values(superseded=True)
        .execution_options(synchronize_session=False)
    )
    rank(session, study_id, severe=False, trained_on=None)


def is_graded_otherwise(session: Session, study_id: int, findings: Iterable[Finding]) -> bool:
    """Whether a study has findings, and other severities than these."""
    current = session.execute(
        select(FindingRow.condition, FindingRow.level, FindingRow.severity).where(
            FindingRow.study_id == study_id, FindingRow.superseded.is_(False)
        )
    ).all()
    new = {(finding.condition, finding.level, finding.severity) for finding in findings}
    return bool(current) and {tuple(row) for row in current} != new


def mark_unread(session: Session, study_id: int) -> None:
    """Puts a study back on the worklist, as nobody has read what is known of it now."""
    session.execute(
        update(Study)
        .where(Study.id == study_id)
        .values(**UNREAD)
        .execution_options(synchronize_session=False)
    )


def ended_without_findings(session: Session, study_id: int) -> None:
    """Supersedes the findings of earlier revisions when one has ended without any.

    Not where it could not be analysed as a whole because retention has removed images: then the
    earlier ones are the last there can be, unless an image that they are from has been rejected.
    """
    rejected = (
        select(Instance.id)
        .join(Series)
        .where(
            Series.study_id == study_id,
            Instance.quarantined.in_([reason.value for reason in REJECTED]),
        )
    )
    if not images_removed(session, study_id) or session.scalar(rejected.limit(1)) is not None:
        supersede_findings(session, study_id)


def rank(session: Session, study_id: int, *, severe: bool, trained_on: TrainedOn | None) -> None:
    """Records on the study what the worklist's order needs to know of its findings."""
    session.execute(
        update(Study)
        .where(Study.id == study_id)
        .values(severe=severe, trained_on=trained_on)
        .execution_options(synchronize_session=False)
    )
