"""The table of what maintenance keeps up to date: one row."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ScalarSelect, select
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Table


class Maintenance(Table):
    """The operating time (``db.operating_time``), and what fills the disk (``db.disk_usage``)."""

    __tablename__ = "maintenance"

    id: Mapped[int] = mapped_column(primary_key=True)  # 1
    operating_s: Mapped[int] = mapped_column(BigInteger)
    read_at: Mapped[datetime]  # what the database's clock showed when it was last counted
    disk_usage: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


def operating_s() -> ScalarSelect[int]:
    """The operating time, seconds, as a value of a statement."""
    return select(Maintenance.operating_s).where(Maintenance.id == 1).scalar_subquery()
