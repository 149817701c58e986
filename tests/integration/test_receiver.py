"""The receiver with real senders: who may send, what is stored, and the status of each failure."""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)
from pynetdicom import AE

from db import studies
from db.registrar import Registrar
from lumbar.peers import DimseDestination
from lumbar.peers.dimse import send_files
from lumbar.settings import Settings
from lumbar.store.arrivals import ArrivingInstance
from lumbar.store.files import StoreFull
from scp.receiver import Receiver
from tests.factories.instances import ROOT, make_slice


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
        return studies.instances_in_use(session, studies.find(session, study).id)


def test_c_echo_is_answered_for_its_own_ae_title_only(running):
    assert echo(running.port, "-aec", "LUMBAR") == 0
    assert echo(running.port, "-aec", "ANOTHER") != 0


def test_with_known_ae_titles_no_other_may_send(site):
    with listening(site, known_aes=("MR1",)) as running:
        assert echo(running.port, "-aec", "LUMBAR", "-aet", "MR1") == 0
        assert echo(running.port, "-aec", "LUMBAR", "-aet", "MR2") != 0


def test_only_mr_images_are_accepted(running):
    images = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
    with association(running.port, *images, CTImageStorage) as assoc:
        assert {context.abstract_syntax for context in assoc.accepted_contexts} == set(images)


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
