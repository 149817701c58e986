"""Copies of one image: a readable one replaces a damaged one; the same image is kept once."""

from io import BytesIO

import pytest
from pydicom.uid import RLELossless
from sqlalchemy import select, update

from db import jobs, studies
from db.ingest import Arrival, ingest
from db.models import Instance, QuarantineReason, Study, StudyState
from db.registrar import Registrar
from db.stored_instances import IngestResult
from lumbar.store.arrivals import Announcement, ArrivingInstance
from tests.factories.instances import ROOT, arrival, make_slice


def send(site, dataset, source="MR1"):
    return ingest(site.database, site.store, arrival(dataset, source))


def cut(dataset):
    """The image with its last pixels missing."""
    dataset.PixelData = dataset.PixelData[:-40]
    return dataset


def compressed(dataset) -> Arrival:
    """The image in RLE, as an archive might send it on."""
    dataset.compress(RLELossless, generate_instance_uid=False)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=False, little_endian=True, implicit_vr=False)
    content = buffer.getvalue()
    uid = str(dataset.SOPInstanceUID)
    announced = Announcement(str(RLELossless), str(dataset.SOPClassUID), uid, "PACS")
    return Arrival(BytesIO(content), announced)


def copies(site):
    """Why each copy is not used, in the order of arrival; None for the one in use."""
    with site.database.reading() as session:
        return list(session.scalars(select(Instance.quarantined).order_by(Instance.id)))


def revision(site):
    with site.database.reading() as session:
        return studies.find(session, f"{ROOT}.1").revision


def end(site):
    with site.database.transaction() as session:
        session.execute(update(Study).values(state=StudyState.ANALYSED, ended_at=jobs.db_now(-60)))


def test_a_good_copy_replaces_one_whose_pixels_were_cut_short(site):
    assert send(site, cut(make_slice())) is IngestResult.NEW
    end(site)
    assert send(site, make_slice()) is IngestResult.NEW
    assert copies(site) == [QuarantineReason.REPAIRED, None]
    assert revision(site) == 2


def test_a_damaged_copy_never_replaces_a_good_one(site):
    send(site, make_slice())
    end(site)
    assert send(site, cut(make_slice())) is IngestResult.QUARANTINED
    assert copies(site) == [None, QuarantineReason.UNREADABLE]
    assert revision(site) == 1


def test_of_two_damaged_copies_the_first_is_used_until_a_good_one_comes(site):
    send(site, cut(make_slice()))
    assert send(site, cut(cut(make_slice()))) is IngestResult.QUARANTINED
    assert copies(site) == [None, QuarantineReason.OTHER_CONTENT]
    send(site, make_slice())
    assert copies(site) == [QuarantineReason.REPAIRED, QuarantineReason.OTHER_CONTENT, None]


def test_the_same_image_in_another_transfer_syntax_is_kept_once(site):
    send(site, make_slice())
    end(site)
    assert ingest(site.database, site.store, compressed(make_slice())) is IngestResult.SAME_IMAGE
    assert copies(site) == [None]
    assert revision(site) == 1
    assert len(list(site.store.path("instances").glob("*/*.dcm"))) == 1


def test_other_pixels_under_the_uid_are_another_image(site):
    send(site, make_slice())
    assert send(site, make_slice(fill=99)) is IngestResult.QUARANTINED
    assert copies(site) == [None, QuarantineReason.OTHER_CONTENT]


@pytest.mark.parametrize(
    "moved", [{"ImagePositionPatient": [5, 0, 0]}, {"PixelSpacing": [20, 20]}], ids=str
)
def test_the_same_pixels_at_another_place_are_another_image(site, moved):
    send(site, make_slice())
    assert send(site, make_slice(**moved)) is IngestResult.QUARANTINED


def test_a_copy_takes_the_place_of_one_whose_file_retention_removed(site):
    send(site, make_slice())
    with site.database.transaction() as session:
        session.execute(update(Instance).values(removed_at=jobs.db_now()))
    assert ingest(site.database, site.store, compressed(make_slice())) is IngestResult.NEW
    assert copies(site) == [QuarantineReason.REPLACED, None]


def test_the_same_image_twice_in_one_batch_in_two_encodings_is_kept_once(site):
    for sent in (arrival(make_slice()), compressed(make_slice())):
        with ArrivingInstance(site.store, sent.announced) as arriving:
            arriving.write(sent.dataset.read())
            arriving.arrive()
    Registrar(site).register_arrived()
    assert copies(site) == [None]
