"""The DELIVER job: sends a stored report's bytes to one destination and sees that it has them."""

import time

from db import deliveries
from db.context import SiteContext
from db.deliveries import Sending
from db.jobs import ClaimedJob
from db.leases import LeaseLostError
from db.models import DeliveryOutcome, JobKind
from lumbar.errors import Permanent, Transient
from lumbar.log import get_logger
from lumbar.peers import Destination, Peer
from lumbar.peers.outcomes import NotAuthorised, NotSent, ProcessingFailed, Refused, Sent

log = get_logger()

MINUTE_S = 60.0
OUTDATED = "the destination has a report that this one does not replace"


def deliver(site: SiteContext, destination: Destination, peer: Peer, claimed: ClaimedJob) -> None:
    """Sends a report, unless it was sent before, and asks the destination whether it has it.

    A report that is not what was stored, or that does not name what the destination holds, is not
    sent, but made again.

    Raises:
        LeaseLostError: the job is no longer ours, or the report should not be sent any more.
        Transient: the destination or the store does not answer, at least for now.
        Permanent: the destination will never accept it, or it cannot be made again.
    """
    with site.database.reading() as session:
        sending = deliveries.sending(session, claimed)
    status, listed = sending.sent_status, False
    if status is None:
        why = _why_damaged(site, sending) or _why_outdated(
            site, destination, peer, claimed, sending
        )
        if why and not _make_again(site, claimed, why):
            return
        sent = _send(site, peer, claimed, sending)
        status, listed = sent.status, sent.listed
    if listed:
        outcome: DeliveryOutcome | None = DeliveryOutcome.CONFIRMED
    elif not destination.confirm:
        outcome = DeliveryOutcome.ACCEPTED
    else:
        outcome = _outcome(site, peer, claimed, sending)
    if outcome is not None:
        with site.database.transaction() as session:
            deliveries.end(session, claimed, outcome, status)


def _outcome(
    site: SiteContext, peer: Peer, claimed: ClaimedJob, sending: Sending
) -> DeliveryOutcome | None:
    """What the destination says of a report that it has accepted; None: it is asked again later."""
    unanswered: NotSent | None = None
    try:
        if (listed := peer.holds(sending.reference)) is not False:
            return DeliveryOutcome.CONFIRMED if listed else DeliveryOutcome.ACCEPTED
    except NotSent as error:  # it takes reports, and may never answer questions
        unanswered = error
    with site.database.transaction() as session:
        after_s = site.settings.absent_after_minutes * MINUTE_S
        deliveries.not_listed(session, claimed, after_s, unanswered)
    return None


def _make_again(site: SiteContext, claimed: ClaimedJob, why: str) -> bool:
    """Has the report made again; True if that is impossible, and it is sent as it is instead.

    Raises:
        Permanent: nor can it be sent as it is.
    """
    try:
        with site.database.transaction() as session:
            deliveries.make_again(session, claimed, why)
    except Permanent as error:
        if why != OUTDATED:
            raise
        log.warning("delivery.outdated", **claimed.log_fields, why=str(error))
        return True
    return False


def _why_damaged(site: SiteContext, sending: Sending) -> str | None:
    """Why the stored file must not be sent; None if it is what was stored.

    Raises:
        StoreFull: the reports' disk is not mounted, or cannot be read.
    """
    intact = site.store.is_intact(sending.file, sending.sha256)
    return None if intact else "the report's file is missing or damaged"


def _why_outdated(
    site: SiteContext,
    destination: Destination,
    peer: Peer,
    claimed: ClaimedJob,
    sending: Sending,
) -> str | None:
    """Why the report must not be sent, from what the destination has of the study.

    It may have a report that this one does not replace: after our database was restored from a
    copy, after the study was deleted here, or where the answer to an earlier sending was lost. It
    is asked before the first sending only: what it lists after that may be this report under
    another UID.
    """
    if not destination.confirm or sending.sends:
        return None
    try:
        held = peer.our_reports(sending.reference.study_instance_uid)
    except NotSent as error:  # whether it takes reports, sending shows
        log.warning("delivery.not_asked", **claimed.log_fields, why=str(error))
        return None
    if not held:
        return None
    with site.database.transaction() as session:
        return None if deliveries.record_held(session, claimed, held) else OUTDATED


def _send(site: SiteContext, peer: Peer, claimed: ClaimedJob, sending: Sending) -> Sent:
    """Sends the report; returns what the destination says.

    Raises:
        LeaseLostError: it should not be sent any more.
        Transient: as ``deliver``.
        Permanent: as ``deliver``.
    """
    lease_s = site.lease_s(JobKind.DELIVER)
    not_after = time.monotonic() + lease_s
    with site.database.transaction() as session:
        due = deliveries.begin_sending(session, claimed, lease_s=lease_s)
    if not due:
        raise LeaseLostError
    try:
        sent = peer.send(site.store.path(sending.file), not_after=not_after)
    except (Permanent, Transient) as error:
        if isinstance(error, NotAuthorised):
            log.error(
                "delivery.not_authorised", **claimed.log_fields, destination=claimed.destination
            )
        if isinstance(error, ProcessingFailed | Refused):  # it answers
            with site.database.transaction() as session:
                deliveries.answered(session, claimed.destination)
        raise
    if sent.warning:
        log.warning(
            "delivery.warning",
            **claimed.log_fields,
            destination=claimed.destination,
            status=sent.status,
        )
    with site.database.transaction() as session:
        deliveries.record_sent(session, claimed, sent.status)
    return sent
