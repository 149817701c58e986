"""The rows of patients: found or added for a study, and removed with the last one."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db.database import insert_if_new
from db.models import Patient, Study
from lumbar.study_attributes import StudyAttributes


def row_id(
    session: Session, attributes: StudyAttributes, *, source: str, study_instance_uid: str
) -> int:
    """The id of the patient whom these attributes name; the row is added if there is none.

    ``source`` is the issuer of an identifier without one. Without identifier or source, the study
    stands for the patient.
    """
    key = {
        "issuer": attributes.issuer or source,
        "patient_identifier": attributes.patient_identifier,
    }
    if not attributes.patient_identifier or not key["issuer"]:
        key["issuer"] = study_instance_uid
    insert_if_new(
        session,
        Patient,
        tuple(key),
        **key,
        name=attributes.patient_name,
        birth_date=attributes.birth_date,
        sex=attributes.sex,
    )
    return session.scalars(select(Patient.id).filter_by(**key)).one()


def attributes_of(patient: Patient) -> StudyAttributes:
    """What is known of the patient, whatever the instances state."""
    return StudyAttributes(
        patient_identifier=patient.patient_identifier,
        patient_name=patient.name,
        birth_date=patient.birth_date,
        sex=patient.sex,
    )


def remove_unused(session: Session, patient_id: int) -> None:
    """Removes a patient of whom there is no study any more."""
    if session.scalar(select(Study.id).where(Study.patient_id == patient_id).limit(1)) is None:
        session.execute(
            delete(Patient)
            .where(Patient.id == patient_id)
            .execution_options(synchronize_session=False)
        )
