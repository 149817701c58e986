"""Tables of received data: patients, studies, series and instances."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.models.base import Table
from db.models.maintenance import operating_s
from db.models.states import ReadingState, StudyState
from db.types import db_now
from lumbar.spine.anatomy import Role
from lumbar.spine.provenance import TrainedOn


def _unread(name: str, flag: str | None = None, *, expired: bool = False) -> Index:
    """An index of unread studies (with a flag) that wait or have expired, in order of waiting."""
    condition = f"read_at IS NULL AND expired_at IS {'NOT NULL' if expired else 'NULL'}"
    return Index(
        name,
        "last_received_at",
        "id",
        sqlite_where=text(condition + (f" AND {flag} IS 1" if flag else "")),
        postgresql_where=text(condition + (f" AND {flag} IS true" if flag else "")),
    )


class Patient(Table):
    """A patient, identified by issuer and number: two sites may use one number for two people."""

    __tablename__ = "patient"
    __table_args__ = (UniqueConstraint("issuer", "patient_identifier"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    # IssuerOfPatientID, else the calling AE title, else the study's UID
    issuer: Mapped[str] = mapped_column(String(64))
    patient_identifier: Mapped[str] = mapped_column(String(64))
    name: Mapped[str]
    birth_date: Mapped[str] = mapped_column(String(8))  # YYYYMMDD or empty
    sex: Mapped[str] = mapped_column(String(16))


class Study(Table):
    """A study, identified by its UID.

    ``revision`` grows when an instance arrives late, or an operator requeues the study.
    """

    __tablename__ = "study"
    __table_args__ = (
        Index("ix_study_state_last_received_at", "state", "last_received_at"),
        Index("ix_study_images_removed_at_kept_from_s", "images_removed_at", "kept_from_s"),
        Index("ix_study_last_received_at_id", "last_received_at", "id"),
        Index("ix_study_scanner_last_received_at", "scanner", "last_received_at"),
        Index("ix_study_scanner_ended_at", "scanner", "ended_at"),
        Index(
            "ix_study_removal_pending",
            "id",
            sqlite_where=text("removal_pending IS 1"),
            postgresql_where=text("removal_pending IS true"),
        ),
        _unread("ix_study_unread"),
        _unread("ix_study_unread_stat", "stat"),
        _unread("ix_study_unread_severe", "severe"),
        _unread("ix_study_expired", expired=True),
        _unread("ix_study_expired_severe", "severe", expired=True),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[int] = mapped_column(ForeignKey("patient.id"), index=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    accession_number: Mapped[str] = mapped_column(String(64), index=True)
    study_date: Mapped[str] = mapped_column(String(8))  # YYYYMMDD or empty
    study_time: Mapped[str] = mapped_column(String(16), default="")  # HHMMSS.FFFFFF or empty
    description: Mapped[str]
    scanner: Mapped[str] = mapped_column(String(64), default="")  # maker, model, station
    stat: Mapped[bool] = mapped_column(Boolean, default=False)  # ordered as urgent
    state: Mapped[StudyState] = mapped_column(default=StudyState.RECEIVING)
    reason: Mapped[str | None]  # of NOT_ANALYSABLE and FAILED
    revision: Mapped[int] = mapped_column(default=1)
    corrected_revision: Mapped[int] = mapped_column(default=1)  # the first since it was corrected
    first_received_at: Mapped[datetime] = mapped_column(default=db_now())
    last_received_at: Mapped[datetime] = mapped_column(default=db_now())
    ended_at: Mapped[datetime | None]  # when this revision's analysis ended
    images_removed_at: Mapped[datetime | None]  # when retention removed its images
    # Of instances that are marked as removed, files may be left
    removal_pending: Mapped[bool] = mapped_column(Boolean, default=False)
    # The worklist's order: by its findings, an earlier revision's until it is analysed again
    severe: Mapped[bool] = mapped_column(Boolean, default=False)
    trained_on: Mapped[TrainedOn | None]
    read_at: Mapped[datetime | None]  # when it was marked as read; a late image clears it
    expired_at: Mapped[datetime | None]  # when it left the worklist unread, as ``read_at``
    # Operating time (``db.operating_time``), seconds. Of the last result, or of when the study was
    # put back on the worklist: it expires so many days later; later where something was still to
    # come (``db.expiry``). NULL: its revision has not ended
    result_s: Mapped[int | None] = mapped_column(BigInteger)
    # Of the last instance or result, or as above: its images are kept so many days from then
    kept_from_s: Mapped[int] = mapped_column(BigInteger, default=operating_s())

    patient: Mapped[Patient] = relationship(lazy="joined", innerjoin=True)

    @property
    def reading(self) -> ReadingState:
        """Whether it waits to be read, has been read, or has left the worklist unread."""
        if self.read_at is not None:
            return ReadingState.READ
        return ReadingState.WAITING if self.expired_at is None else ReadingState.EXPIRED


class SearchKey(Table):
    """A folded word by which a study can be searched (``db.read_models.study_search``).

    A search matches any prefix of it.
    """

    __tablename__ = "search_key"
    __table_args__ = (UniqueConstraint("word", "study_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    # a prefix is a range only where characters sort by their code points
    word: Mapped[str] = mapped_column(
        String(64).with_variant(String(64, collation="C"), "postgresql")
    )
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)


class Explanation(Table):
    """A note on how a revision was read: series chosen and refused, how the levels were located.

    ``caveat`` marks the reasons why the levels may be misnamed, or the wrong images read.
    """

    __tablename__ = "explanation"
    __table_args__ = (UniqueConstraint("study_id", "revision", "ordinal"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    revision: Mapped[int]
    ordinal: Mapped[int]
    text: Mapped[str]
    caveat: Mapped[bool] = mapped_column(Boolean, default=False)


class StatedAttributes(Table):
    """What instances of a study state of patient and study, once per different set of values.

    ``lumbar.study_attributes`` says which value counts for the study.
    """

    __tablename__ = "stated_attributes"
    __table_args__ = (UniqueConstraint("study_id", "digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    digest: Mapped[str] = mapped_column(String(64))  # of the values
    values: Mapped[dict[str, Any]]  # ``lumbar.study_attributes.StudyAttributes``


class Series(Table):
    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    series_instance_uid: Mapped[str] = mapped_column(String(64))
    series_number: Mapped[int | None]
    description: Mapped[str]


class Instance(Table):
    """A received instance and its file: an MR image, or another object of the study.

    At most one row per SOP Instance UID is in use; others are quarantined, for the reason given,
    and kept.
    """

    __tablename__ = "instance"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "sha256"),
        Index(
            "uq_instance_in_use",
            "sop_instance_uid",
            unique=True,
            sqlite_where=text("quarantined IS NULL"),
            postgresql_where=text("quarantined IS NULL"),
        ),
        # of the few that are quarantined: to list the newest, and those with one reason
        *(
            Index(
                name,
                column,
                sqlite_where=text("quarantined IS NOT NULL"),
                postgresql_where=text("quarantined IS NOT NULL"),
            )
            for name, column in (
                ("ix_instance_quarantined_received_at", "received_at"),
                ("ix_instance_quarantined", "quarantined"),
            )
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))  # of transfer syntax UID and encoded dataset
    size: Mapped[int] = mapped_column(BigInteger)  # bytes
    file: Mapped[str] = mapped_column(index=True)  # relative to the store
    # of ``stated_attributes``; NULL in rows that earlier versions quarantined
    attributes_id: Mapped[int | None]
    slices: Mapped[int]  # frames, or 1; 0 in an object that is no MR image
    role: Mapped[Role | None]  # what a whole series of such slices would be read for
    # calling AE title, or another source's name; empty: it named none
    source: Mapped[str] = mapped_column(String(64))
    quarantined: Mapped[str | None]  # a ``QuarantineReason``
    removed_at: Mapped[datetime | None]  # when retention removed the file; the row stays
    received_at: Mapped[datetime] = mapped_column(default=db_now(), index=True)

    series: Mapped[Series] = relationship(lazy="joined", innerjoin=True)

    @hybrid_property
    def is_image(self) -> bool:
        """Whether it is an MR image."""
        return self.slices > 0

    @is_image.inplace.expression
    @classmethod
    def _is_image(cls) -> ColumnElement[bool]:
        return cls.slices > 0


class Rejection(Table):
    """An instance that a rejection note names (``lumbar.dicom.rejection_note``).

    It counts from when the note has been in use, whatever becomes of the note then.
    """

    __tablename__ = "rejection"
    __table_args__ = (UniqueConstraint("note_id", "sop_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    note_id: Mapped[int | None] = mapped_column(ForeignKey("instance.id"))  # NULL: dropped
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(String(16))  # a ``RejectionReason``
    in_force: Mapped[bool] = mapped_column(Boolean)


class Tombstone(Table):
    """A study that an administrator deleted; if it is sent again, it is a new study."""

    __tablename__ = "tombstone"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    study_id: Mapped[int]  # as the audit trail names it
    reason: Mapped[str]
    actor: Mapped[str] = mapped_column(String(64))
    deleted_at: Mapped[datetime] = mapped_column(default=db_now())
