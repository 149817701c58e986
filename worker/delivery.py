"""The DELIVER job: sends a stored report's bytes to one destination until the peer confirms."""

from db import job_lifecycle
from db.context import SiteContext
from db.jobs import ClaimedJob
from lumbar.log import get_logger
from lumbar.peers import Peer
from lumbar.peers.outcomes import NotAuthorised, ProcessingFailed, Refused

log = get_logger()

PROCESSING_ATTEMPTS = 5  # 0110 is rarely temporary


def deliver(site: SiteContext, claimed: ClaimedJob) -> None:
    """Sends a report's stored bytes.

    Raises:
        Refused: the peer failed to process it ``PROCESSING_ATTEMPTS`` times.
        NotAuthorised: the peer does not accept us as a sender.
        ProcessingFailed: the peer failed to process it; it is attempted again.
        Transient: the peer is unreachable or busy, or the store is not mounted.
        Permanent: the peer will never accept it, or the destination is no longer configured.
    """
    site.store.require_mounted()
    destination = site.settings.destination(claimed.destination)
    with site.database.reading() as session:
        file = job_lifecycle.report_file(session, claimed)
    try:
        with Peer(destination) as peer:
            sent = peer.send(site.store.path(file))
    except ProcessingFailed as error:
        if claimed.lease.attempts >= PROCESSING_ATTEMPTS:
            raise Refused(f"{error} ({claimed.lease.attempts} times)") from error
        raise
    except NotAuthorised:
        log.error("delivery.not_authorised", **claimed.log_fields, destination=claimed.destination)
        raise
    if sent.warning:
        log.warning(
            "delivery.warning",
            **claimed.log_fields,
            destination=claimed.destination,
            status=sent.status,
        )
    with site.database.transaction() as session:
        job_lifecycle.end_delivery(session, claimed, sent.status)
