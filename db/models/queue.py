"""Tables of the work that is done under leases, jobs and previews; and of confirmed deliveries."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.models.base import LeasedRow, Table
from db.models.states import DeliveryOutcome, JobKind, JobState
from db.models.users import User
from db.types import db_now


class Job(LeasedRow):
    """An analysis of a study's revision, or the delivery of a report to one destination."""

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("study_id", "kind", "revision", "destination"),
        Index("ix_job_due", "state", "priority", "run_after"),
        Index("ix_job_destination", "destination", "state"),
    )

    kind: Mapped[JobKind]
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    revision: Mapped[int]
    destination: Mapped[str] = mapped_column(String(64), default="")  # of DELIVER
    report_id: Mapped[int | None] = mapped_column(ForeignKey("report.id"))
    priority: Mapped[int] = mapped_column(default=0)  # higher goes first
    sends: Mapped[int] = mapped_column(default=0)  # how often the destination reported success
    sent_status: Mapped[str | None] = mapped_column(String(16))  # of a sending to be confirmed
    sent_at: Mapped[datetime | None]
    unlisted: Mapped[bool] = mapped_column(default=False)  # it has said since that it has it not
    failed_at: Mapped[datetime | None]  # the last time that its destination failed


class Delivery(Table):
    """What is known of a report that a destination was sent."""

    __tablename__ = "delivery"
    __table_args__ = (UniqueConstraint("report_id", "destination"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    report_id: Mapped[int] = mapped_column(ForeignKey("report.id"))
    destination: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))  # the peer's: 0000, B007, 200
    outcome: Mapped[DeliveryOutcome]
    # NULL: unknown, because it was found there
    delivered_at: Mapped[datetime | None] = mapped_column(default=db_now(), index=True)


class HeldDestination(Table):
    """A destination that fails: one job at a time probes it, and the others wait."""

    __tablename__ = "held_destination"

    destination: Mapped[str] = mapped_column(String(64), primary_key=True)
    held_since: Mapped[datetime] = mapped_column(default=db_now())
    probe_after: Mapped[datetime]
    failures: Mapped[int]  # in succession
    last_error: Mapped[str]


class Preview(LeasedRow):
    """Uploaded files that are read once for their uploader.

    Files and result are removed; the audit trail remains.
    """

    __tablename__ = "preview"
    # the audit trail names them by their ids, which must not be reused
    __table_args__ = (Index("ix_preview_state_id", "state", "id"), {"sqlite_autoincrement": True})

    name: Mapped[str] = mapped_column(String(32), unique=True)  # of its folder and URL; unguessable
    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id"), index=True)
    keep: Mapped[bool] = mapped_column(Boolean)  # ingest the images as if a scanner had sent them
    uploaded_at: Mapped[datetime | None]  # when the upload was complete; not due before
    files: Mapped[int] = mapped_column(default=0)
    size: Mapped[int] = mapped_column(BigInteger, default=0)  # bytes
    images: Mapped[int | None]  # slices in the upload
    reason: Mapped[str | None]  # why it is not analysable
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # PreviewResult
    # operating time, seconds, at which it is deleted; NULL while it must not be, or is not known
    expires_s: Mapped[int | None] = mapped_column(BigInteger)

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)

    @property
    def failure(self) -> str | None:
        """Why it ended without a result: not analysable, or the last error of a dead letter."""
        return self.reason or (self.last_error if self.state is JobState.DEAD else None)
