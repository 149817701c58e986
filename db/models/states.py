"""The states of studies and jobs, and what users may do."""

from enum import StrEnum


class StudyState(StrEnum):
    """The state of a study; ``db.studies.TRANSITIONS`` says how it changes."""

    RECEIVING = "receiving"
    QUEUED = "queued"
    ANALYSING = "analysing"
    ANALYSED = "analysed"
    NOT_ANALYSABLE = "not_analysable"
    FAILED = "failed"
    NO_IMAGES = "no_images"  # none is in use: there is nothing to read

    @property
    def label(self) -> str:
        """For a person."""
        return self.value.replace("_", " ")


class ReadingState(StrEnum):
    """Whether a study has been read by a person (``db.expiry``)."""

    WAITING = "waiting"  # on the worklist
    READ = "read"
    EXPIRED = "expired"  # left the worklist unread

    @property
    def label(self) -> str:
        """For a person."""
        return {"waiting": "not read yet", "expired": "expired, unread"}.get(self.value, self.value)


# Of a study whose current revision has not ended
ACTIVE_STUDY_STATES = (StudyState.RECEIVING, StudyState.QUEUED, StudyState.ANALYSING)


class QuarantineReason(StrEnum):
    """Why an instance is kept but not used; the value is for a person."""

    OTHER_PATIENT = "the study was first received for another patient"
    CORRECTION = "a newer copy, which states another patient or accession number"
    OTHER_CONTENT = "other content under the same SOP Instance UID"
    UNREADABLE = "its pixels cannot be read; a readable copy is in use"
    REPAIRED = "its pixels cannot be read; it was replaced by a readable copy"
    REPLACED = "replaced by a newer copy"
    REJECTED_QUALITY = "rejected for quality reasons"
    REJECTED_SAFETY = "rejected for patient safety reasons"
    REJECTED_WORKLIST = "rejected: incorrect modality worklist entry"


REJECTED = (
    QuarantineReason.REJECTED_QUALITY,
    QuarantineReason.REJECTED_SAFETY,
    QuarantineReason.REJECTED_WORKLIST,
)


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
    DEAD = "dead"  # dead letter: had all its attempts, or cannot succeed; an operator must look
    CANCELLED = "cancelled"  # superseded by a later revision of its study, or by an operator


# Of a job that is still to be done
UNFINISHED_JOB_STATES = (JobState.PENDING, JobState.RUNNING)


# Of a job that is still to be done, or that an operator must look at
OPEN_JOB_STATES = (*UNFINISHED_JOB_STATES, JobState.DEAD)


class DeliveryOutcome(StrEnum):
    """What is known of a report that a destination was sent."""

    CONFIRMED = "confirmed"  # the destination lists it
    ACCEPTED = "accepted"  # the destination reported success, and was not or cannot be asked
    ABSENT = "absent"  # the destination reported success, but does not list it


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
