"""The DELIVER job: a stored report's bytes to one destination, done only when the peer says it has them."""

import structlog

from db import job_lifecycle
from db.context import SiteContext
from db.jobs import Claimed
from lumbar import peers
from lumbar.peers.outcomes import NotAuthorised, ProcessingFailed, Refused

log = structlog.get_logger()

PROCESSING_TRIES = 5  # 0110 rarely heals by itself


def deliver(site: SiteContext, claimed: Claimed) -> None:
    """Sends a report's stored bytes.

    Raises:
        Transient: the peer is away or busy. Permanent: it will never take this, or the destination is no longer set.
    """
    destination = site.settings.destination(claimed.destination)
    with site.database.reading() as session:
        file = job_lifecycle.report_file(session, claimed)
    try:
        sent = peers.send(destination, site.store.path(file).read_bytes())
    except ProcessingFailed as error:
        if claimed.attempts >= PROCESSING_TRIES:
            raise Refused(f"{error} ({claimed.attempts} times)") from error
        raise
    except NotAuthorised:
        log.error("delivery.not_authorised", job=claimed.job_id, destination=claimed.destination)
        raise
    if sent.warning:
        log.warning(
            "delivery.warning",
            job=claimed.job_id,
            destination=claimed.destination,
            status=sent.status,
        )
    with site.database.transaction() as session:
        job_lifecycle.delivered(session, claimed, sent.status)
