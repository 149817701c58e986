"""Corrections that wait: what newer copies of a study's images state, and how many there are."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from db import stated_attributes
from db.models import Instance, QuarantineReason, Series, Study
from db.read_models.study_queries import batches
from lumbar.study_attributes import StudyAttributes, agreed

MAX_CORRECTIONS = 20  # of one study that are looked at
NEWER = (QuarantineReason.CORRECTION, QuarantineReason.OTHER_PATIENT)


@dataclass(frozen=True)
class Correction:
    """What newer copies of a study's images state, and how many of the images have one."""

    attributes: StudyAttributes
    current: StudyAttributes  # that count for the study now
    replaced: int
    images: int  # in use that state anything else

    @property
    def token(self) -> str:
        """Names the correction by what it states, so that nobody takes over another one."""
        return hashlib.sha256(json.dumps(astuple(self.attributes)).encode()).hexdigest()[:12]

    @property
    def complete(self) -> bool:
        """Whether the study can be taken over."""
        return self.replaced == self.images

    def __str__(self) -> str:
        stated = self.attributes
        return (
            f"newer copies of {self.replaced} of {self.images} images state patient "
            f"{stated.patient_identifier or 'without number'}, {stated.patient_name or 'no name'}, "
            f"born {stated.birth_date or 'unknown'}, sex {stated.sex or 'unknown'}, "
            f"accession {stated.accession_number or 'none'}; "
            + (
                "they wait to be taken over"
                if self.complete
                else "the rest have not been sent again yet"
            )
        )


@dataclass(frozen=True)
class CorrectedStudy:
    """A study whose correction waits."""

    study_instance_uid: str
    patient_identifier: str
    patient_name: str


@dataclass(frozen=True)
class Copies:
    """A study's instances, as a correction needs them."""

    in_use: Sequence[Instance]
    newer: Sequence[Instance]  # what contradicts them, with a file; the newest first
    stated: dict[int, StudyAttributes]

    def of(self, row: Instance) -> StudyAttributes | None:
        return self.stated.get(row.attributes_id or 0)

    def matching(self, target: StudyAttributes) -> list[Instance]:
        """The newest copy of each instance that states what the target does."""
        newest: dict[str, Instance] = {}
        for row in self.newer:
            if self.states(row, target):
                newest.setdefault(row.sop_instance_uid, row)
        return list(newest.values())

    def states(self, row: Instance, target: StudyAttributes) -> bool:
        """Whether a newer copy states what the target does; of others, the patient suffices."""
        stated = self.of(row)
        if stated is None:
            return False
        if row.quarantined == QuarantineReason.CORRECTION:
            return not stated.corrects(target)
        return stated.same_patient(target)

    @cached_property
    def current(self) -> StudyAttributes:
        """The values that count for the study, by its images in use."""
        stated = Counter(self.of(row) for row in reversed(self.in_use) if row.is_image)
        return agreed([(attributes, n) for attributes, n in stated.items() if attributes])

    def correction(self, target: StudyAttributes) -> Correction:
        copies = {row.sop_instance_uid for row in self.matching(target)}
        images = [row for row in self.in_use if row.is_image and self._differs(row, target)]
        replaced = sum(row.sop_instance_uid in copies for row in images)
        return Correction(target, self.current, replaced, len(images))

    def _differs(self, row: Instance, target: StudyAttributes) -> bool:
        stated = self.of(row)
        return stated is None or target.corrects(stated)


def copies_wait() -> ColumnElement[bool]:
    """The condition that newer copies of a study's images wait, of which ``pending`` says more."""
    return exists().where(
        Series.study_id == Study.id,
        Instance.series_id == Series.id,
        Instance.quarantined == QuarantineReason.CORRECTION.value,
        Instance.removed_at.is_(None),
    )


def pending(session: Session, study_id: int) -> Correction | None:
    """The first of ``corrections_of``; None if there is none."""
    return next(iter(waiting(copies_of(session, study_id))), None)


def corrections_of(session: Session, study_id: int) -> tuple[Correction, ...]:
    """The corrections of a study that wait: the complete ones first, then the newest."""
    return tuple(waiting(copies_of(session, study_id)))


def corrected_studies(session: Session, limit: int) -> list[CorrectedStudy]:
    """The studies whose correction waits, read or not; those first whose copies are the newest."""
    ids = (
        select(Series.study_id)
        .join(Instance)
        .where(Instance.quarantined == QuarantineReason.CORRECTION.value)
        .group_by(Series.study_id)
        .order_by(func.max(Instance.received_at).desc())
        .limit(limit)
    )
    found = [(study_id, pending(session, study_id)) for study_id in session.scalars(ids).all()]
    studies = [session.get_one(Study, study_id) for study_id, correction in found if correction]
    return [
        CorrectedStudy(
            study.study_instance_uid, study.patient.patient_identifier, study.patient.name
        )
        for study in studies
    ]


def pending_of(session: Session, study_ids: Collection[int]) -> dict[int, Correction]:
    """The corrections of several studies, by study; only of those that have one."""
    corrections = {}
    for ids in batches(list(study_ids)):
        corrected = (
            select(Series.study_id)
            .join(Instance)
            .where(
                Series.study_id.in_(ids), Instance.quarantined == QuarantineReason.CORRECTION.value
            )
            .distinct()
        )
        for study_id in session.scalars(corrected).all():
            if (correction := pending(session, study_id)) is not None:
                corrections[study_id] = correction
    return corrections


def waiting(copies: Copies) -> list[Correction]:
    """What newer copies state, the complete corrections first, then the newest.

    Of very many, those of which the most copies are there.
    """
    counts = Counter(
        row.attributes_id for row in copies.newer if row.quarantined == QuarantineReason.CORRECTION
    )
    corrections: list[Correction] = []
    for attributes_id, _ in counts.most_common(MAX_CORRECTIONS):
        stated = copies.stated.get(attributes_id or 0)
        if stated is not None and all(stated.corrects(c.attributes) for c in corrections):
            corrections.append(copies.correction(stated))
    corrections = [correction for correction in corrections if correction.images]
    return sorted(corrections, key=lambda correction: not correction.complete)


def copies_of(session: Session, study_id: int) -> Copies:
    """A study's instances in use, and those that contradict them."""
    rows = session.scalars(
        select(Instance)
        .join(Series)
        .where(
            Series.study_id == study_id,
            Instance.quarantined.is_(None) | Instance.quarantined.in_(NEWER),
        )
        .order_by(Instance.received_at.desc(), Instance.id.desc())
        .execution_options(populate_existing=True)
    ).all()
    return Copies(
        [row for row in rows if row.quarantined is None],
        [row for row in rows if row.quarantined is not None and row.removed_at is None],
        dict(stated_attributes.by_id(session, study_id)),
    )
