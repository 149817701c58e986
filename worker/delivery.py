"""The DELIVER job: a stored report's bytes to one destination, done only when the peer says it has them."""

from db import results
from db.jobs import Claimed
from db.site import Site
from lumbar import peers


def deliver(site: Site, claimed: Claimed) -> None:
    """Sends a report's stored bytes.

    Raises:
        Transient: the peer is away or busy. Permanent: it will never take this, or the destination is no longer set.
    """
    destination = site.settings.destination(claimed.destination)
    with site.database.reading() as session:
        file = results.report_file(session, claimed)
    sent = peers.send(destination, site.store.path(file).read_bytes())
    with site.database.transaction() as session:
        results.delivered(session, claimed, sent.status)
