"""Reports, rejections and quarantine where studies are corrected, rejected and sent again."""

import pytest
from pydicom import dcmread
from pydicom.uid import BasicTextSRStorage, SecondaryCaptureImageStorage
from sqlalchemy import select, update

from db import job_lifecycle, operator_actions, quarantine, studies
from db.audit import Participant
from db.ingest import ingest
from db.models import (
    Instance,
    Job,
    JobState,
    ReportRow,
    Study,
    StudyState,
)
from db.read_models import study_queries, worklist
from db.read_models.worklist_rows import Ranking
from db.stored_instances import IngestResult, TrustedSources
from lumbar.errors import NotFound, Permanent
from tests.factories.deliveries import claim_delivery, delivered
from tests.factories.instances import ROOT, arrival, make_slice
from tests.factories.objects import make_key_objects, make_note, make_object
from tests.faults import stub_reading
from tests.stub_networks import StubNetworks
from worker import analysis

PACS = TrustedSources(rejections=frozenset({"PACS"}), corrections=frozenset({"PACS"}))
UID = f"{ROOT}.1"
B = {"PatientID": "P9", "PatientName": "Bob^Nine"}


def send(site, ds, source="MR1", trusted=PACS):
    return ingest(site.database, site.store, arrival(ds, source), trusted)


def send_all(site, numbers=(1, 2, 3), source="MR1", trusted=PACS, **elements):
    return [send(site, make_slice(number=n, **elements), source, trusted) for n in numbers]


def reject(site, numbers, title="113037", source="PACS", **elements):
    return send(site, make_note(title, [make_slice(number=n) for n in numbers], **elements), source)


def study_of(site, uid=UID):
    with site.database.reading() as session:
        return studies.find(session, uid)


def read(site, uid=UID):
    with site.database.reading() as session:
        rows = studies.images_in_use(session, studies.find(session, uid).id)
    return [int(row.sop_instance_uid.rpartition(".")[2]) for row in rows]


def correct(site, uid=UID):
    with site.database.transaction() as session:
        operator_actions.correct(session, uid, Participant("op"))


def listed(site):
    with site.database.reading() as session:
        return worklist.worklist(session, Ranking()).rows


def analyse(site, monkeypatch):
    """Runs the real job, without networks, on the study's images; returns all report rows."""
    stub_reading.replace()
    with site.database.transaction() as session:
        studies.complete(session, studies.find(session, UID).id)
        claimed = job_lifecycle.claim_analysis(session, lease_s=600)
    analysis.analyse_study(site, StubNetworks(), claimed)
    with site.database.reading() as session:
        return list(session.scalars(select(ReportRow).order_by(ReportRow.id)))


def test_a_correction_back_and_forth_sends_a_report_that_replaces_the_other_patients(
    site, monkeypatch
):
    send_all(site)
    (first,) = analyse(site, monkeypatch)
    send_all(site, **B)
    correct(site)
    second = analyse(site, monkeypatch)[-1]
    assert second.id != first.id
    send_all(site)  # the PACS notices that the first patient was right
    correct(site)
    assert study_of(site).patient.patient_identifier == "P1"
    analyse(site, monkeypatch)
    with site.database.reading() as session:
        job = session.scalars(select(Job).where(Job.destination == "pacs", Job.revision == 3)).one()
    # report 1 is sent again, under the UID that report 2 (of the wrong patient) says it replaced
    assert job.report_id not in (first.id, second.id)


def test_a_report_of_the_former_patient_is_not_sent_again(site, monkeypatch):
    send_all(site)
    analyse(site, monkeypatch)
    with site.database.transaction() as session:
        job = session.scalars(select(Job.id).where(Job.destination == "pacs")).one()
        session.execute(update(Job).where(Job.id == job).values(state=JobState.DEAD))
    send_all(site, **B)
    correct(site)
    for action in (operator_actions.retry, operator_actions.resend):
        with pytest.raises(Permanent), site.database.transaction() as session:
            action(session, job, Participant("op"))


def test_a_report_of_rejected_images_is_not_sent_again(site, monkeypatch):
    send_all(site)
    analyse(site, monkeypatch)
    with site.database.transaction() as session:
        job = session.scalars(select(Job.id).where(Job.destination == "pacs")).one()
    reject(site, [1, 2, 3])
    with site.database.transaction() as session:
        studies.complete(session, study_of(site).id)
    assert study_of(site).state is StudyState.NO_IMAGES
    with site.database.reading() as session:
        assert session.get_one(Job, job).state is JobState.CANCELLED
    with pytest.raises(Permanent), site.database.transaction() as session:
        operator_actions.resend(session, job, Participant("op"))


def test_rejecting_all_images_does_not_take_over_untrusted_copies_of_them(site):
    send_all(site)
    send_all(site, [1, 2], source="STRANGER", **B)
    reject(site, [1, 2, 3], "113037")
    assert study_of(site).patient.patient_identifier == "P1"
    assert read(site) == []  # all three were rejected for patient safety


def test_a_rejected_image_is_not_used_because_it_states_another_patient(site):
    send_all(site)
    reject(site, [1, 2, 3], "113037")
    send_all(site, [1], source="STRANGER", **B)
    assert read(site) == []


def test_a_rejected_image_remains_rejected_after_a_correction(site):
    send_all(site)
    reject(site, [3], "113037")
    send_all(site, [1, 2, 3], source="PACS", **B)
    assert study_of(site).patient.patient_identifier == "P9"
    assert read(site) == [1, 2]


def test_an_untrusted_copy_of_a_note_does_not_revoke_it(site):
    send_all(site)
    reject(site, [1])
    # a router forwards the note, with one attribute coerced
    reject(site, [1], source="ROUTER", InstitutionName="x")
    assert send(site, make_slice(number=1, StudyDescription="y")) is IngestResult.QUARANTINED
    assert read(site) == [2, 3]


def test_an_untrusted_object_under_the_notes_uid_does_not_revoke_it(site):
    send_all(site, [1])
    reject(site, [2])
    note = make_note("113037", [make_slice(number=2)])
    other = make_object(BasicTextSRStorage, 9, 1, SOPInstanceUID=note.SOPInstanceUID)
    send(site, other, "STRANGER")
    assert send(site, make_slice(number=2)) is IngestResult.QUARANTINED


def test_a_released_note_takes_the_images_out_that_are_in_use(site):
    send_all(site)
    reject(site, [3], **B)  # of another patient: quarantined, it does not count
    send_all(site, source="PACS", **B)  # the study is P9's after all
    assert read(site) == [1, 2]  # so the note counts
    reject(site, [2], **B)  # other content under the note's UID replaces it
    assert read(site) == [1]
    send(site, make_slice(number=3, **B))  # what it has rejected stays rejected
    assert read(site) == [1]
    (note,) = [
        row
        for row in quarantine.list_quarantined(site)
        if row.sop_instance_uid == make_note("113037", [make_slice()]).SOPInstanceUID
    ]
    quarantine.release(site, note.id, Participant("op"))
    assert 3 not in read(site)


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_note_of_very_many_instances_counts(site):
    send_all(site)
    rejected = [(UID, f"{UID}.1.{number}") for number in range(1, 10_001)]
    send(site, make_key_objects("113037", rejected), "PACS")
    assert read(site) == []


def test_an_object_under_an_images_uid_does_not_take_the_image_out(site):
    send_all(site)
    with site.database.transaction() as session:
        session.execute(update(Study).values(state=StudyState.ANALYSED))
    stolen = make_slice(number=2).SOPInstanceUID
    send(site, make_object(SecondaryCaptureImageStorage, 1, 1, SOPInstanceUID=stolen), "STRANGER")
    assert read(site) == [1, 2, 3]


def test_an_image_under_an_objects_uid_is_registered(site):
    send_all(site, [1])
    uid = make_slice(number=2).SOPInstanceUID
    send(site, make_object(SecondaryCaptureImageStorage, 1, 1, SOPInstanceUID=uid), "STRANGER")
    assert send(site, make_slice(number=2)) in (IngestResult.NEW, IngestResult.QUARANTINED)


def test_other_studies_of_a_corrected_patient_are_found_by_the_name_they_show(site):
    for study in (1, 2):
        send(site, make_slice(study=study, PatientID="P1", PatientName="Maiden^Ann"))
    send(site, make_slice(study=1, PatientID="P1", PatientName="Married^Ann"))
    correct(site)
    with site.database.reading() as session:
        shown = {
            row.study_instance_uid: row.patient_name
            for row in worklist.worklist(session, Ranking()).rows
        }
        found = worklist.worklist(
            session, Ranking(), only=worklist.StudyFilter(text="Married")
        ).rows
    assert {row.study_instance_uid for row in found} == {
        uid for uid, name in shown.items() if name.startswith("Married")
    }


def test_releasing_the_earlier_copies_does_not_mix_accession_numbers(site):
    send_all(site, AccessionNumber="A1")
    send_all(site, AccessionNumber="A2")
    correct(site)
    old = [r for r in quarantine.list_quarantined(site) if r.accession_number == "A1"]
    with pytest.raises(Permanent):
        quarantine.release(site, old[0].id, Participant("op"))


def test_an_id_of_a_dropped_instance_is_not_used_again(site):
    send_all(site, [1])
    send_all(site, [1], fill=50)
    (seen,) = quarantine.list_quarantined(site)
    quarantine.drop(site, seen.id, Participant("op"))
    send_all(site, [1], fill=60)
    with pytest.raises(NotFound):
        quarantine.drop(site, seen.id, Participant("other operator, on a page opened before"))


def test_a_copy_replaces_one_whose_file_is_missing(site):
    send_all(site)
    with site.database.reading() as session:
        file = session.scalars(
            select(Instance.file).where(Instance.sop_instance_uid == f"{UID}.1.2")
        ).one()
    site.store.path(file).unlink()
    assert send(site, make_slice(number=2, InstitutionName="coerced")) is IngestResult.NEW


def report_of(site, row):
    return dcmread(site.store.path(row.file))


def test_report_and_worklist_state_the_same_values_of_the_study(site, monkeypatch):
    send(site, make_slice(number=1))
    for number in (2, 3):
        send(site, make_slice(number=number, AccessionNumber="A1", StudyDescription="Spine"))
    send(site, make_slice(number=4, ReferringPhysicianName="Ref^Erring", AccessionNumber="A2"))
    (row,) = analyse(site, monkeypatch)
    report, study = report_of(site, row), study_of(site)
    assert (report.AccessionNumber, study.accession_number) == ("A1", "A1")
    assert (report.StudyDescription, study.description) == ("Spine", "Spine")
    assert report.ReferringPhysicianName == "Ref^Erring"
    with site.database.reading() as session:
        (caveat,) = study_queries.how_read(session, study.id).caveats
    assert "accession number: A1 on 2 images counts; A2 on 1" in caveat


def test_the_report_after_a_correction_is_the_new_patients_and_replaces_the_first(
    site, monkeypatch
):
    send_all(site)
    analyse(site, monkeypatch)
    with site.database.transaction() as session:
        delivered(session, claim_delivery(session))
    send_all(site, **B)
    correct(site)
    first, second = analyse(site, monkeypatch)
    report = report_of(site, second)
    assert (report.PatientID, report.PatientName) == ("P9", "Bob^Nine")
    (study,) = report.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (reference,) = series.ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == first.sop_instance_uid
