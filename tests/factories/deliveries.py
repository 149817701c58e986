"""Deliveries without a network: claims, and peers that answer as they are told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.orm import Session

from db import deliveries
from db.jobs import ClaimedJob
from lumbar.peers import HeldReport, InstanceReference, Sent

LONGEST_S = 900


def claim_delivery(session: Session, destination: str = "pacs") -> ClaimedJob | None:
    return deliveries.claim(session, destination, lease_s=10, longest_s=LONGEST_S)


def delivered(session: Session, claimed: ClaimedJob, status: str = "0000") -> None:
    """The peer has accepted the report, and is not asked about it."""
    deliveries.record_sent(session, claimed, status)
    deliveries.end(session, claimed, deliveries.DeliveryOutcome.ACCEPTED, status)


@dataclass
class PeerInMemory:
    """A peer that stores what it is sent, unless ``fails`` raises."""

    fails: Callable[[], None] = lambda: None
    lists: bool | None = True  # what it was sent; None: it cannot be asked
    status: str = "0000"
    sent: list[bytes] = field(default_factory=list)
    held: tuple[HeldReport, ...] | None = ()
    tested: int = 0

    def send(self, file: Path, *, not_after: float | None = None) -> Sent:
        self.fails()
        self.sent.append(file.read_bytes())
        return Sent(self.status)

    def holds(self, reference: InstanceReference) -> bool | None:
        return self.lists

    def our_reports(self, study_instance_uid: str) -> tuple[HeldReport, ...] | None:
        return self.held

    def test(self) -> None:
        self.tested += 1
        self.fails()

    def close(self) -> None:
        pass
