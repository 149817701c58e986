"""Corrections at the same time as other things; what is shown of a former patient."""

from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest
from pydicom.uid import BasicTextSRStorage
from sqlalchemy import select, update

from db import corrections, operator_actions, retention, reviews, studies
from db.audit import Participant
from db.models import FindingRow, Patient, Study
from db.read_models import reviewed_labels
from db.read_models.corrections import pending
from db.read_models.study_detail import study_detail
from db.read_models.worklist_rows import Ranking
from db.stored_instances import NO_ONE
from lumbar.errors import Permanent
from lumbar.spine.anatomy import Severity
from tests.factories.ages import ended
from tests.factories.instances import make_slice
from tests.factories.objects import make_object
from tests.integration.test_corrected_and_rejected import (
    UID,
    B,
    analyse,
    correct,
    send,
    send_all,
    study_of,
)

# SQLite has one writer, so nothing can happen there between a reading and the lock.
several_writers = pytest.mark.parametrize(
    "database",
    [pytest.param("postgresql", marks=[pytest.mark.postgresql, pytest.mark.no_cover])],
    indirect=True,
)


def patients(site):
    with site.database.reading() as session:
        return sorted(p.patient_identifier for p in session.scalars(select(Patient)))


def test_an_image_that_waits_for_a_correction_leaves_no_patient_behind(site):
    """PostgreSQL: the locking SELECT joins the patient, and finds no row once that has changed."""
    send_all(site)
    send_all(site, **B)
    with ThreadPoolExecutor(1) as pool:
        with site.database.transaction() as session:
            operator_actions.correct(session, UID, Participant("op"))
            waiting = pool.submit(send, site, make_slice(number=4))  # of the former patient
            sleep(1)
        waiting.result()
    assert patients(site) == ["P9"]


@several_writers
def test_a_correction_that_waits_for_another_knows_the_study_as_it_is_then(site, monkeypatch):
    """PostgreSQL: ``correct`` is given the study as it was before its lock."""
    send_all(site, [1])
    send_all(site, [1], **B)
    lock, done = studies.lock, []

    def delayed(session, study_id):
        if not done:  # another operator was faster; then a second correction arrived
            done.append(True)
            correct(site)
            send_all(site, [1], PatientID="P7", PatientName="Cyd^Seven")
        lock(session, study_id)

    monkeypatch.setattr(corrections.studies, "lock", delayed)
    correct(site)
    assert study_of(site).patient.patient_identifier == "P7"
    assert patients(site) == ["P7"]


@several_writers
def test_a_correction_that_waited_does_not_leave_the_images_under_another_patient(
    site, monkeypatch
):
    send(site, make_slice(study=2, PatientID="P1", PatientName="Test^1"))  # keeps P1 alive
    send_all(site, [1])
    send_all(site, [1], **B)
    lock, done = studies.lock, []

    def delayed(session, study_id):
        if not done:
            done.append(True)
            correct(site)
            send_all(site, [1], InstitutionName="x")  # P1 again
        lock(session, study_id)

    monkeypatch.setattr(corrections.studies, "lock", delayed)
    correct(site)
    assert study_of(site).patient.patient_identifier == "P1"  # the image in use is P1's


def test_of_two_complete_corrections_the_operator_says_which(site):
    send_all(site)
    send_all(site, source="PACS", trusted=NO_ONE, **B)
    with site.database.reading() as session:
        assert "P9" in str(pending(session, study_of(site).id))  # what the operator sees
    send_all(site, source="STRANGER", PatientID="P666", PatientName="Cyd^Seven")
    with pytest.raises(Permanent):
        correct(site)  # takes P666


def test_labels_of_the_former_patients_images_are_not_exported_with_the_new_ones(site, monkeypatch):
    send_all(site)
    analyse(site, monkeypatch)
    with site.database.transaction() as session:
        finding = session.scalars(
            select(FindingRow).where(FindingRow.severity.is_not(None)).order_by(FindingRow.id)
        ).first()
        reviews.add_review(
            session,
            finding_id=finding.id,
            severity=Severity.SEVERE,
            reviewer=Participant("reader"),
            comment="",
        )
    send_all(site, fill=99, **B)  # other images altogether
    correct(site)
    with site.database.reading() as session:
        assert reviewed_labels.labels(session).findings == 0


def test_the_page_shows_no_severities_of_the_former_patient(site, monkeypatch):
    send_all(site)
    analyse(site, monkeypatch)
    with site.database.transaction() as session:
        session.execute(
            update(FindingRow)
            .where(FindingRow.severity.is_not(None))
            .values(severity=Severity.SEVERE)
        )
    send_all(site, fill=99, **B)
    correct(site)
    analyse(site, monkeypatch)
    with site.database.reading() as session:
        detail = study_detail(session, UID, Ranking())
    assert detail.changes == ()


def test_an_object_that_arrives_after_retention_does_not_open_the_way_to_lose_the_findings(site):
    send_all(site)
    with site.database.transaction() as session:
        session.execute(update(Study).values(ended(40)))
    assert retention.remove(site, study_of(site).id, "old")
    send(site, make_object(BasicTextSRStorage), "PACS")
    with pytest.raises(Permanent), site.database.transaction() as session:
        operator_actions.requeue(session, UID, Participant("op"))
