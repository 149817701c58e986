"""A finished report: bytes that are stored once and sent unchanged."""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Report:
    """A DICOM Part-10 file and the identifiers in it."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """Of ``content``, in lower-case hex."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Predecessor:
    """An earlier report that a new one replaces."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
