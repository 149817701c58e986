"""DELIVER jobs: claimed per destination, sent, confirmed, held, and made again where needed.

The writes of a lane (``worker.lanes``). Each is conditional on the job's lease.
"""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import audit, held_destinations, job_lifecycle, jobs, leases, studies
from db.database import insert_if_new, log_committed
from db.jobs import ClaimedJob
from db.leases import Backoff, LeaseLostError
from db.models import (
    ACTIVE_STUDY_STATES,
    Delivery,
    DeliveryOutcome,
    Job,
    JobState,
    ReportRow,
    Study,
)
from db.reports import History
from db.types import db_now
from lumbar.elements import is_uid
from lumbar.errors import Permanent, Transient
from lumbar.log import get_logger
from lumbar.peers import HeldReport, InstanceReference
from lumbar.peers.outcomes import NotConnected, NotSent

log = get_logger()

MAX_FOUND = 10  # reports of one study that only a destination remembers
LARGEST_NUMBER = 2**31 - 1000  # Instance Number, an IS (PS3.5 6.2)
MAX_SENDS = 3  # of a report that the destination accepts but does not list
SHORTEST_S, LONGEST_S = 2.0, 60.0  # between two questions whether the destination lists it
LATER_S = 60.0  # until a job is looked at again that a later revision will replace


@dataclass(frozen=True)
class Sending:
    """What a DELIVER job sends, and how far it has come."""

    reference: InstanceReference
    file: str
    sha256: str
    sent_status: str | None  # of a sending whose report the destination may not list yet
    sends: int  # how often the destination has reported success


def is_due(session: Session, destination: str) -> bool:
    """Whether a job waits for a destination, held or not."""
    return bool(jobs.due_deliveries(session, destination, 1))


def claim(
    session: Session, destination: str, *, lease_s: float, longest_s: float
) -> ClaimedJob | None:
    """Claims the most urgent due job of a destination; None if there is none.

    While the destination is held, only once its next probe is due, and one job at a time.
    ``longest_s``: see ``held_destinations.may_be_probed``.
    """
    held = held_destinations.hold_of(session, destination) is not None
    if held and (
        not held_destinations.may_be_probed(session, destination, longest_s)
        or jobs.is_any(session, destination, JobState.RUNNING)
    ):
        return None
    for job_id, study_id in jobs.due_deliveries(
        session, destination, job_lifecycle.CANDIDATES, probe=held
    ):
        if not studies.try_lock(session, study_id):
            continue
        if claimed := jobs.claim(session, job_id, lease_s=lease_s):
            return claimed
    return None


def sending(session: Session, claimed: ClaimedJob) -> Sending:
    """What a claimed job sends.

    Raises:
        LeaseLostError: its study was deleted meanwhile.
    """
    job = session.get(Job, claimed.lease.row_id, populate_existing=True)
    study = session.get(Study, claimed.study_id)
    if job is None or study is None:
        raise LeaseLostError
    report = session.get_one(ReportRow, claimed.report_id)
    return Sending(
        InstanceReference(
            study.study_instance_uid, report.series_instance_uid, report.sop_instance_uid
        ),
        report.file or "",
        report.sha256 or "",
        job.sent_status,
        job.sends,
    )


def begin_sending(session: Session, claimed: ClaimedJob, *, lease_s: float) -> bool:
    """Whether, just before a report is sent, it still should be; extends the lease if so.

    A report that a later one has replaced, or that is no longer true, is cancelled.
    """
    studies.lock(session, claimed.study_id)
    if not leases.extend(session, claimed.lease, lease_s=lease_s):
        return False
    if jobs.is_replaced(session, claimed) or studies.report_superseded(
        session, claimed.study_id, claimed.revision
    ):
        leases.cancel(session, claimed.lease)
        return False
    return True


def record_sent(session: Session, claimed: ClaimedJob, status: str) -> None:
    """Records that the destination has reported success; it answers, so it is no longer held.

    Raises:
        LeaseLostError: the job is no longer ours.
    """
    sent = {"sent_status": status, "sent_at": db_now(), "unlisted": False}
    values = {**sent, "sends": Job.sends + 1}
    if not leases.write(session, claimed.lease, **values):
        raise LeaseLostError
    _record(session, claimed, DeliveryOutcome.ACCEPTED, status)
    answered(session, claimed.destination)


def end(session: Session, claimed: ClaimedJob, outcome: DeliveryOutcome, status: str) -> None:
    """Ends a delivery.

    Raises:
        LeaseLostError: the job is no longer ours.
    """
    leases.finish(session, claimed.lease, sent_status=None)
    _record(session, claimed, outcome, status)


def not_listed(
    session: Session, claimed: ClaimedJob, absent_after_s: float, unanswered: NotSent | None
) -> None:
    """The destination reported success, and does not list the report, or does not say so.

    It is asked again for ``absent_after_s``. Then, if it does not list it, it is sent again; after
    ``MAX_SENDS`` sendings the job is a dead letter, and the report absent. If it has taken every
    question and answered none (``unanswered``), success is all that is known. As long as nothing
    connects there, or it has said before that it does not list the report, it is asked on.

    Raises:
        LeaseLostError: the job is no longer ours.
    """
    studies.lock(session, claimed.study_id)
    job = session.get_one(Job, claimed.lease.row_id, populate_existing=True)
    now, status = session.scalars(select(db_now())).one(), job.sent_status or ""
    age_s = (now - job.sent_at).total_seconds() if job.sent_at else absent_after_s
    why = (
        f"{claimed.destination} reported success (status {status}) and "
        f"{f'does not say whether it has it: {unanswered}' if unanswered else 'does not list it'}"
    )
    unlisted = job.unlisted or unanswered is None
    if 0 <= age_s < absent_after_s:
        wait_s = min(max(SHORTEST_S, age_s), LONGEST_S, absent_after_s - age_s)
        leases.postpone(session, claimed.lease, None, wait_s, last_error=why, unlisted=unlisted)
    elif unanswered and (unlisted or isinstance(unanswered, NotConnected)):
        leases.postpone(session, claimed.lease, None, LONGEST_S, last_error=why)
    elif unanswered:
        end(session, claimed, DeliveryOutcome.ACCEPTED, status)
    elif job.sends < MAX_SENDS:
        log_committed(
            session,
            log.warning,
            "delivery.absent",
            **claimed.log_fields,
            destination=claimed.destination,
        )
        leases.postpone(session, claimed.lease, None, 0, last_error=why, sent_status=None)
    elif job_lifecycle.dead_letter(session, claimed, f"{why}, sent {job.sends} times"):
        _record(session, claimed, DeliveryOutcome.ABSENT, status)


def failed(session: Session, claimed: ClaimedJob, error: Transient, backoff: Backoff) -> bool:
    """Returns a delivery that failed for now to the queue; whether it was dead-lettered instead.

    If the destination failed and not only this report, it is held, and the job keeps its place.
    What fails again although the destination has taken another report in between, fails alone.
    """
    studies.lock(session, claimed.study_id)
    if not leases.is_held(session, claimed.lease):
        return False
    holds = isinstance(error, NotSent) and error.holds_destination
    alone = holds and _has_taken_another(session, claimed)
    if holds:
        leases.write(session, claimed.lease, failed_at=db_now())
    if not holds or alone:
        return job_lifecycle.release(session, claimed, str(error), backoff)
    wait_s = held_destinations.hold(session, claimed.destination, str(error), backoff)
    log_committed(
        session, log.warning, "delivery.held", **claimed.log_fields, wait_s=round(wait_s, 1)
    )
    if leases.is_given_up(session, claimed.lease, backoff):
        return job_lifecycle.dead_letter(session, claimed, str(error))
    if jobs.is_replaced(session, claimed):
        leases.cancel(session, claimed.lease)
    else:
        leases.postpone(session, claimed.lease, str(error), None)
    return False


def interrupted(session: Session, claimed: ClaimedJob, error: Transient, backoff: Backoff) -> bool:
    """As ``failed``, for a delivery that we ended: it has not failed, and is due at once."""
    leases.postpone(session, claimed.lease, None, 0)
    return False


def _has_taken_another(session: Session, claimed: ClaimedJob) -> bool:
    """Whether the destination has taken another report since this one met with its failure.

    One that was taken in the future was taken while the clock was ahead, and does not count.
    """
    since = select(Job.failed_at).where(Job.id == claimed.lease.row_id).scalar_subquery()
    taken = select(Delivery.id).where(
        Delivery.destination == claimed.destination,
        Delivery.report_id != claimed.report_id,
        Delivery.delivered_at > since,
        Delivery.delivered_at <= db_now(),
    )
    return session.scalar(taken.limit(1)) is not None


def answered(session: Session, destination: str) -> None:
    """The destination takes reports: what waits for it is due."""
    if held_destinations.release(session, destination):
        jobs.make_due(session, destination)


def record_held(session: Session, claimed: ClaimedJob, held: tuple[HeldReport, ...]) -> bool:
    """Records which reports a destination holds; whether this one replaces them all.

    Reports that only the destination remembers are recorded, too: at most ``MAX_FOUND`` of a study.
    """
    listed = {report.sop_instance_uid: report for report in held if _is_plausible(report)}
    known = session.execute(
        select(ReportRow.sop_instance_uid, ReportRow.id, ReportRow.study_id).where(
            ReportRow.sop_instance_uid.in_(listed)
        )
    ).all()
    there = {row.id for row in known if row.study_id == claimed.study_id}
    known_uids = {row.sop_instance_uid for row in known}
    unknown = [listed[uid] for uid in listed.keys() - known_uids]
    there |= {row.id for row in _add_found(session, claimed, unknown)}
    for report_id in there:
        key = {"report_id": report_id, "destination": claimed.destination}
        values = {"status": "listed", "outcome": DeliveryOutcome.CONFIRMED}
        insert_if_new(session, Delivery, tuple(key), **key, **values, delivered_at=None)
    history = History.of(session, claimed.study_id)
    report_id = claimed.report_id or 0
    return there <= {report_id, *history.replaced_by(report_id)}


def _add_found(session: Session, claimed: ClaimedJob, unknown: list[HeldReport]) -> list[ReportRow]:
    if not unknown:
        return []
    log_committed(
        session, log.warning, "delivery.unknown_reports", **claimed.log_fields, reports=len(unknown)
    )
    found = (ReportRow.study_id == claimed.study_id, ReportRow.file.is_(None))
    room = max(0, MAX_FOUND - (session.scalar(select(func.count()).where(*found)) or 0))
    newest_first = sorted(unknown, key=lambda report: report.instance_number or 0, reverse=True)
    rows = [
        ReportRow(
            study_id=claimed.study_id,
            revision=0,
            sop_class_uid=report.sop_class_uid,
            sop_instance_uid=report.sop_instance_uid,
            series_instance_uid=report.series_instance_uid,
            number=report.instance_number or 1,
        )
        for report in newest_first[:room]
    ]
    session.add_all(rows)
    session.flush()
    return rows


def _is_plausible(report: HeldReport) -> bool:
    uids = (report.sop_class_uid, report.sop_instance_uid, report.series_instance_uid)
    return all(map(is_uid, uids)) and 0 <= (report.instance_number or 0) <= LARGEST_NUMBER


def make_again(session: Session, claimed: ClaimedJob, why: str) -> None:
    """Has the report made again by another analysis of its study.

    Until that has ended this delivery waits: the new report replaces it, or it is all there is.

    Raises:
        LeaseLostError: the job is no longer ours.
        Permanent: the study's images were removed, or its last analysis ended without a report.
    """
    studies.lock(session, claimed.study_id)
    if not leases.is_held(session, claimed.lease):
        raise LeaseLostError
    study = session.get_one(Study, claimed.study_id, populate_existing=True)
    if jobs.is_replaced(session, claimed):
        leases.cancel(session, claimed.lease)
    elif study.state in ACTIVE_STUDY_STATES:  # its report will replace this one
        leases.postpone(session, claimed.lease, None, LATER_S, last_error=why)
    elif study.revision != claimed.revision:
        raise Permanent(f"{why}, and the study was {study.state.label} since")
    else:
        try:
            studies.requeue(session, claimed.study_id, keep_read=True)
        except Permanent as error:
            raise Permanent(f"{why}, and cannot be made again: {error}") from error
        leases.postpone(session, claimed.lease, None, LATER_S, last_error=why)
        audit.note(session, "report.made_again", audit.on_this_host("worker"), study_id=study.id)
        log_committed(session, log.warning, "report.made_again", **claimed.log_fields, why=why)


def _record(session: Session, claimed: ClaimedJob, outcome: DeliveryOutcome, status: str) -> None:
    key = {"report_id": claimed.report_id, "destination": claimed.destination}
    row = session.scalar(select(Delivery).filter_by(**key))
    if row is None:
        session.add(Delivery(**key, status=status, outcome=outcome))
        return
    row.status, row.outcome = status, outcome
    if outcome is DeliveryOutcome.ACCEPTED:
        row.delivered_at = db_now()
