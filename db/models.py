"""The tables. The database is the truth; the rows of instances can be rebuilt from the store."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from db.types import UtcDateTime, db_now
from lumbar.spine.anatomy import Condition, Level, Role, Severity
from lumbar.spine.provenance import TrainedOn


class StudyState(StrEnum):
    """The state of a study; ``db.studies.TRANSITIONS`` says how it changes."""

    RECEIVING = "receiving"
    QUEUED = "queued"
    ANALYSING = "analysing"
    ANALYSED = "analysed"
    NOT_ANALYSABLE = "not_analysable"
    FAILED = "failed"

    @property
    def label(self) -> str:
        """For a person."""
        return self.value.replace("_", " ")


# Of a study whose current revision has not ended
ACTIVE_STUDY_STATES = (StudyState.RECEIVING, StudyState.QUEUED, StudyState.ANALYSING)


class JobKind(StrEnum):
    """What a job does."""

    ANALYSE = "analyse"
    DELIVER = "deliver"
    PREVIEW = "preview"  # of an upload; its row is in ``preview``, not in ``job``


class JobState(StrEnum):
    """The state of a job."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"  # dead letter: had all its attempts, or cannot succeed; a person must look
    CANCELLED = "cancelled"  # superseded by a later revision of its study, or by an operator


# Of a job that is still to be done
UNFINISHED_JOB_STATES = (JobState.PENDING, JobState.RUNNING)
# Of a job that is still to be done, or that an operator must look at
OPEN_JOB_STATES = (*UNFINISHED_JOB_STATES, JobState.DEAD)


class Permission(StrEnum):
    """What a user may do."""

    READ = "read"  # see patients' data
    REVIEW = "review"  # confirm or correct findings
    OPERATE = "operate"  # requeue, complete, cancel, send again
    ADMINISTER = "administer"  # users, deletion, the audit trail


class UserRole(StrEnum):
    """A user's role."""

    VIEWER = "viewer"
    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def permissions(self) -> frozenset[Permission]:
        return {
            UserRole.VIEWER: frozenset({Permission.READ}),
            UserRole.READER: frozenset({Permission.READ, Permission.REVIEW}),
            UserRole.OPERATOR: frozenset({Permission.READ, Permission.OPERATE}),
            UserRole.ADMIN: frozenset(Permission),
        }[self]


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
        Role: _named(Role),
        Condition: _named(Condition),
        Level: _named(Level),
        Severity: _named(Severity),
        TrainedOn: _named(TrainedOn),
        UserRole: _named(UserRole),
    }


def _unread(name: str, flag: str | None = None) -> Index:
    """An index of unread studies (with a flag), in the order of waiting."""
    return Index(
        name,
        "last_received_at",
        "id",
        sqlite_where=text("read_at IS NULL" + (f" AND {flag} IS 1" if flag else "")),
        postgresql_where=text("read_at IS NULL" + (f" AND {flag} IS true" if flag else "")),
    )


class Patient(Table):
    """A patient, identified by issuer and number: two sites may use one number for two people."""

    __tablename__ = "patient"
    __table_args__ = (UniqueConstraint("issuer", "patient_identifier"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    issuer: Mapped[str] = mapped_column(String(64))  # IssuerOfPatientID, else the calling AE title
    patient_identifier: Mapped[str] = mapped_column(String(64))
    name: Mapped[str]
    birth_date: Mapped[str] = mapped_column(String(8))  # YYYYMMDD or empty
    sex: Mapped[str] = mapped_column(String(16))


class Study(Table):
    """A study is its UID. ``revision`` grows when an instance arrives late."""

    __tablename__ = "study"
    __table_args__ = (
        Index("ix_study_state_last_received_at", "state", "last_received_at"),
        Index("ix_study_images_removed_at_ended_at", "images_removed_at", "ended_at"),
        Index("ix_study_last_received_at_id", "last_received_at", "id"),
        Index("ix_study_scanner_last_received_at", "scanner", "last_received_at"),
        Index("ix_study_scanner_ended_at", "scanner", "ended_at"),
        _unread("ix_study_unread"),
        _unread("ix_study_unread_stat", "stat"),
        _unread("ix_study_unread_severe", "severe"),
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
    first_received_at: Mapped[datetime] = mapped_column(default=db_now())
    last_received_at: Mapped[datetime] = mapped_column(default=db_now())
    ended_at: Mapped[datetime | None]  # when this revision's analysis ended
    images_removed_at: Mapped[datetime | None]  # when retention removed its images
    # The worklist's order: by its findings, an earlier revision's until it is analysed again
    severe: Mapped[bool] = mapped_column(Boolean, default=False)
    trained_on: Mapped[TrainedOn | None]
    read_at: Mapped[datetime | None]  # when it was marked as read; a late image clears it

    patient: Mapped[Patient] = relationship(lazy="joined", innerjoin=True)


class SearchKey(Table):
    """A word by which a study is searched, folded (``db.read_models.study_search``).

    It is found by its beginning.
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
    """A note on how a revision was read: series chosen and refused, how the levels were found.

    ``caveat`` marks the reasons why the numbering of the levels may be wrong.
    """

    __tablename__ = "explanation"
    __table_args__ = (UniqueConstraint("study_id", "revision", "ordinal"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    revision: Mapped[int]
    ordinal: Mapped[int]
    text: Mapped[str]
    caveat: Mapped[bool] = mapped_column(Boolean, default=False)


class Series(Table):
    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    series_instance_uid: Mapped[str] = mapped_column(String(64))
    series_number: Mapped[int | None]
    description: Mapped[str]


class Instance(Table):
    """A received instance and its file.

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
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))  # of transfer syntax UID and encoded dataset
    size: Mapped[int] = mapped_column(BigInteger)  # bytes
    file: Mapped[str] = mapped_column(index=True)  # relative to the store
    slices: Mapped[int]  # frames, or 1
    role: Mapped[Role | None]  # what a whole series of such slices would be read for
    source: Mapped[str] = mapped_column(String(64))  # calling AE title or other way in
    quarantined: Mapped[str | None]
    removed_at: Mapped[datetime | None]  # when retention removed the file; the row stays
    received_at: Mapped[datetime] = mapped_column(default=db_now(), index=True)

    series: Mapped[Series] = relationship(lazy="joined", innerjoin=True)


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


def _current(name: str, *narrowed: str) -> Index:
    """An index of the findings in force, the newest first."""
    return Index(
        name,
        *narrowed,
        "found_at",
        "id",
        sqlite_where=text("superseded IS 0"),
        postgresql_where=text("superseded IS false"),
    )


class FindingRow(Table):
    """One of a study's 25 findings; those of earlier revisions stay, superseded."""

    __tablename__ = "finding"
    __table_args__ = (
        UniqueConstraint("study_id", "revision", "condition", "level"),
        _current("ix_finding_question", "severity", "condition", "level"),
        _current("ix_finding_severity_found_at", "severity"),
        _current("ix_finding_found_at"),
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
    """A report's UIDs and its stored bytes, which are sent and sent again."""

    __tablename__ = "report"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    revision: Mapped[int]
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))  # of the file
    file: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class LeasedRow(Table):
    """The columns of a row that one worker at a time works on, under a lease (``db.leases``)."""

    __abstract__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[JobState] = mapped_column(default=JobState.PENDING)
    run_after: Mapped[datetime] = mapped_column(default=db_now())
    attempts: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)  # attempts whose worker was lost
    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_expires_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    ended_at: Mapped[datetime | None]


class Job(LeasedRow):
    """An analysis of a study's revision, or the delivery of a report to one destination."""

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("study_id", "kind", "revision", "destination"),
        Index("ix_job_due", "state", "priority", "run_after"),
    )

    kind: Mapped[JobKind]
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    revision: Mapped[int]
    destination: Mapped[str] = mapped_column(String(64), default="")  # of DELIVER
    report_id: Mapped[int | None] = mapped_column(ForeignKey("report.id"))
    priority: Mapped[int] = mapped_column(default=0)  # higher goes first


class Delivery(Table):
    """A destination's confirmation that it has a report."""

    __tablename__ = "delivery"
    __table_args__ = (UniqueConstraint("report_id", "destination"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    report_id: Mapped[int] = mapped_column(ForeignKey("report.id"))
    destination: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))  # the peer's: 0000, B007, 200
    delivered_at: Mapped[datetime] = mapped_column(default=db_now(), index=True)


class Review(Table):
    """A radiologist's agreement with a finding, or correction of it; append-only."""

    __tablename__ = "review"

    id: Mapped[int] = mapped_column(primary_key=True)
    finding_id: Mapped[int] = mapped_column(ForeignKey("finding.id"), index=True)
    reviewer: Mapped[str] = mapped_column(String(64))
    severity: Mapped[Severity]  # what the reviewer says
    comment: Mapped[str]
    reviewed_at: Mapped[datetime] = mapped_column(default=db_now())


class AuditEvent(Table):
    """Who did what to which study (PS3.15 A.5); append-only, ids only."""

    __tablename__ = "audit_event"

    id: Mapped[int] = mapped_column(primary_key=True)
    happened_at: Mapped[datetime] = mapped_column(default=db_now(), index=True)
    event: Mapped[str] = mapped_column(String(64))
    actor: Mapped[str] = mapped_column(String(64))
    study_id: Mapped[int | None] = mapped_column(index=True)
    detail: Mapped[dict[str, Any]]


class AuditForward(Table):
    """How far the audit trail was sent to the syslog server; one row."""

    __tablename__ = "audit_forward"

    id: Mapped[int] = mapped_column(primary_key=True)
    last_id: Mapped[int]  # of audit_event


class Tombstone(Table):
    """A study that an administrator deleted; sent again, it is a new one."""

    __tablename__ = "tombstone"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    study_id: Mapped[int]  # as the audit trail names it
    reason: Mapped[str]
    actor: Mapped[str] = mapped_column(String(64))
    deleted_at: Mapped[datetime] = mapped_column(default=db_now())


class User(Table):
    """A person who may sign in."""

    __tablename__ = "user_account"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str]  # Argon2id, with its parameters
    role: Mapped[UserRole]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    disabled_at: Mapped[datetime | None]


class WebSession(Table):
    """A browser in which a user is signed in."""

    __tablename__ = "web_session"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)  # of the cookie
    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id"), index=True)
    csrf_token: Mapped[str] = mapped_column(String(64))
    last_used_at: Mapped[datetime] = mapped_column(default=db_now())
    created_at: Mapped[datetime] = mapped_column(default=db_now())

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)


class ApiToken(Table):
    """A program's credentials: they act for a user, within ``scopes`` of what that user may do."""

    __tablename__ = "api_token"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id"), index=True)
    scopes: Mapped[str] = mapped_column(String(64))  # permissions, comma-separated
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)


class SignInFailure(Table):
    """A refused attempt to sign in. Too many for one name or one address block further ones."""

    __tablename__ = "sign_in_failure"
    __table_args__ = (Index("ix_sign_in_failure_who_happened_at", "who", "happened_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    # sha256 of the name or address, because people mistype passwords as names
    who: Mapped[str] = mapped_column(String(64))
    happened_at: Mapped[datetime] = mapped_column(default=db_now(), index=True)


class Preview(LeasedRow):
    """Uploaded files that are read once for their uploader.

    Files and result are removed; the audit trail stays.
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

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)

    @property
    def failure(self) -> str | None:
        """Why it ended without a result: not analysable, or the last error of a dead letter."""
        return self.reason or (self.last_error if self.state is JobState.DEAD else None)
