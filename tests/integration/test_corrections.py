"""Corrections upstream: a study sent again under another patient is taken over whole, or not."""

from pathlib import PurePath

import pytest
from sqlalchemy import select

from db import operator_actions, studies
from db.audit import Participant
from db.ingest import ingest
from db.models import AuditEvent, Instance, Patient, QuarantineReason, StudyState
from db.read_models import study_search
from db.read_models.corrections import pending
from db.stored_instances import NO_ONE, IngestResult, TrustedSources
from lumbar.errors import Permanent
from tests.factories.instances import ROOT, arrival, make_slice

FROM_PACS = TrustedSources(corrections=frozenset({"PACS"}))
OTHER = {"PatientID": "P9", "PatientName": "Other^Nine"}


def send(site, number=1, source="MR1", trusted=NO_ONE, **elements):
    return ingest(
        site.database, site.store, arrival(make_slice(number=number, **elements), source), trusted
    )


def study_of(site, number=1):
    with site.database.reading() as session:
        return studies.find(session, f"{ROOT}.{number}")


def instances(site):
    """What is in use, by SOP Instance UID's last number; and the reasons of what is not."""
    with site.database.reading() as session:
        rows = session.scalars(select(Instance).order_by(Instance.id)).all()
    in_use = {row.sop_instance_uid.rpartition(".")[2]: row for row in rows if not row.quarantined}
    return in_use, [row.quarantined for row in rows if row.quarantined]


def correction_of(site):
    with site.database.reading() as session:
        return pending(session, study_of(site).id)


def correct(site):
    with site.database.transaction() as session:
        operator_actions.correct(session, f"{ROOT}.1", Participant("operator"))


@pytest.fixture
def study(site):
    for number in (1, 2, 3):
        assert send(site, number) is IngestResult.NEW
    return study_of(site)


def resend(site, numbers=(1, 2, 3), **elements):
    return [send(site, number, **elements) for number in numbers]


def test_a_study_sent_again_under_another_patient_waits_and_is_then_taken_over_whole(site, study):
    assert set(resend(site, **OTHER)) == {IngestResult.QUARANTINED}
    waiting = correction_of(site)
    assert waiting.complete
    assert "P9" in str(waiting)
    assert study_of(site).patient.patient_identifier == "P1"
    correct(site)
    after = study_of(site)
    assert (after.patient.patient_identifier, after.patient.name) == ("P9", "Other^Nine")
    in_use, quarantined = instances(site)
    assert set(in_use) == {"1", "2", "3"}
    assert quarantined == [QuarantineReason.REPLACED] * 3
    assert correction_of(site) is None
    with site.database.reading() as session:
        assert [p.patient_identifier for p in session.scalars(select(Patient))] == ["P9"]
        events = [event.event for event in session.scalars(select(AuditEvent))]
    assert "study.corrected" in events


def test_a_study_is_not_taken_over_before_each_of_its_images_has_a_newer_copy(site, study):
    resend(site, (1, 2), **OTHER)
    assert not correction_of(site).complete
    with pytest.raises(Permanent, match="1 of the study's 3 images"):
        correct(site)
    assert study_of(site).patient.patient_identifier == "P1"
    send(site, 3, **OTHER)
    correct(site)
    assert study_of(site).patient.patient_identifier == "P9"


def test_without_newer_copies_there_is_nothing_to_take_over(site, study):
    with pytest.raises(Permanent, match="no newer copies"):
        correct(site)


def test_copies_under_two_other_patients_are_never_mixed(site, study):
    send(site, 1, **OTHER)
    resend(site, (2, 3), PatientID="P8", PatientName="Other^Eight")
    with pytest.raises(Permanent):
        correct(site)


def test_a_trusted_source_corrects_at_once_when_all_of_the_study_was_sent_again(site, study):
    resend(site, (1, 2), source="PACS", trusted=FROM_PACS, **OTHER)
    assert study_of(site).patient.patient_identifier == "P1"
    send(site, 3, source="PACS", trusted=FROM_PACS, **OTHER)
    assert study_of(site).patient.patient_identifier == "P9"


def test_copies_from_another_source_do_not_complete_a_trusted_correction(site, study):
    send(site, 1, source="MR1", trusted=FROM_PACS, **OTHER)
    resend(site, (2, 3), source="PACS", trusted=FROM_PACS, **OTHER)
    assert study_of(site).patient.patient_identifier == "P1"
    send(site, 1, source="PACS", trusted=FROM_PACS, **OTHER)
    assert study_of(site).patient.patient_identifier == "P9"


def test_a_corrected_study_is_analysed_again_and_shows_no_earlier_findings(site, study):
    with site.database.transaction() as session:
        studies.complete(session, study.id)
        study = session.get_one(type(study), study.id)
        study.state = StudyState.ANALYSED
    resend(site, **OTHER)
    assert study_of(site).revision == 1
    correct(site)
    after = study_of(site)
    assert (after.revision, after.state) == (2, StudyState.RECEIVING)


@pytest.mark.parametrize(
    "corrected",
    [
        {"PatientName": "Corrected^Name"},
        {"AccessionNumber": "A2"},
        {"PatientBirthDate": "19700102"},
        {"PatientSex": "F"},
    ],
    ids=lambda corrected: next(iter(corrected)),
)
def test_another_name_birth_date_sex_or_accession_number_is_a_correction(site, corrected):
    first = {"AccessionNumber": "A1", "PatientBirthDate": "19700101", "PatientSex": "M"}
    for number in (1, 2):
        send(site, number, **first)
    resend(site, (1, 2), **(first | corrected))
    assert correction_of(site).complete
    correct(site)
    study = study_of(site)
    stated = {
        "PatientName": study.patient.name,
        "AccessionNumber": study.accession_number,
        "PatientBirthDate": study.patient.birth_date,
        "PatientSex": study.patient.sex,
    }
    assert corrected.items() <= stated.items()


@pytest.mark.parametrize(
    "coerced",
    [
        {"PatientName": "TEST^1^^^"},
        {"PatientName": "test^1 ="},
        {"InstitutionName": "Elsewhere"},
        {"AccessionNumber": "A1"},  # filled in
        {"IssuerOfPatientID": "HOSPITAL"},
        {"StudyDescription": "other words"},
    ],
    ids=str,
)
def test_a_copy_with_coerced_attributes_is_the_same_image_kept_once(site, study, coerced):
    assert set(resend(site, **coerced)) == {IngestResult.SAME_IMAGE}
    in_use, quarantined = instances(site)
    assert (len(in_use), quarantined) == (3, [])
    assert correction_of(site) is None
    stored = {path.name for path in site.store.path("instances").glob("*/*")}
    assert stored == {PurePath(row.file).name for row in in_use.values()}


def test_an_accession_number_that_a_copy_fills_in_counts_for_the_study(site, study):
    resend(site, AccessionNumber="A1")
    assert study_of(site).accession_number == "A1"
    assert study_of(site).revision == 1


def test_a_value_filled_in_after_the_report_makes_a_new_one(site, study):
    with site.database.transaction() as session:
        studies.complete(session, study.id)
        session.get_one(type(study), study.id).state = StudyState.ANALYSED
    resend(site, AccessionNumber="A1")
    assert (study_of(site).revision, study_of(site).state) == (2, StudyState.RECEIVING)


def test_the_former_patients_images_sent_again_do_not_come_back_by_themselves(site, study):
    resend(site, **OTHER)
    correct(site)
    resend(site, PatientName="Test^1", PatientID="P1")
    assert study_of(site).patient.patient_identifier == "P9"
    in_use, _ = instances(site)
    assert {row.source for row in in_use.values()} == {"MR1"}
    assert correction_of(site).complete  # it was sent again: an operator may take it back
    correct(site)
    assert study_of(site).patient.patient_identifier == "P1"


def test_images_that_came_only_under_the_new_patient_are_used_once_it_is_corrected(site, study):
    assert send(site, 4, **OTHER) is IngestResult.QUARANTINED
    resend(site, **OTHER)
    correct(site)
    in_use, _ = instances(site)
    assert set(in_use) == {"1", "2", "3", "4"}


def test_a_study_whose_files_retention_removed_can_be_corrected(site, study):
    with site.database.transaction() as session:
        for row in session.scalars(select(Instance)):
            row.removed_at = study.first_received_at
    resend(site, **OTHER)
    correct(site)
    in_use, _ = instances(site)
    assert all(row.removed_at is None for row in in_use.values())


def test_patients_who_share_a_row_keep_it(site, study):
    send(site, 1, study=2, PatientID="P1", PatientName="Test^1")
    resend(site, **OTHER)
    correct(site)
    assert study_of(site, 2).patient.patient_identifier == "P1"


def test_a_study_stays_searchable_by_its_corrected_patient_only(site, study):
    resend(site, **OTHER)
    correct(site)
    with site.database.reading() as session:
        assert study_search.matching(session, "nine") == [study.id]
        assert study_search.matching(session, "test") == []
