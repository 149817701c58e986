"""The receiver with real senders: who may send, what is stored, and the status of each failure."""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset, Sequence, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGExtended12Bit,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE, AllStoragePresentationContexts

from db import audit, studies
from db.registrar import Registrar
from lumbar.dicom import header_scan
from lumbar.peers import DimseDestination
from lumbar.peers.dimse import send_files
from lumbar.settings import Settings
from lumbar.store.arrivals import ArrivingInstance
from lumbar.store.files import StoreFull
from scp.receiver import Receiver
from scp.sop_classes import RETIRED_CLASSES
from tests.factories.instances import ROOT, make_slice
from tests.factories.objects import make_object
from tests.pynetdicom_senders import keep_responses

CSA_NON_IMAGE = "1.3.12.2.1107.5.9.1"  # Siemens
HANGING_PROTOCOL, MODALITY_WORKLIST = "1.2.840.10008.5.1.4.38.1", "1.2.840.10008.5.1.4.31"


@contextmanager
def listening(site, **settings):
    with Receiver(
        Settings(home=site.settings.home, port=0, **settings), site.database, site.store
    ) as running:
        yield running


@pytest.fixture
def running(site):
    with listening(site) as started:
        yield started


@contextmanager
def association(port, *classes, called="LUMBAR", calling="TESTMR"):
    ae = AE(ae_title=calling)
    for storage_class in classes or (MRImageStorage,):
        ae.add_requested_context(storage_class)
    assoc = ae.associate("127.0.0.1", port, ae_title=called)
    keep_responses(assoc)
    yield assoc
    if assoc.is_established:
        assoc.release()


def echo(port, *options):
    return subprocess.run(
        ["echoscu", *options, "127.0.0.1", str(port)], capture_output=True
    ).returncode


def stored(site, study=f"{ROOT}.1"):
    while Registrar(site).register_arrived():
        pass
    with site.database.reading() as session:
        return studies.images_in_use(session, studies.find(session, study).id)


def test_c_echo_is_answered_for_its_own_ae_title_only(running):
    assert echo(running.port, "-aec", "LUMBAR") == 0
    assert echo(running.port, "-aec", "ANOTHER") != 0


def test_with_known_ae_titles_no_other_may_send(site):
    with listening(site, known_aes=("MR1",)) as running:
        assert echo(running.port, "-aec", "LUMBAR", "-aet", "MR1") == 0
        assert echo(running.port, "-aec", "LUMBAR", "-aet", "MR2") != 0


def accepted(port, *contexts):
    """The accepted of the proposed (class, transfer syntax)."""
    ae = AE(ae_title="TESTMR")
    for storage_class, syntax in contexts:
        ae.add_requested_context(storage_class, syntax)
    assoc = ae.associate("127.0.0.1", port, ae_title="LUMBAR")
    keep_responses(assoc)
    assoc.release()
    return {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in assoc.accepted_contexts}


def test_every_class_of_a_study_is_accepted(running):
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    proposed = {(each, ExplicitVRLittleEndian) for each in (*classes, *RETIRED_CLASSES)}
    found = set()
    for start in range(0, len(proposed), 128):
        found |= accepted(running.port, *sorted(proposed)[start : start + 128])
    assert found == proposed


def test_an_mr_image_is_accepted_only_if_it_can_be_decoded(running):
    proposed = [
        (storage_class, syntax)
        for storage_class in (MRImageStorage, SecondaryCaptureImageStorage)
        for syntax in (
            JPEG2000,
            JPEGExtended12Bit,
            HTJ2K,
            MPEG4HP41,
            DeflatedExplicitVRLittleEndian,
        )
    ]
    assert accepted(running.port, *proposed) == {
        (MRImageStorage, JPEG2000),
        *((SecondaryCaptureImageStorage, each) for each in proposed_syntaxes(proposed)[:4]),
    }


def proposed_syntaxes(proposed):
    return list(dict.fromkeys(syntax for _, syntax in proposed))


def test_private_classes_and_objects_outside_of_studies_are_not_accepted(running):
    proposed = [
        (each, ExplicitVRLittleEndian)
        for each in (CSA_NON_IMAGE, HANGING_PROTOCOL, MRImageStorage, MODALITY_WORKLIST)
    ]
    found = accepted(running.port, *proposed)
    assert found == {(MRImageStorage, ExplicitVRLittleEndian)}


def test_a_private_class_is_accepted_if_a_setting_names_it(site):
    with listening(site, extra_sop_classes=(CSA_NON_IMAGE,)) as running:
        proposed = {(CSA_NON_IMAGE, ExplicitVRLittleEndian)}
        assert accepted(running.port, *proposed) == proposed
        with association(running.port, CSA_NON_IMAGE) as assoc:
            assert assoc.send_c_store(make_object(CSA_NON_IMAGE)).Status == 0x0000


@pytest.mark.parametrize(
    ("ds", "status"), [(make_slice(), 0xC000), (make_object(SegmentationStorage), 0x0000)]
)
def test_what_is_behind_the_uids_is_checked_in_mr_images_only(
    site, running, monkeypatch, ds, status
):
    monkeypatch.setattr(header_scan, "MAX_ELEMENTS", 150)
    block = ds.private_block(0x0021, "LUMBAR TEST", create=True)
    item = Dataset()
    for number in range(3):
        item.add_new(0x00211000 + number, "US", number)
    block.add_new(1, "SQ", Sequence([item] * 50))
    block[1].is_undefined_length = True
    item.is_undefined_length_sequence_item = True
    with association(running.port, ds.SOPClassUID) as assoc:
        assert assoc.send_c_store(ds).Status == status
    durable = {dcmread(file).SOPInstanceUID for file in site.store.root.rglob("*.dcm")}
    assert durable == ({ds.SOPInstanceUID} if status == 0x0000 else set())


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
    ],
)
def test_every_common_transfer_syntax_is_stored_as_it_was_sent(site, running, name):
    file = get_testdata_file(name)
    assert file is not None
    original = dcmread(file)
    destination = DimseDestination("receiver", "127.0.0.1", running.port, "LUMBAR")
    assert send_files(destination, [Path(file)]) == []
    (instance,) = stored(site, original.StudyInstanceUID)
    stored_dataset = dcmread(site.store.path(instance.file))
    assert (
        instance.transfer_syntax_uid
        == original.file_meta.TransferSyntaxUID
        == stored_dataset.file_meta.TransferSyntaxUID
    )
    assert stored_dataset.PixelData == original.PixelData


@pytest.mark.parametrize("at", ["__init__", "write", "arrive"])
@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (StoreFull("full"), 0xA700),
        (OSError(24, "Too many open files"), 0xA700),
        (ZeroDivisionError("a fault of ours"), 0x0110),
    ],
)
def test_each_failure_is_answered_with_its_status(running, monkeypatch, failure, status, at):
    def fail(*arguments):
        raise failure

    monkeypatch.setattr(ArrivingInstance, at, fail)
    with association(running.port) as assoc:
        assert assoc.send_c_store(make_slice()).Status == status


def test_a_header_that_contradicts_the_command_is_a900(site, running, monkeypatch):
    announced = make_slice()
    with association(running.port) as assoc:
        monkeypatch.setattr("pynetdicom.association.encode", _encoded_as(make_slice(number=2)))
        assert assoc.send_c_store(announced).Status == 0xA900
    assert not list(site.store.root.rglob("*.dcm"))


def test_a_dataset_that_names_no_study_is_c000(site, running):
    unidentified = make_slice()
    del unidentified.StudyInstanceUID
    with association(running.port) as assoc:
        assert assoc.send_c_store(unidentified).Status == 0xC000
        assert assoc.send_c_store(make_slice()).Status == 0x0000
    assert len(stored(site)) == 1


def test_a_repeated_image_is_success_and_no_second_row(site, running):
    with association(running.port) as assoc:
        assert [assoc.send_c_store(make_slice()).Status for _ in range(2)] == [0, 0]
    assert len(stored(site)) == 1


def _encoded_as(other):
    from pynetdicom.dsutils import encode

    return lambda ds, *arguments, **options: encode(other, *arguments, **options)


def test_what_a_sender_causes_later_is_audited_with_its_address(site, running):
    """Only registration finds out that an image contradicts its study."""
    with association(running.port) as assoc:
        for patient in ("A", "B"):
            assert assoc.send_c_store(make_slice(PatientID=patient)).Status == 0
    while Registrar(site).register_arrived():
        pass
    with site.database.reading() as session:
        lines = [line for _, line in audit.lines_after(session, 0, 10)]
    assert [(line.event, line.actor, line.address) for line in lines] == [
        ("instance.quarantined", "AE:TESTMR", "127.0.0.1")
    ]
