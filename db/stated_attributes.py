"""What a study's instances state of patient and study, and the values that count for the study.

``lumbar.study_attributes`` decides which count. They are kept on the rows of study and
patient, where lists and searches find them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from db.database import insert_if_new
from db.models import Instance, Patient, SearchKey, Series, StatedAttributes, Study
from db.read_models import study_search
from lumbar.study_attributes import Stated, StudyAttributes, agreed


def attributes_of(row: StatedAttributes) -> StudyAttributes:
    """A row as the value it was made from."""
    return StudyAttributes(**row.values)


def row_id(session: Session, study_id: int, attributes: StudyAttributes) -> int:
    """The id of the row with these values; it is added if there is none."""
    values = asdict(attributes)
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    key = {"study_id": study_id, "digest": digest}
    insert_if_new(session, StatedAttributes, tuple(key), **key, values=values)
    return session.scalars(select(StatedAttributes.id).filter_by(**key)).one()


def by_id(session: Session, study_id: int) -> Mapping[int, StudyAttributes]:
    """Everything that the study's instances state, quarantined ones included."""
    rows = session.scalars(select(StatedAttributes).where(StatedAttributes.study_id == study_id))
    return {row.id: attributes_of(row) for row in rows}


def in_use(session: Session, study_id: int, *, images: bool = True) -> Stated:
    """What the study's images in use state (with ``images=False``, its other objects)."""
    counted = (
        select(Instance.attributes_id, func.count())
        .join(Series)
        .where(
            Series.study_id == study_id,
            Instance.quarantined.is_(None),
            Instance.is_image if images else ~Instance.is_image,
        )
        .group_by(Instance.attributes_id)
        .order_by(func.min(Instance.id))
    )
    stated = by_id(session, study_id)
    return [
        (stated[attributes_id], count)
        for attributes_id, count in session.execute(counted)
        if attributes_id is not None and attributes_id in stated
    ]


def of_study(session: Session, study_id: int) -> StudyAttributes:
    """The values that count: those of its images or, where it has none, of its other objects."""
    return agreed(in_use(session, study_id) or in_use(session, study_id, images=False))


def refresh(session: Session, study: Study, *, corrected: bool = False) -> None:
    """Brings the rows of study and patient up to date, and by which words they are found.

    ``corrected``: the patient's name, birth date and sex count for all of the patient's studies.
    """
    attributes = of_study(session, study.id)
    values = {
        "accession_number": attributes.accession_number,
        "study_date": attributes.study_date,
        "study_time": attributes.study_time,
        "description": attributes.study_description,
    }
    before = {name: getattr(study, name) for name in values}
    for name, value in values.items():
        setattr(study, name, value)
    if _describe_patient(session, study, attributes, corrected):
        session.flush()
        for each in session.scalars(select(Study).where(Study.patient_id == study.patient_id)):
            index(session, each)
    elif before != values:
        session.flush()
        index(session, study)


def index(session: Session, study: Study) -> None:
    """Makes the study's search keys anew."""
    session.execute(delete(SearchKey).where(SearchKey.study_id == study.id))
    session.add_all(study_search.keys_of(study))


def _describe_patient(
    session: Session, study: Study, attributes: StudyAttributes, corrected: bool
) -> bool:
    """Updates the patient's row; where other studies share it, only what it lacks."""
    patient = study.patient
    values = {
        "name": attributes.patient_name,
        "birth_date": attributes.birth_date,
        "sex": attributes.sex,
    }
    others = select(Study.id).where(Study.patient_id == patient.id, Study.id != study.id).limit(1)
    changes = {
        name: value for name, value in values.items() if value and value != getattr(patient, name)
    }
    if changes and not corrected and session.scalar(others) is not None:
        changes = {name: value for name, value in changes.items() if not getattr(patient, name)}
    if changes:
        session.execute(update(Patient).where(Patient.id == patient.id).values(**changes))
        session.refresh(patient)
    return bool(changes)
