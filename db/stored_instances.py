"""Instances whose files are durable, on their way into the database; and what becomes of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from db.audit import Participant, dicom_node
from lumbar.study_attributes import StudyAttributes

if TYPE_CHECKING:  # slow to import; every command imports ``TrustedSources``
    from lumbar.dicom.instance_identity import Identity
    from lumbar.dicom.same_image import Comparison


class IngestResult(StrEnum):
    """The outcome for an instance that is now durable and registered."""

    NEW = "new"
    DUPLICATE = "duplicate"  # the same bytes as before
    SAME_IMAGE = "same_image"  # other bytes of the image in use, which are not kept
    QUARANTINED = "quarantined"  # kept, but not used


@dataclass(frozen=True)
class TrustedSources:
    """Calling AE titles that may change what was received before."""

    corrections: frozenset[str] = frozenset()  # of patient, name and accession number
    rejections: frozenset[str] = frozenset()


NO_ONE = TrustedSources()


@dataclass(frozen=True)
class StoredInstance:
    """An instance whose bytes are durable."""

    identity: "Identity"
    transfer_syntax_uid: str
    digest: str  # sha256 of transfer syntax UID, a NUL and the data set
    file: str  # relative to the store
    source: str
    address: str = ""  # of the source's host; empty: not known
    age_s: float = 0.0  # since it was received

    @property
    def key(self) -> tuple[str, str]:
        """What tells instances apart: one UID may have several contents."""
        return self.identity.sop_instance_uid, self.digest

    @property
    def sender(self) -> Participant:
        """As the audit trail names it."""
        return dicom_node(self.source, self.address)

    @property
    def is_image(self) -> bool:
        """Whether it is an MR image."""
        return self.identity.slices > 0

    @property
    def attributes(self) -> StudyAttributes:
        """What it states of patient and study."""
        return StudyAttributes.of(self.identity)


class NotCompared(Exception):
    """Two copies must be compared first, which takes too long within a transaction."""

    def __init__(self, copy: tuple[str, str], new: tuple[str, str]) -> None:
        """Each by its digest and its file: the copy in use, and the new one."""
        super().__init__()
        self.copy, self.new = copy, new


@dataclass(frozen=True)
class Files:
    """The stored files, for the writer of rows."""

    # Puts a file back if it was removed meanwhile; returns its size in bytes.
    ensure: Callable[[str], int]
    # Of images, by the digests of the copy in use and of the new one; ``NotCompared`` asks for more
    comparisons: Mapping[tuple[str, str], "Comparison"] = field(default_factory=dict)
