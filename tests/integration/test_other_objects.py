"""Objects that are no MR images are kept with their study, and never have it analysed."""

import pytest
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
)
from sqlalchemy import select, update

from db import deletion, operator_actions, retention, studies
from db.audit import Participant
from db.ingest import ingest
from db.models import Instance, Job, Study, StudyState
from db.read_models import study_queries, worklist
from db.read_models.worklist_rows import Ranking
from db.stored_instances import IngestResult
from lumbar.errors import Permanent
from tests.factories.ages import ended
from tests.factories.instances import ROOT, arrival, make_slice
from tests.factories.objects import make_object, make_secondary_capture

UID = f"{ROOT}.1"
CLASSES = {
    "secondary capture": SecondaryCaptureImageStorage,
    "presentation state": GrayscaleSoftcopyPresentationStateStorage,
    "report": BasicTextSRStorage,
    "document": EncapsulatedPDFStorage,
    "CT image": CTImageStorage,
    "private": "1.3.12.2.1107.5.9.1",
}


def send(site, dataset, source="PACS"):
    return ingest(site.database, site.store, arrival(dataset, source))


def study_of(site):
    with site.database.reading() as session:
        return studies.find(session, UID)


def listed(site):
    with site.database.reading() as session:
        return [row.images for row in worklist.worklist(session, Ranking()).rows]


def end(site, days=0, *, read=True):
    with site.database.transaction() as session:
        session.execute(update(Study).values(ended(days, read=read)))


@pytest.mark.parametrize("sop_class", CLASSES.values(), ids=list(CLASSES))
def test_an_object_of_another_class_is_kept_and_not_read(site, sop_class):
    send(site, make_slice())
    end(site, read=False)
    assert send(site, make_object(sop_class)) is IngestResult.NEW
    study = study_of(site)
    assert (study.state, study.revision) == (StudyState.ANALYSED, 1)
    with site.database.reading() as session:
        rows = session.scalars(select(Instance).order_by(Instance.id)).all()
        assert [row.is_image for row in rows] == [True, False]
        assert len(studies.images_in_use(session, study.id)) == 1
        assert study_queries.other_objects(session, study.id) == 1
    assert all(site.store.path(row.file).exists() for row in rows)
    assert listed(site) == [1]


def test_a_study_of_other_objects_alone_is_on_no_worklist_and_never_analysed(site):
    send(site, make_secondary_capture())
    assert study_of(site).state is StudyState.NO_IMAGES
    assert listed(site) == []
    with site.database.transaction() as session:
        assert not studies.complete(session, study_of(site).id)
        assert session.scalars(select(Job)).all() == []
        with pytest.raises(Permanent, match="it has no MR images"):
            operator_actions.complete(session, UID, Participant("operator"), ())


def test_images_that_follow_make_it_a_study_to_read(site):
    send(site, make_secondary_capture())
    send(site, make_slice())
    study = study_of(site)
    assert (study.state, study.revision, study.reason) == (StudyState.RECEIVING, 1, None)
    assert listed(site) == [1]


def test_an_object_sent_again_changes_nothing_and_another_version_replaces_it(site):
    send(site, make_slice())
    send(site, make_secondary_capture())
    assert send(site, make_secondary_capture()) is IngestResult.DUPLICATE
    assert (
        send(site, make_object(SecondaryCaptureImageStorage, StudyDescription="other"))
        is IngestResult.NEW
    )
    with site.database.reading() as session:
        assert study_queries.other_objects(session, study_of(site).id) == 1
    assert study_of(site).state is StudyState.RECEIVING


def test_an_object_of_another_patient_does_not_decide_whose_study_it_is(site):
    send(
        site, make_object(SecondaryCaptureImageStorage, PatientID="WRONG", PatientName="Wrong^One")
    )
    assert study_of(site).patient.patient_identifier == "WRONG"
    send(site, make_slice())
    study = study_of(site)
    assert (study.patient.patient_identifier, study.patient.name) == ("P1", "Test^1")
    with site.database.reading() as session:
        assert study_queries.other_objects(session, study.id) == 0
        assert sum(study_queries.quarantined(session, study.id).values()) == 1


def test_retention_and_deletion_take_the_other_objects_along(site):
    send(site, make_slice())
    send(site, make_secondary_capture())
    end(site, days=400)
    assert retention.remove_images(site) == 1
    assert list(site.store.path("instances").glob("*/*.dcm")) == []
    send(site, make_slice())
    send(site, make_secondary_capture())
    deletion.delete_study(site, UID, "a test", Participant("admin"))
    assert list(site.store.path("instances").glob("*/*.dcm")) == []


def test_an_object_that_arrives_long_after_the_analysis_is_kept_as_long_as_any(site):
    send(site, make_slice())
    end(site, days=400)
    assert retention.remove_images(site) == 1
    send(site, make_secondary_capture())
    assert retention.remove_images(site) == 0
    with site.database.transaction() as session:
        session.execute(update(Study).values(ended(400)))
    assert retention.remove_images(site) == 1
    assert list(site.store.path("instances").glob("*/*.dcm")) == []


def test_a_study_of_other_objects_alone_is_removed_by_retention(site):
    send(site, make_secondary_capture())
    with site.database.transaction() as session:
        session.execute(update(Study).values(ended(400, StudyState.NO_IMAGES, read=False)))
    assert retention.remove_images(site) == 1
