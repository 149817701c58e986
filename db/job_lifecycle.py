"""What a worker hands over: one transaction holds the findings, the report and a delivery for every destination."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import jobs, studies
from db.database import insert_if_new
from db.jobs import Claimed
from db.models import Bundle, Delivery, Explanation, FindingRow, JobKind, ReportRow, Study
from db.studies import StudyEvent
from lumbar.spine.anatomy import Severity
from lumbar.spine.findings import Finding
from lumbar.spine.provenance import BundleIdentity

CANDIDATES = 20  # due jobs that a worker looks at; where others hold the studies of all, the next ring finds more


class LeaseLostError(Exception):
    """Another worker has the job, or a later revision overtook it: roll back and return quietly."""


def claim(session: Session, kind: JobKind, *, lease_s: float) -> Claimed | None:
    """Takes the most urgent due job of a kind, an ANALYSE job with its study. None when there is nothing to do.

    A study that somebody else has locked, a receiver or another worker, is passed over and not waited for.
    """
    for job_id, study_id in jobs.due(session, kind, CANDIDATES):
        if not studies.try_lock(session, study_id):
            continue
        claimed = jobs.claim(session, job_id, lease_s=lease_s)
        if claimed is None:
            continue
        if kind is not JobKind.ANALYSE:
            return claimed
        if studies.advance(session, study_id, StudyEvent.CLAIMED, revision=claimed.revision):
            return claimed
        jobs.cancel(session, claimed)
    return None


def end_analysis(
    session: Session,
    claimed: Claimed,
    event: StudyEvent,
    *,
    reason: str | None = None,
    found: Iterable[Finding] = (),
    told: Iterable[str] = (),
    caveats: Iterable[str] = (),
    bundle: BundleIdentity | None = None,
    report: ReportRow | None = None,
    destinations: Iterable[str] = (),
) -> None:
    """Writes a study's outcome, all or nothing. ``told`` and ``caveats`` say in words how it was read.

    Raises:
        LeaseLostError: the job is no longer ours; the transaction must be rolled back.
    """
    studies.lock(session, claimed.study_id)
    if not jobs.finish(session, claimed):
        raise LeaseLostError
    if not studies.advance(
        session, claimed.study_id, event, revision=claimed.revision, reason=reason
    ):
        raise LeaseLostError
    studies.supersede_findings(session, claimed.study_id)
    lines = [*((text, True) for text in caveats), *((text, False) for text in told)]
    session.add_all(
        Explanation(
            study_id=claimed.study_id,
            revision=claimed.revision,
            ordinal=n,
            text=text,
            caveat=caveat,
        )
        for n, (text, caveat) in enumerate(lines)
    )
    if bundle is not None:
        bundle_id, found = _bundle_id(session, bundle), tuple(found)
        session.add_all(_row(claimed, finding, bundle_id) for finding in found)
        severe = any(finding.severity is Severity.SEVERE for finding in found)
        studies.rank(session, claimed.study_id, severe=severe, trained_on=bundle.trained_on)
    if report is not None:
        known = stored_report(session, report.sop_instance_uid)
        if known is None:
            session.add(report)
            session.flush()
            known = report
        jobs.cancel_overtaken(session, claimed.study_id, JobKind.DELIVER)
        study = session.get_one(Study, claimed.study_id, populate_existing=True)
        for name in destinations:
            jobs.create(session, JobKind.DELIVER, study, destination=name, report_id=known.id)


def release(session: Session, claimed: Claimed, error: str, backoff: jobs.Backoff) -> None:
    """Gives a failed job back for a later try, or buries it; its study follows. Nothing, where the lease is lost."""
    studies.lock(session, claimed.study_id)
    if not jobs.is_held(session, claimed):
        return
    if jobs.retry(session, claimed, error, backoff):
        _requeue_study(session, claimed)
    else:
        bury(session, claimed, error)


def bury(session: Session, claimed: Claimed, error: str) -> None:
    """Gives a job up; a study whose analysis is given up has failed, for this reason."""
    studies.lock(session, claimed.study_id)
    if jobs.bury(session, claimed, error) and claimed.kind is JobKind.ANALYSE:
        studies.advance(
            session, claimed.study_id, StudyEvent.EXHAUSTED, revision=claimed.revision, reason=error
        )
        studies.supersede_findings(session, claimed.study_id)


def recover(session: Session, lost: Claimed, *, max_losses: int) -> bool:
    """Gives a lost worker's job to another, or buries it.

    False when the worker was heard of after all, or when somebody else is at the study: the next sweep looks again.
    """
    if not studies.try_lock(session, lost.study_id) or not jobs.expired(session, lost.job_id):
        return False
    if jobs.replace_worker(session, lost, max_losses):
        _requeue_study(session, lost)
    else:
        bury(session, lost, "the worker was lost")
    return True


def _requeue_study(session: Session, claimed: Claimed) -> None:
    if claimed.kind is JobKind.ANALYSE:
        studies.advance(session, claimed.study_id, StudyEvent.RELEASED, revision=claimed.revision)


def stored_report(session: Session, sop_instance_uid: str) -> ReportRow | None:
    """A report built before: what is sent again is these bytes, never new ones under the same UID."""
    return session.scalar(select(ReportRow).where(ReportRow.sop_instance_uid == sop_instance_uid))


def predecessor(session: Session, study_id: int, sop_instance_uid: str) -> ReportRow | None:
    """The newest other report of a study, which a new one replaces."""
    return session.scalar(
        select(ReportRow)
        .where(ReportRow.study_id == study_id, ReportRow.sop_instance_uid != sop_instance_uid)
        .order_by(ReportRow.id.desc())
        .limit(1)
    )


def report_file(session: Session, claimed: Claimed) -> str:
    """Where the bytes of a DELIVER job's report lie in the store."""
    return session.scalars(select(ReportRow.file).where(ReportRow.id == claimed.report_id)).one()


def delivered(session: Session, claimed: Claimed, status: str) -> None:
    """Notes that the destination has the report.

    Raises:
        LeaseLostError: the job is no longer ours.
    """
    if not jobs.finish(session, claimed):
        raise LeaseLostError
    known = session.scalar(
        select(Delivery).where(
            Delivery.report_id == claimed.report_id, Delivery.destination == claimed.destination
        )
    )
    if known is None:
        session.add(
            Delivery(report_id=claimed.report_id, destination=claimed.destination, status=status)
        )


def _bundle_id(session: Session, bundle: BundleIdentity) -> int:
    key = {
        "weights_sha256": bundle.weights_sha256,
        "name": bundle.name,
        "version": bundle.version,
        "preprocessing_version": bundle.preprocessing_version,
    }
    insert_if_new(session, Bundle, tuple(key), **key, trained_on=bundle.trained_on)
    return session.scalars(select(Bundle.id).filter_by(**key)).one()


def _row(claimed: Claimed, found: Finding, bundle_id: int) -> FindingRow:
    normal_mild, moderate, severe = found.probabilities or (None, None, None)
    place = vars(found.point) if found.point else {}
    return FindingRow(
        study_id=claimed.study_id,
        revision=claimed.revision,
        condition=found.condition,
        level=found.level,
        severity=found.severity,
        normal_mild=normal_mild,
        moderate=moderate,
        severe=severe,
        shows=found.shows,
        reason=found.reason,
        bundle_id=bundle_id,
        **place,
    )
