"""Objects of other classes never harm the images that they are sent along with."""

import pytest
from pydicom.uid import BasicTextSRStorage, SecondaryCaptureImageStorage
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from sqlalchemy import update

from db import deletion, retention, studies
from db.audit import Participant
from db.ingest import ingest
from db.models import QuarantineReason, Study, StudyState
from db.read_models import study_queries
from db.stored_instances import IngestResult
from lumbar.errors import Permanent
from lumbar.settings import Settings
from scp.receiver import Receiver
from tests.factories.ages import ended
from tests.factories.instances import ROOT, arrival, make_slice
from tests.factories.objects import make_object, make_secondary_capture
from tests.pynetdicom_senders import keep_responses

UID = f"{ROOT}.1"


def send(site, dataset, source="PACS"):
    return ingest(site.database, site.store, arrival(dataset, source))


def end(site, days=0, *, read=True):
    with site.database.transaction() as session:
        session.execute(update(Study).values(ended(days, read=read)))


def colliding():
    """A secondary capture under the SOP Instance UID of an image of the study."""
    uid = str(make_slice().SOPInstanceUID)
    return make_object(SecondaryCaptureImageStorage, SOPInstanceUID=uid)


def test_an_object_does_not_displace_the_image_with_its_uid(site):
    send(site, make_slice())
    end(site)
    send(site, colliding(), source="ANYBODY")
    with site.database.reading() as session:
        study = studies.find(session, UID)
        assert [row.sop_instance_uid for row in studies.images_in_use(session, study.id)] == [
            make_slice().SOPInstanceUID
        ]
        reasons = study_queries.quarantined(session, study.id)
    assert reasons == {QuarantineReason.OTHER_CONTENT: 1}


def test_an_image_with_the_uid_of_an_object_is_registered(site):
    send(site, colliding())
    assert send(site, make_slice()) in (IngestResult.NEW, IngestResult.QUARANTINED)


def test_an_object_after_retention_does_not_make_the_images_available_again(site):
    send(site, make_slice())
    end(site, days=400)
    assert retention.remove_images(site) == 1
    send(site, make_object(BasicTextSRStorage))
    with site.database.transaction() as session, pytest.raises(Permanent):
        studies.requeue(session, studies.find(session, UID).id)


def test_an_object_never_starts_an_analysis_where_a_patient_had_another_study(site):
    send(site, make_slice(1))
    send(site, make_slice(2, PatientID="P1", PatientName="Other^Spelling"))
    end(site)
    deletion.delete_study(site, UID, "a test", Participant("admin"))
    send(site, make_object(BasicTextSRStorage, 5, 2, PatientID="P1"))
    with site.database.reading() as session:
        study = studies.find(session, f"{ROOT}.2")
        assert (study.state, study.revision) == (StudyState.ANALYSED, 1)


def test_an_object_with_a_large_private_element_before_its_uids_is_registered(site):
    ds = make_object(BasicTextSRStorage)
    ds.private_block(0x0009, "VENDOR", create=True).add_new(1, "OB", bytes(300 * 2**20))
    assert send(site, ds) is IngestResult.NEW


def test_verification_is_no_storage_class(site):
    with Receiver(Settings(home=site.settings.home, port=0), site.database, site.store) as receiver:
        ae = AE("SCU")
        ae.add_requested_context(Verification, "1.2.840.10008.1.2.1")
        association = ae.associate("127.0.0.1", receiver.port, ae_title="LUMBAR")
        keep_responses(association)
        status = association.send_c_store(make_object(str(Verification)))
        association.release()
    assert status.Status == 0x0122


def test_an_object_too_large_does_not_stop_the_rest_of_the_study(site):
    settings = Settings(home=site.settings.home, port=0, maximum_instance_mib=1)
    with Receiver(settings, site.database, site.store) as receiver:
        ae = AE("SCU")
        ae.add_requested_context(SecondaryCaptureImageStorage, "1.2.840.10008.1.2.1")
        association = ae.associate("127.0.0.1", receiver.port, ae_title="LUMBAR")
        keep_responses(association)
        large = make_secondary_capture()
        large.PixelData = bytes(2 * 2**20)
        assert association.send_c_store(large).Status == 0xA700
        assert association.is_established
        assert association.send_c_store(make_secondary_capture(2)).Status == 0
        association.release()


def test_a_replaced_version_of_an_object_is_no_caution_about_images(site):
    send(site, make_slice())
    send(site, make_secondary_capture())
    send(site, make_object(SecondaryCaptureImageStorage, StudyDescription="second version"))
    with site.database.reading() as session:
        study = studies.find(session, UID)
        assert not study_queries.quarantined(session, study.id)


def test_padding_in_a_list_of_known_ae_titles_shuts_nobody_out():
    assert Settings(known_aes=["MR1 ", " PACS"]).known_aes == ("MR1", "PACS")  # as in lumbar.toml
