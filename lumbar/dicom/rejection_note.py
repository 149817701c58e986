"""Rejection notes: Key Object Selection Documents that name instances not to be used any more.

IHE Radiology, Imaging Object Change Management (RAD TF-2 4.66); the document's elements are those
of PS3.3 A.35.4, C.17.2.2 and C.17.3, the codes those of PS3.16 CID 7011.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from lumbar.elements import is_uid, items, text
from lumbar.rejection_reason import RejectionReason

# The end of what is read of the document: behind CurrentRequestedProcedureEvidenceSequence
END = 0x0040A376

_REASONS = {  # by the code of the document's title, coding scheme DCM
    "113001": RejectionReason.QUALITY,
    "113037": RejectionReason.PATIENT_SAFETY,
    "113038": RejectionReason.WORKLIST_ENTRY,
    "113039": RejectionReason.RETENTION,
}


@dataclass(frozen=True)
class RejectionNote:
    """What a rejection note states."""

    reason: RejectionReason
    # (Study Instance UID, SOP Instance UID), valid, in the document's order, each once
    references: tuple[tuple[str, str], ...]

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "RejectionNote":
        """The inverse of ``dataclasses.asdict``, also after JSON has made tuples lists."""
        references = tuple((study, instance) for study, instance in content["references"])
        return cls(RejectionReason(content["reason"]), references)


def rejection_note_of(header: Dataset) -> RejectionNote | None:
    """The rejection note that a Key Object Selection Document is; None if its title is another.

    A reference with a missing or invalid UID is left out.
    """
    title = next(iter(items(header, "ConceptNameCodeSequence")), Dataset())
    if text(title, "CodingSchemeDesignator").upper() != "DCM":
        return None
    reason = _REASONS.get(text(title, "CodeValue"))
    if reason is None:
        return None
    return RejectionNote(reason, tuple(dict.fromkeys(_references(header))))


def _references(header: Dataset) -> Iterator[tuple[str, str]]:
    for study in items(header, "CurrentRequestedProcedureEvidenceSequence"):
        study_uid = text(study, "StudyInstanceUID")
        for series in items(study, "ReferencedSeriesSequence"):
            for instance in items(series, "ReferencedSOPSequence"):
                uid = text(instance, "ReferencedSOPInstanceUID")
                if is_uid(study_uid) and is_uid(uid):
                    yield study_uid, uid
