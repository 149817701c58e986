"""An instance acknowledged is durable and registered; a contradicting one is quarantined."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from threading import Barrier, BrokenBarrierError

import pytest
from pydicom import dcmread
from sqlalchemy import func, select

from db import instance_rows, studies
from db.ingest import ingest
from db.models import AuditEvent, Instance, Job, JobState, Patient, Study, StudyState
from db.stored_instances import IngestResult
from lumbar.errors import NotDicom
from lumbar.store.arrivals import HeaderDisagrees
from lumbar.store.files import Store, StoreFull
from tests.factories.instances import ROOT, arrival, make_slice


def study_of(site, number=1):
    with site.database.reading() as session:
        return studies.find(session, f"{ROOT}.{number}")


def count(site, table):
    with site.database.reading() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_the_stored_file_is_the_dataset_as_it_was_sent(site):
    sent = arrival(make_slice())
    assert ingest(site.database, site.store, sent) is IngestResult.NEW
    with site.database.reading() as session:
        (instance,) = studies.images_in_use(session, study_of(site).id)
    stored = site.store.path(instance.file)
    sent.dataset.seek(0)
    assert stored.read_bytes().endswith(sent.dataset.read())
    uid = sent.announced.sop_instance_uid
    assert dcmread(stored).SOPInstanceUID == uid
    assert uid not in str(instance.file)
    assert instance.role == "sagittal_t2"


def test_the_same_bytes_again_change_nothing(site):
    ingest(site.database, site.store, arrival(make_slice()))
    before = study_of(site)
    assert ingest(site.database, site.store, arrival(make_slice())) is IngestResult.DUPLICATE
    after = study_of(site)
    assert (after.revision, after.last_received_at) == (before.revision, before.last_received_at)
    assert count(site, Instance) == 1


def test_other_bytes_under_the_same_uid_are_quarantined_and_audited(site):
    ingest(site.database, site.store, arrival(make_slice()))
    assert (
        ingest(site.database, site.store, arrival(make_slice(fill=99))) is IngestResult.QUARANTINED
    )
    with site.database.reading() as session:
        assert len(studies.images_in_use(session, study_of(site).id)) == 1
        files = session.scalars(select(Instance.file)).all()
        assert [event.event for event in session.scalars(select(AuditEvent))] == [
            "instance.quarantined"
        ]
    assert len(files) == 2
    assert all(site.store.path(file).exists() for file in files)


def test_an_image_of_another_patient_never_joins_a_study(site):
    ingest(site.database, site.store, arrival(make_slice()))
    assert (
        ingest(site.database, site.store, arrival(make_slice(number=2, PatientID="OTHER")))
        is IngestResult.QUARANTINED
    )
    with site.database.reading() as session:
        assert len(studies.images_in_use(session, study_of(site).id)) == 1


def test_one_patient_number_from_two_sites_is_two_patients(site):
    ingest(site.database, site.store, arrival(make_slice(study=1, PatientID="7"), source="SITE_A"))
    ingest(site.database, site.store, arrival(make_slice(study=2, PatientID="7"), source="SITE_B"))
    assert count(site, Patient) == 2


def test_patients_without_a_number_are_never_treated_as_one(site):
    for study, name in ((1, "First"), (2, "Second")):
        ingest(
            site.database,
            site.store,
            arrival(make_slice(study=study, PatientID="", PatientName=name)),
        )
    assert (study_of(site, 1).patient.name, study_of(site, 2).patient.name) == ("First", "Second")
    other = make_slice(study=1, number=2, PatientID="", PatientName="Third")
    assert ingest(site.database, site.store, arrival(other)) is IngestResult.QUARANTINED


def test_a_stat_order_that_arrives_with_a_later_image_counts(site):
    ingest(site.database, site.store, arrival(make_slice(number=1)))
    ingest(
        site.database, site.store, arrival(make_slice(number=2, RequestedProcedurePriority="STAT"))
    )
    ingest(site.database, site.store, arrival(make_slice(number=3)))
    assert study_of(site).stat


def test_an_image_whose_number_is_too_long_for_its_column_is_ingested(site):
    assert (
        ingest(site.database, site.store, arrival(make_slice(SeriesNumber="99999999999")))
        is IngestResult.NEW
    )


def test_of_one_uid_in_two_studies_at_once_one_is_used_and_the_other_quarantined(site, monkeypatch):
    both_have_looked, look = Barrier(2), instance_rows._StudyBatch._decide

    def look_together(*arguments):
        decision = look(*arguments)
        with suppress(
            BrokenBarrierError
        ):  # where one writer waits for the other, as on SQLite, the barrier is never reached
            both_have_looked.wait(0.5)
        return decision

    monkeypatch.setattr(instance_rows._StudyBatch, "_decide", look_together)
    first, second = (
        make_slice(study=1),
        make_slice(study=2, SOPInstanceUID=make_slice(study=1).SOPInstanceUID),
    )
    sent = [arrival(first), arrival(second)]
    with ThreadPoolExecutor(2) as senders:
        results = sorted(
            senders.map(lambda dataset: ingest(site.database, site.store, dataset), sent)
        )
    assert results == [IngestResult.NEW, IngestResult.QUARANTINED]


def test_a_study_from_two_senders_stays_one_study(site):
    ingest(site.database, site.store, arrival(make_slice(number=1), source="MR1"))
    assert (
        ingest(site.database, site.store, arrival(make_slice(number=2), source="PACS"))
        is IngestResult.NEW
    )
    assert (count(site, Study), count(site, Patient)) == (1, 1)


def test_a_late_instance_opens_the_next_revision_and_supersedes_the_job(site):
    ingest(site.database, site.store, arrival(make_slice()))
    with site.database.transaction() as session:
        assert studies.complete(session, study_of(site).id)
    ingest(site.database, site.store, arrival(make_slice(number=2)))
    study = study_of(site)
    assert (study.state, study.revision) == (StudyState.RECEIVING, 2)
    with site.database.transaction() as session:
        assert studies.complete(session, study.id)
        jobs = session.execute(select(Job.revision, Job.state).order_by(Job.revision)).all()
    assert jobs == [(1, JobState.CANCELLED), (2, JobState.PENDING)]


@pytest.mark.parametrize("uid", ["", "../../etc/passwd", "1.2\n3", "1." + "2" * 64, "abc", "1..2"])
def test_an_invalid_uid_is_refused_and_nothing_is_stored(site, uid):
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        ds = make_slice()
        ds[keyword]._value = uid  # past pydicom's own checks, as a hostile sender would
        sent = arrival(ds)
        with pytest.raises(NotDicom):
            ingest(site.database, site.store, sent)
    assert count(site, Study) == 0
    assert not list(site.store.root.rglob("*.dcm"))


def test_a_dataset_that_is_not_the_one_announced_is_refused(site):
    sent = arrival(make_slice())
    other = replace(sent.announced, sop_instance_uid=f"{ROOT}.5")
    with pytest.raises(HeaderDisagrees):
        ingest(site.database, site.store, replace(sent, announced=other))


def test_bytes_that_are_not_a_dataset_are_refused(site):
    junk = replace(arrival(make_slice()), dataset=BytesIO(b"\xff" * 400))
    with pytest.raises(NotDicom):
        ingest(site.database, site.store, junk)


def test_many_concurrent_associations_lose_and_duplicate_nothing(site):
    sent = [arrival(make_slice(study=1 + n % 2, number=n % 40)) for n in range(80)]
    with ThreadPoolExecutor(8) as senders:
        results = list(
            senders.map(lambda dataset: ingest(site.database, site.store, dataset), sent)
        )
    assert results.count(IngestResult.NEW) == 40
    assert results.count(IngestResult.DUPLICATE) == 40
    assert (count(site, Instance), count(site, Study), count(site, Patient)) == (40, 2, 2)


def test_a_full_disk_is_reported_and_leaves_no_partial_file(site, tmp_path, monkeypatch):
    def no_space(descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(28, "No space left on device")

    store = Store(tmp_path / "full").create()
    monkeypatch.setattr("lumbar.store.files.os.fsync", no_space)
    with pytest.raises(StoreFull, match="No space left"):
        store.put("instances", "ab" * 32, b"content")
    left = {path.name for path in (tmp_path / "full").rglob("*") if path.is_file()}
    assert left == {"lumbar-store", "owner"}


def test_a_study_has_its_date_and_time_of_day(site):
    ds = make_slice(StudyDate="20261116", StudyTime="091500.25")
    ingest(site.database, site.store, arrival(ds))
    with site.database.reading() as session:
        study = session.scalars(select(Study)).one()
    assert (study.study_date, study.study_time) == ("20261116", "091500.25")
