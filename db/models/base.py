"""The base class of all tables, and that of tables whose rows are worked on under a lease."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Enum,
    MetaData,
    String,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.models.states import (
    DeliveryOutcome,
    JobKind,
    JobState,
    StudyState,
    UserRole,
)
from db.types import UtcDateTime, db_now
from lumbar.spine.anatomy import Condition, Level, Role, Severity
from lumbar.spine.provenance import TrainedOn


def _named(kind: type[StrEnum]) -> Enum:
    """Stored as its value in a text column, so that a new member needs no migration."""
    return Enum(
        kind,
        native_enum=False,
        length=64,
        values_callable=lambda members: [m.value for m in members],
    )


class Table(DeclarativeBase):
    """Base of all tables. Constraints have names that migrations can use on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own name and form
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        StudyState: _named(StudyState),
        JobKind: _named(JobKind),
        JobState: _named(JobState),
        DeliveryOutcome: _named(DeliveryOutcome),
        Role: _named(Role),
        Condition: _named(Condition),
        Level: _named(Level),
        Severity: _named(Severity),
        TrainedOn: _named(TrainedOn),
        UserRole: _named(UserRole),
    }


class LeasedRow(Table):
    """The columns of a row that one worker at a time works on, under a lease (``db.leases``)."""

    __abstract__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[JobState] = mapped_column(default=JobState.PENDING)
    run_after: Mapped[datetime] = mapped_column(default=db_now())
    attempts: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)  # attempts whose worker was lost
    faults: Mapped[int] = mapped_column(default=0)  # attempts that ended by a fault of ours
    first_failed_at: Mapped[datetime | None]  # since when it has been failing
    first_failed_s: Mapped[int | None] = mapped_column(BigInteger)  # the same in operating time
    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_expires_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    ended_at: Mapped[datetime | None]
