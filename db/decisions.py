"""Decides what becomes of an instance: it is used, quarantined, or used in place of another copy.

An image of one patient must never be read as another's, and nothing that was acknowledged is lost.
"""

from collections.abc import Callable
from dataclasses import dataclass

from db.models.states import QuarantineReason
from lumbar.dicom.same_image import Comparison
from lumbar.study_attributes import StudyAttributes

_Q = QuarantineReason


@dataclass(frozen=True)
class CopyInUse:
    """The copy that is in use under an instance's SOP Instance UID."""

    same_study: bool
    is_image: bool
    has_file: bool  # False: retention has removed it
    attributes: StudyAttributes | None  # None: not known
    compare: Callable[[], Comparison]  # with the instance, as the first of the two; images only


@dataclass(frozen=True)
class Decision:
    """What becomes of an instance."""

    quarantined: QuarantineReason | None = None
    displaces: QuarantineReason | None = None  # why the copy in use no longer is
    same_image: bool = False  # as the copy in use: it need not be kept twice
    restores: bool = False  # the copy in use, whose file retention removed: it displaces that


USED = Decision()


def decide(
    stated: StudyAttributes,
    study: StudyAttributes,
    *,
    is_image: bool,
    rejected: QuarantineReason | None = None,
    copy: CopyInUse | None = None,
) -> Decision:
    """Decides what becomes of an instance that states these attributes, and is not in use itself.

    ``study``: the values that count for its study; ``rejected``: the reason that a rejection note
    gives.
    """
    nobody = not is_image and not stated.patient_identifier  # contradicts no patient
    if not nobody and not stated.same_patient(study):
        copied = copy is not None and copy.same_study and copy.is_image and is_image
        return Decision(_Q.CORRECTION if copied else _Q.OTHER_PATIENT)
    if rejected is not None:
        return Decision(rejected)
    if copy is None:
        return USED
    if not copy.same_study or (copy.is_image and not is_image):
        return Decision(_Q.OTHER_CONTENT)
    if not copy.is_image:
        return Decision(displaces=_Q.REPLACED)
    if _corrects(stated, copy, study):
        return Decision(_Q.CORRECTION)
    if not copy.has_file:
        return Decision(displaces=_Q.REPLACED, restores=True)
    return _compared(copy.compare())


def _corrects(stated: StudyAttributes, copy: CopyInUse, study: StudyAttributes) -> bool:
    """Whether a copy states something else than the one in use, and than the study's images."""
    if copy.attributes is None or not stated.corrects(copy.attributes):
        return False
    return stated.corrects(study)


def _compared(comparison: Comparison) -> Decision:
    if comparison.same:
        return Decision(same_image=True)
    if comparison.b_readable and not comparison.a_readable:
        return Decision(displaces=_Q.REPAIRED)
    if comparison.a_readable and not comparison.b_readable:
        return Decision(_Q.UNREADABLE)
    return Decision(_Q.OTHER_CONTENT)
