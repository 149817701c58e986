"""Writes the rows of instances whose files are durable: patient, study, series, instance.

Many at once, in one transaction: a row that names a file is written only while that file is there,
and all under the study's lock, so that retention and deletion come before or after, never between.
``db.decisions`` says what becomes of each instance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import audit, corrections, operating_time, patients, rejections, stated_attributes, studies
from db.database import insert_if_new, log_committed
from db.decisions import CopyInUse, Decision, decide
from db.models import Instance, QuarantineReason, Study, StudyState, Tombstone, operating_s
from db.stored_instances import (
    NO_ONE,
    Files,
    IngestResult,
    NotCompared,
    StoredInstance,
    TrustedSources,
)
from db.study_holdings import StudyHoldings
from db.types import read_clock
from lumbar.dicom.same_image import Comparison
from lumbar.log import get_logger
from lumbar.study_attributes import StudyAttributes

log = get_logger()

_FROM_UPSTREAM = (QuarantineReason.CORRECTION, QuarantineReason.OTHER_PATIENT)


def write_rows(
    session: Session,
    instances: Sequence[StoredInstance],
    files: Files,
    trusted: TrustedSources = NO_ONE,
) -> list[IngestResult]:
    """Writes the rows of all instances; the results are in their order.

    Raises:
        NotCompared: two copies must be compared first.
    """
    # Sorted by study, so that two registrars lock studies in the same order; images first, because
    # they say whose study it is.
    order = sorted(
        range(len(instances)),
        key=lambda n: (instances[n].identity.study_instance_uid, not instances[n].is_image),
    )
    results: dict[int, IngestResult] = {}
    for _, group in groupby(order, key=lambda n: instances[n].identity.study_instance_uid):
        numbers = list(group)
        batch = _StudyBatch(session, [instances[n] for n in numbers], files, trusted)
        results.update(zip(numbers, batch.write(), strict=True))
    return [results[n] for n in range(len(instances))]


@dataclass
class _StudyBatch:
    """Instances of one study, images first."""

    session: Session
    instances: Sequence[StoredInstance]
    files: Files
    trusted: TrustedSources
    study: Study = field(init=False)
    held: StudyHoldings = field(init=False)
    restored: set[tuple[str, str]] = field(init=False, default_factory=set)
    now: datetime = field(init=False)

    def write(self) -> list[IngestResult]:
        self.now = read_clock(self.session)
        self.study = self._find_study()
        uids = {stored.identity.sop_instance_uid for stored in self.instances}
        self.held = StudyHoldings(self.session, self.study, uids)
        results = [self._write(stored) for stored in self.instances]
        self.session.flush()
        self._follow_up(results)
        return results

    def _find_study(self) -> Study:
        """The study, created with its patient if it is new.

        Its row is locked, so that two registrars cannot register one UID at once.
        """
        first = self.instances[0]
        identity = first.identity
        # The row alone: joined with the patient, it would be missed if that changed meanwhile.
        locked = (
            select(Study.id)
            .where(Study.study_instance_uid == identity.study_instance_uid)
            .with_for_update()
        )
        study_id = self.session.scalar(locked)
        if study_id is not None:
            return self.session.get_one(Study, study_id, populate_existing=True)
        patient_id = patients.row_id(
            self.session,
            first.attributes,
            source=first.source,
            study_instance_uid=identity.study_instance_uid,
        )
        added = insert_if_new(
            self.session,
            Study,
            ("study_instance_uid",),
            study_instance_uid=identity.study_instance_uid,
            patient_id=patient_id,
            accession_number=identity.accession_number,
            study_date=identity.study_date,
            study_time=identity.study_time,
            description=identity.study_description,
            scanner=identity.scanner,
            first_received_at=self.now - timedelta(seconds=first.age_s),
            **({} if first.is_image else self._without_images()),
            **_next_id(self.session),
        )
        study_id = self.session.scalars(locked).one()
        study = self.session.get_one(Study, study_id, populate_existing=True)
        if added:
            stated_attributes.index(self.session, study)
        else:  # another registrar was faster, perhaps with another patient's image
            patients.remove_unused(self.session, patient_id)
        return study

    def _without_images(self) -> dict[str, Any]:
        return {
            "state": StudyState.NO_IMAGES,
            "reason": studies.NO_MR_IMAGES,
            "ended_at": self.now,
            "result_s": operating_s(),
        }

    def _write(self, stored: StoredInstance) -> IngestResult:
        size = self.files.ensure(stored.file)
        rejected = stored.identity.sop_instance_uid in self.held.rejected
        if stored.is_image and not self.held.has_images and not rejected:
            self._adopt(stored)
        row = self.held.known.get(stored.key)
        if row is not None:
            self._restore(row, size)
            if row.quarantined is None:
                return IngestResult.DUPLICATE
        decision = self._decide(stored)
        if decision.same_image:
            return self._keep_once(stored, row)
        return self._keep(stored, row, size, decision)

    def _restore(self, row: Instance, size: int) -> None:
        """Unmarks an instance as removed, if retention had removed its file."""
        row.size = size
        if row.removed_at is not None:
            row.removed_at = None
            self.study.images_removed_at = None
            self._keep_longer()

    def _keep_longer(self) -> None:
        """What has just arrived is kept as long as if the study had just ended."""
        self.study.kept_from_s = operating_time.read(self.session)

    def _adopt(self, stored: StoredInstance) -> None:
        """The first image says whose study it is, whatever other objects have said before."""
        self.study.scanner = stored.identity.scanner
        if not stored.attributes.same_patient(patients.attributes_of(self.study.patient)):
            self.session.flush()
            corrections.adopt(self.session, self.study, stored.attributes, stored.sender)
            self.held.read()

    def _decide(self, stored: StoredInstance) -> Decision:
        uid = stored.identity.sop_instance_uid
        row = self.held.in_use.get(uid)
        copy = None
        if row is not None:
            found = row
            copy = CopyInUse(
                same_study=self.held.contains(row),
                is_image=row.is_image,
                has_file=row.removed_at is None,
                attributes=self.held.stated_by(row),
                compare=lambda: self._comparison(found, stored),
            )
        return decide(
            stored.attributes,
            self.held.counts(),
            is_image=stored.is_image,
            rejected=self.held.rejected.get(uid),
            copy=copy,
        )

    def _comparison(self, copy: Instance, stored: StoredInstance) -> Comparison:
        """How the copy in use compares with a new one.

        Raises:
            NotCompared: they have not been compared yet.
        """
        try:
            return self.files.comparisons[copy.sha256, stored.digest]
        except KeyError:
            raise NotCompared((copy.sha256, copy.file), (stored.digest, stored.file)) from None

    def _keep_once(self, stored: StoredInstance, row: Instance | None) -> IngestResult:
        """The image is in use already; what only this copy states is added.

        ``row``: of this copy, if it was kept before.
        """
        copy = self.held.in_use[stored.identity.sop_instance_uid]
        before = self.held.stated_by(copy) or StudyAttributes()
        newer = stored.attributes
        corrected = newer.corrects(before)
        stated = newer.filled_from(before) if corrected else before.filled_from(newer)
        self.held.restate(copy, stated)
        if row is None:
            return IngestResult.SAME_IMAGE
        row.quarantined = QuarantineReason.REPLACED.value
        return IngestResult.DUPLICATE

    def _keep(
        self, stored: StoredInstance, row: Instance | None, size: int, decision: Decision
    ) -> IngestResult:
        stated = stored.attributes
        if decision.displaces is not None:
            before = self._displace(stored, decision.displaces)
            if decision.restores and self.study.state in studies.ENDED:
                self.restored.add(stored.key)
                stated = before.filled_from(stated)
        reason = decision.quarantined.value if decision.quarantined else None
        known = row is not None and row.quarantined == reason
        if row is None:
            row = self._add(stored, stated, size, reason)
        else:  # sent again: it is the newest copy now
            row.quarantined, row.source = reason, stored.source
            row.received_at = self.now - timedelta(seconds=stored.age_s)
            row.attributes_id = self.held.attributes_id(stated)
        if self.study.images_removed_at is not None:
            self.study.images_removed_at = None  # so that it is removed with the study's images
        self._keep_longer()
        if reason is None:
            self.held.use(row, stated)
            return IngestResult.NEW
        if known:
            return IngestResult.DUPLICATE
        event = "instance.quarantined"
        audit.note(self.session, event, stored.sender, study_id=self.study.id, why=reason)
        fields = {"study": self.study.id, "why": reason}
        log_committed(self.session, log.warning, "instance.quarantined", **fields)
        return IngestResult.QUARANTINED

    def _displace(self, stored: StoredInstance, why: QuarantineReason) -> StudyAttributes:
        """Takes the copy in use out of use; returns what it stated."""
        copy = self.held.in_use[stored.identity.sop_instance_uid]
        self.held.displace(copy)
        copy.quarantined = why.value
        self.session.flush()  # before the new one: one copy is in use
        return self.held.stated_by(copy) or StudyAttributes()

    def _add(
        self, stored: StoredInstance, stated: StudyAttributes, size: int, quarantined: str | None
    ) -> Instance:
        identity = stored.identity
        row = Instance(
            series_id=self.held.series_id(
                identity.series_instance_uid, identity.series_number, identity.series_description
            ),
            attributes_id=self.held.attributes_id(stated),
            sop_instance_uid=identity.sop_instance_uid,
            sop_class_uid=identity.sop_class_uid,
            transfer_syntax_uid=stored.transfer_syntax_uid,
            sha256=stored.digest,
            size=size,
            file=stored.file,
            slices=identity.slices,
            role=identity.role,
            source=stored.source,
            quarantined=quarantined,
            received_at=self.now - timedelta(seconds=stored.age_s),
        )
        self.session.add(row)
        self.held.known[stored.key] = row
        return row

    def _follow_up(self, results: Sequence[IngestResult]) -> None:
        """What follows for the study from what has arrived.

        An image that only puts back what retention removed opens no revision: the others may never
        come, and the study's findings remain.
        """
        outcomes = list(zip(self.instances, results, strict=True))
        new = [
            stored
            for stored, result in outcomes
            if result is IngestResult.NEW and stored.is_image and stored.key not in self.restored
        ]
        if self.held.changed:
            stated_attributes.refresh(self.session, self.study)
        if new:
            stat = any(stored.identity.stat for stored in new)
            studies.image_arrived(self.session, self.study.id, stat=stat)
        elif self.held.report_changed and not self.restored:
            studies.attributes_changed(self.session, self.study.id)
        self._note_copies(results.count(IngestResult.SAME_IMAGE))
        self._apply_notes()
        self._apply_corrections()

    def _note_copies(self, count: int) -> None:
        if count:
            sender, study_id = self.instances[0].sender, self.study.id
            audit.note(self.session, "instances.same_image", sender, study_id=study_id, count=count)
            fields = {"study": study_id, "count": count}
            log_committed(self.session, log.info, "instances.same_image", **fields)

    def _apply_notes(self) -> None:
        """Takes out of use what rejection notes name that have just arrived."""
        for stored in self.instances:
            note = stored.identity.note
            named = stored.attributes.patient_identifier or not self.held.has_patient
            if note is not None and named and stored.source in self.trusted.rejections:
                rejections.record(self.session, self.study, self.held.known[stored.key], note)
                if rejections.apply(self.session, self.study, stored.sender):
                    corrections.adopt_waiting(self.session, self.study, stored.sender)

    def _apply_corrections(self) -> None:
        """Takes the study over where a trusted source has corrected all of it."""
        for stored in self.instances:
            reason = (
                self.held.known[stored.key].quarantined if stored.key in self.held.known else None
            )
            if reason in _FROM_UPSTREAM and stored.source in self.trusted.corrections:
                trusted = self.trusted.corrections
                corrections.correct_from(self.session, self.study, trusted, stored.sender)
                return


def _next_id(session: Session) -> dict[str, int]:
    """The id of a new study on SQLite, which would otherwise reuse the id of a deleted one.

    The audit trail names studies by their ids.
    """
    if session.get_bind().dialect.name != "sqlite":
        return {}
    newest_ids = func.max(Study.id), func.max(Tombstone.study_id)
    return {"id": 1 + max(session.scalar(select(newest)) or 0 for newest in newest_ids)}
