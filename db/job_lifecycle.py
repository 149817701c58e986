"""What workers call: jobs and previews are claimed, ended, retried, dead-lettered and recovered.

The study of an analysis changes its state in the same transaction. Ending an analysis is one
transaction, too: the findings, the report and a delivery to every destination.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import audit, jobs, leases, previews, studies
from db.database import insert_if_new, log_committed
from db.jobs import ClaimedJob
from db.leases import Backoff, LeaseLostError
from db.models import (
    Bundle,
    Explanation,
    FindingRow,
    JobKind,
    Preview,
    ReportRow,
    Study,
)
from db.preview_results import PreviewResult
from db.previews import ClaimedPreview
from db.studies import StudyEvent
from db.types import db_now
from lumbar.errors import Transient
from lumbar.log import get_logger
from lumbar.spine.anatomy import Severity
from lumbar.spine.findings import Finding
from lumbar.spine.provenance import BundleIdentity

log = get_logger()

Claimed = ClaimedJob | ClaimedPreview
C = TypeVar("C", ClaimedJob, ClaimedPreview)
Claim = Callable[[Session], C | None]  # claims the most urgent due row, if any
# what becomes of a job that failed for now; whether it was dead-lettered
OnTemporary = Callable[[Session, C, Transient, Backoff], bool]


class Recovery(Enum):
    """What became of a lost worker's job."""

    REQUEUED = auto()
    DEAD = auto()


CANDIDATES = 20  # due rows that a worker tries to claim; if others have them all, it tries later
WORKER_LOST = "the worker was lost"


def claim_analysis(session: Session, *, lease_s: float) -> ClaimedJob | None:
    """Claims the most urgent due analysis, with its study; None if none is due.

    A study that a receiver or another worker has locked is skipped, not waited for.
    """
    for job_id, study_id in jobs.due(session, JobKind.ANALYSE, CANDIDATES):
        if not studies.try_lock(session, study_id):
            continue
        claimed = jobs.claim(session, job_id, lease_s=lease_s)
        if claimed is None:
            continue
        if studies.advance(session, study_id, StudyEvent.CLAIMED, revision=claimed.revision):
            return claimed
        leases.cancel(session, claimed.lease)
    return None


def claim_preview(session: Session, *, lease_s: float) -> ClaimedPreview | None:
    """Claims the upload that has waited longest; None when there is none."""
    for preview_id in previews.due(session, CANDIDATES):
        if leases.claim(session, Preview, preview_id, lease_s=lease_s):
            return previews.claimed_preview(session.get_one(Preview, preview_id))
    return None


def count_due(session: Session, kind: JobKind, limit: int) -> int:
    """How many rows of a kind are due, counted to ``limit``."""
    if kind is JobKind.PREVIEW:
        return len(previews.due(session, limit))
    return len(jobs.due(session, kind, limit))


def expired(session: Session) -> Sequence[Claimed]:
    """The jobs and previews whose worker is lost."""
    return [*jobs.expired(session), *previews.expired(session)]


def end_analysis(
    session: Session,
    claimed: ClaimedJob,
    event: StudyEvent,
    *,
    reason: str | None = None,
    findings: Sequence[Finding] = (),
    notes: Iterable[str] = (),
    caveats: Iterable[str] = (),
    bundle: BundleIdentity | None = None,
    report: ReportRow | None = None,
    destinations: Iterable[str] = (),
) -> None:
    """Writes a study's outcome, all or nothing. ``notes`` and ``caveats`` say how it was read.

    Raises:
        LeaseLostError: the job is no longer ours; the transaction must be rolled back.
    """
    studies.lock(session, claimed.study_id)
    leases.finish(session, claimed.lease)
    if not studies.advance(
        session, claimed.study_id, event, revision=claimed.revision, reason=reason
    ):
        raise LeaseLostError
    _add_explanations(session, claimed, notes, caveats)
    if bundle is None:
        studies.ended_without_findings(session, claimed.study_id)
    else:
        if studies.is_graded_otherwise(session, claimed.study_id, findings):
            studies.mark_unread(session, claimed.study_id)
        studies.supersede_findings(session, claimed.study_id)
        _add_findings(session, claimed, findings, bundle)
    if report is not None:
        _add_report(session, claimed, report, destinations)


def end_preview(session: Session, claimed: ClaimedPreview, result: PreviewResult) -> None:
    """Writes an upload's result.

    Raises:
        LeaseLostError: the preview is no longer ours; the transaction must be rolled back.
    """
    leases.finish(session, claimed.lease, result=result.to_json())
    if not claimed.keep:
        _note_upload(session, "upload.analysed", claimed)
    for uid in result.studies:
        study_id = studies.find(session, uid).id
        _note_upload(session, "upload.kept", claimed, study_id)


def _note_upload(
    session: Session, event: str, claimed: ClaimedPreview, study_id: int | None = None
) -> None:
    worker, upload = audit.on_this_host("worker"), claimed.lease.row_id
    audit.note(session, event, worker, study_id=study_id, upload=upload, user=claimed.user)


def refuse_preview(
    session: Session, claimed: ClaimedPreview, reason: str, notes: Iterable[str]
) -> None:
    """Ends an upload that is not analysable, for the reason given.

    Raises:
        LeaseLostError: the preview is no longer ours; the transaction must be rolled back.
    """
    result = PreviewResult(choices=tuple(notes))
    leases.finish(session, claimed.lease, reason=reason, result=result.to_json())
    _note_upload(session, "upload.not_analysable", claimed)


def release(
    session: Session, claimed: Claimed, error: str, backoff: Backoff, *, fault: bool = False
) -> bool:
    """Returns a failed job to the queue for a later attempt, or dead-letters it; its study follows.

    ``fault``: the error is ours. Returns whether it was dead-lettered. Has no effect if the lease
    is lost.
    """
    _lock_study(session, claimed)
    if not leases.is_held(session, claimed.lease):
        return False
    retry = leases.retry_after_fault if fault else leases.retry
    wait_s = retry(session, claimed.lease, error, backoff)
    if wait_s is None:
        return dead_letter(session, claimed, error)
    if isinstance(claimed, ClaimedJob) and studies.report_superseded(
        session, claimed.study_id, claimed.revision
    ):
        jobs.cancel_superseded(session, claimed.study_id, JobKind.DELIVER)
    attempts = claimed.lease.attempts
    fields = claimed.log_fields | {"attempts": attempts, "wait_s": round(wait_s, 1)}
    log_committed(session, log.warning, "job.retry", **fields)
    _requeue_study(session, claimed)
    return False


def dead_letter(session: Session, claimed: Claimed, error: str) -> bool:
    """Gives a job up, for an operator to look at; False, without effect, if the lease is lost.

    If it is an analysis, its study has failed for this reason.
    """
    _lock_study(session, claimed)
    if not leases.dead_letter(session, claimed.lease, error):
        return False
    fields = claimed.log_fields | {"attempts": claimed.lease.attempts}
    log_committed(session, log.error, "job.dead", **fields)
    if isinstance(claimed, ClaimedPreview):
        _note_upload(session, "upload.failed", claimed)
    elif claimed.kind is JobKind.ANALYSE:
        exhausted = StudyEvent.EXHAUSTED
        studies.advance(
            session, claimed.study_id, exhausted, revision=claimed.revision, reason=error
        )
        studies.ended_without_findings(session, claimed.study_id)
    return True


def recover(session: Session, lost: Claimed, *, max_losses: int | None) -> Recovery | None:
    """Returns a lost worker's job to the queue, or dead-letters it.

    None if its worker has sent a heartbeat after all, or if the study is locked: the next sweep
    looks again.
    """
    if isinstance(lost, ClaimedJob) and not studies.try_lock(session, lost.study_id):
        return None
    if not leases.lock_expired(session, lost.lease):
        return None
    delivers = isinstance(lost, ClaimedJob) and lost.kind is JobKind.DELIVER
    values = {"failed_at": db_now()} if delivers else {}  # another report is the next probe
    if leases.requeue_lost(session, lost.lease, WORKER_LOST, max_losses, **values):
        fields = lost.log_fields | {"losses": lost.lease.losses + 1}
        log_committed(session, log.warning, "job.worker_lost", **fields)
        _requeue_study(session, lost)
        return Recovery.REQUEUED
    times = lost.lease.losses + 1
    dead_letter(session, lost, f"{WORKER_LOST} {times} times; it may need too much memory")
    return Recovery.DEAD


def _lock_study(session: Session, claimed: Claimed) -> None:
    if isinstance(claimed, ClaimedJob):
        studies.lock(session, claimed.study_id)


def _requeue_study(session: Session, claimed: Claimed) -> None:
    if isinstance(claimed, ClaimedJob) and claimed.kind is JobKind.ANALYSE:
        studies.advance(session, claimed.study_id, StudyEvent.RELEASED, revision=claimed.revision)


def _add_explanations(
    session: Session, claimed: ClaimedJob, notes: Iterable[str], caveats: Iterable[str]
) -> None:
    lines = [*((text, True) for text in caveats), *((text, False) for text in notes)]
    session.add_all(
        Explanation(
            study_id=claimed.study_id,
            revision=claimed.revision,
            ordinal=ordinal,
            text=text,
            caveat=caveat,
        )
        for ordinal, (text, caveat) in enumerate(lines)
    )


def _add_findings(
    session: Session, claimed: ClaimedJob, findings: Sequence[Finding], bundle: BundleIdentity
) -> None:
    bundle_id = _bundle_id(session, bundle)
    session.add_all(_finding_row(claimed, finding, bundle_id) for finding in findings)
    severe = any(finding.severity is Severity.SEVERE for finding in findings)
    studies.rank(session, claimed.study_id, severe=severe, trained_on=bundle.trained_on)


def _add_report(
    session: Session, claimed: ClaimedJob, report: ReportRow, destinations: Iterable[str]
) -> None:
    """Adds the report, unless an equal one is stored, and its deliveries.

    Pending deliveries of its predecessor are cancelled.
    """
    stored = session.scalar(
        select(ReportRow).where(ReportRow.sop_instance_uid == report.sop_instance_uid)
    )
    if stored is None:
        session.add(report)
        session.flush()
        stored = report
    jobs.cancel_superseded(session, claimed.study_id, JobKind.DELIVER)
    study = session.get_one(Study, claimed.study_id, populate_existing=True)
    for name in destinations:
        jobs.create(session, JobKind.DELIVER, study, destination=name, report_id=stored.id)


def _bundle_id(session: Session, bundle: BundleIdentity) -> int:
    key = {
        "weights_sha256": bundle.weights_sha256,
        "name": bundle.name,
        "version": bundle.version,
        "preprocessing_version": bundle.preprocessing_version,
    }
    insert_if_new(session, Bundle, tuple(key), **key, trained_on=bundle.trained_on)
    return session.scalars(select(Bundle.id).filter_by(**key)).one()


def _finding_row(claimed: ClaimedJob, finding: Finding, bundle_id: int) -> FindingRow:
    normal_mild, moderate, severe = finding.probabilities or (None, None, None)
    point = vars(finding.point) if finding.point else {}
    return FindingRow(
        study_id=claimed.study_id,
        revision=claimed.revision,
        condition=finding.condition,
        level=finding.level,
        severity=finding.severity,
        normal_mild=normal_mild,
        moderate=moderate,
        severe=severe,
        shows=finding.shows,
        reason=finding.reason,
        bundle_id=bundle_id,
        **point,
    )
