"""Tables of an analysis's results, that is findings, their bundles and reports; and of reviews."""

from datetime import datetime

from sqlalchemy import (
    JSON,
    Boolean,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.models.base import Table
from db.models.studies import Study
from db.types import db_now
from lumbar.spine.anatomy import Condition, Level, Severity
from lumbar.spine.provenance import TrainedOn


def _index_in_force(name: str, *columns: str) -> Index:
    """An index of the findings in force, by these columns and then by time."""
    return Index(
        name,
        *columns,
        "found_at",
        "id",
        sqlite_where=text("superseded IS 0"),
        postgresql_where=text("superseded IS false"),
    )


class Bundle(Table):
    """The weights that made a finding."""

    __tablename__ = "bundle"
    __table_args__ = (
        UniqueConstraint("weights_sha256", "name", "version", "preprocessing_version"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    weights_sha256: Mapped[str] = mapped_column(String(64))
    trained_on: Mapped[TrainedOn]
    preprocessing_version: Mapped[str] = mapped_column(String(64))
    first_used_at: Mapped[datetime] = mapped_column(default=db_now())


class FindingRow(Table):
    """One of a study's 25 findings; those of earlier revisions remain, marked as superseded."""

    __tablename__ = "finding"
    __table_args__ = (
        UniqueConstraint("study_id", "revision", "condition", "level"),
        _index_in_force("ix_finding_question", "severity", "condition", "level"),
        _index_in_force("ix_finding_severity_found_at", "severity"),
        _index_in_force("ix_finding_found_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    revision: Mapped[int]
    superseded: Mapped[bool] = mapped_column(Boolean, default=False)
    found_at: Mapped[datetime] = mapped_column(default=db_now())
    condition: Mapped[Condition]
    level: Mapped[Level]
    severity: Mapped[Severity | None]  # None: not assessed, for the reason given
    normal_mild: Mapped[float | None]  # probabilities, 0–1
    moderate: Mapped[float | None]
    severe: Mapped[float | None]
    shows: Mapped[float | None]  # VGG16's probability that the crop shows this condition
    reason: Mapped[str | None]
    series_instance_uid: Mapped[str | None] = mapped_column(String(64))
    sop_class_uid: Mapped[str | None] = mapped_column(String(64))
    sop_instance_uid: Mapped[str | None] = mapped_column(String(64))
    frame: Mapped[int | None]
    column: Mapped[float | None]  # pixels, 0-based, integers at pixel centres
    row: Mapped[float | None]
    x: Mapped[float | None]  # mm, LPS
    y: Mapped[float | None]
    z: Mapped[float | None]
    bundle_id: Mapped[int] = mapped_column(ForeignKey("bundle.id"))

    study: Mapped[Study] = relationship()
    bundle: Mapped[Bundle] = relationship(lazy="joined")


class ReportRow(Table):
    """A report: its UIDs, and the file whose bytes every delivery and every retry sends.

    Without a file, one that a destination holds and that the database does not know otherwise.
    """

    __tablename__ = "report"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    revision: Mapped[int]
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64))
    number: Mapped[int] = mapped_column(default=1)  # Instance Number: each later report's is higher
    # What it says: without its UIDs, number, time and predecessors
    content_sha256: Mapped[str | None] = mapped_column(String(64))
    inputs_sha256: Mapped[str | None] = mapped_column(String(64))  # ``Provenance.inputs_sha256``
    predecessor_ids: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True))
    sha256: Mapped[str | None] = mapped_column(String(64))  # of the file
    file: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())  # as the report states it


class Review(Table):
    """A radiologist's agreement with a finding, or correction of it; append-only."""

    __tablename__ = "review"

    id: Mapped[int] = mapped_column(primary_key=True)
    finding_id: Mapped[int] = mapped_column(ForeignKey("finding.id"), index=True)
    reviewer: Mapped[str] = mapped_column(String(64))
    severity: Mapped[Severity]  # according to the reviewer
    comment: Mapped[str]
    reviewed_at: Mapped[datetime] = mapped_column(default=db_now())
