"""The reasons that rejection notes give (PS3.16 CID 7011); does not import pydicom."""

from enum import StrEnum


class RejectionReason(StrEnum):
    """Why instances were rejected."""

    QUALITY = "quality"
    PATIENT_SAFETY = "patient safety"
    WORKLIST_ENTRY = "worklist entry"
    RETENTION = "retention"
