"""What is registered of one study, as the writer of its instances' rows needs to know it."""

from collections import Counter
from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import patients, rejections, stated_attributes
from db.database import insert_if_new
from db.models import Instance, Series, Study
from lumbar.study_attributes import StudyAttributes, agreed


class StudyHoldings:
    """A study's patient, series and copies of some instances; kept up to date by its user."""

    def __init__(self, session: Session, study: Study, uids: Collection[str]) -> None:
        """``uids``: the SOP Instance UIDs that matter."""
        self._session = session
        self._study = study
        self._uids = uids
        self.read()
        self._images_before = dict(self._images)
        self.changed = False  # what the instances in use state

    def read(self) -> None:
        """Reads everything again; the session's changes must have been flushed."""
        session, study_id = self._session, self._study.id
        rows = session.scalars(
            select(Instance)
            .where(Instance.sop_instance_uid.in_(self._uids))
            .execution_options(populate_existing=True)
        ).all()
        self.known = {(row.sop_instance_uid, row.sha256): row for row in rows}
        self.in_use = {row.sop_instance_uid: row for row in rows if row.quarantined is None}
        series = select(Series.series_instance_uid, Series.id).where(Series.study_id == study_id)
        self._series = {uid: series_id for uid, series_id in session.execute(series)}  # noqa: C416
        self._stated = dict(stated_attributes.by_id(session, study_id))
        self._ids = {attributes: row_id for row_id, attributes in self._stated.items()}
        self._images = Counter(dict(stated_attributes.in_use(session, study_id)))
        self._objects = Counter(dict(stated_attributes.in_use(session, study_id, images=False)))
        self._agreed: StudyAttributes | None = None
        self.rejected = rejections.of_study(session, study_id)

    @property
    def report_changed(self) -> bool:
        """Whether a report of the images would state other values than before."""
        before, after = (list(stated.items()) for stated in (self._images_before, self._images))
        return bool(before and after) and agreed(before) != agreed(after)

    @property
    def has_patient(self) -> bool:
        """Whether the study's patient has an identifier."""
        return bool(self._study.patient.patient_identifier)

    @property
    def has_images(self) -> bool:
        """Whether an image is in use."""
        return bool(self._images)

    def contains(self, row: Instance) -> bool:
        """Whether an instance is one of the study's."""
        return row.series_id in self._series.values()

    def stated_by(self, row: Instance) -> StudyAttributes | None:
        """What an instance of the study states; None if it is not known."""
        return self._stated.get(row.attributes_id or 0)

    def counts(self) -> StudyAttributes:
        """The attributes that count for the study."""
        stated = self._images or self._objects
        if not stated:
            return patients.attributes_of(self._study.patient)
        if self._agreed is None:
            self._agreed = agreed(list(stated.items()))
        return self._agreed

    def use(self, row: Instance, stated: StudyAttributes) -> None:
        """An instance has come into use."""
        self.in_use[row.sop_instance_uid] = row
        self._count(stated, 1, image=row.is_image)
        self.changed = True

    def displace(self, row: Instance) -> None:
        """An instance is no longer in use."""
        del self.in_use[row.sop_instance_uid]
        self._count(self.stated_by(row), -1, image=row.is_image)

    def restate(self, row: Instance, stated: StudyAttributes) -> None:
        """Something else counts as stated by an image in use."""
        if stated != self.stated_by(row):
            self._count(self.stated_by(row), -1, image=True)
            self._count(stated, 1, image=True)
            row.attributes_id = self.attributes_id(stated)
            self.changed = True

    def attributes_id(self, attributes: StudyAttributes) -> int:
        """The id of the row of these attributes, which is added if there is none."""
        if attributes not in self._ids:
            row_id = stated_attributes.row_id(self._session, self._study.id, attributes)
            self._ids[attributes], self._stated[row_id] = row_id, attributes
        return self._ids[attributes]

    def series_id(self, uid: str, number: int | None, description: str) -> int:
        """The id of the row of a series, which is added if there is none."""
        if uid not in self._series:
            key = {"study_id": self._study.id, "series_instance_uid": uid}
            values = {"series_number": number, "description": description}
            insert_if_new(self._session, Series, tuple(key), **key, **values)
            self._series[uid] = self._session.scalars(select(Series.id).filter_by(**key)).one()
        return self._series[uid]

    def _count(self, stated: StudyAttributes | None, change: int, *, image: bool) -> None:
        if stated is None:
            return
        counts = self._images if image else self._objects
        counts[stated] += change
        if counts[stated] <= 0:
            del counts[stated]
        self._agreed = None
