"""Orthanc and DCMTK correct, reject and send copies; the registrar makes of it what it should."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE

from db import quarantine, studies
from db.context import SiteContext
from db.models import QuarantineReason, StudyState
from db.read_models import study_queries
from db.registrar import Registrar
from scp.receiver import Receiver
from tests.factories.instances import ROOT, make_slice
from tests.factories.objects import make_note
from tests.peers import Orthanc
from tests.pynetdicom_senders import keep_responses

# None of this depends on the kind of database.
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

UID = f"{ROOT}.1"
NUMBERS = (1, 2, 3)


@contextmanager
def receiving(site: SiteContext, **settings: object) -> Iterator[tuple[SiteContext, int]]:
    """A receiver, and the site with the settings by which its registrar works."""
    changed = site.settings.model_copy(update={"port": 0, **settings})
    with Receiver(changed, site.database, site.store) as running:
        yield SiteContext(changed, site.database, site.store), running.port


def register(site: SiteContext) -> None:
    while Registrar(site).register_arrived():
        pass


def saved(folder: Path, *datasets) -> list[Path]:
    folder.mkdir(exist_ok=True)
    files = []
    for number, ds in enumerate(datasets):
        files.append(folder / f"{number}.dcm")
        ds.save_as(files[-1], enforce_file_format=True)
    return files


def storescu(port: int, *files: Path, calling: str = "MR1", syntax: str = "-xe") -> None:
    command = ["storescu", "-R", syntax, "-aec", "LUMBAR", "-aet", calling, "127.0.0.1", str(port)]
    sent = subprocess.run([*command, *files], capture_output=True)
    assert sent.returncode == 0, sent.stderr


def run(*command: object) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True)
    assert done.returncode == 0, done.stderr


def study_of(site: SiteContext):
    with site.database.reading() as session:
        return studies.find(session, UID)


def read(site: SiteContext) -> list[int]:
    """The numbers of the images in use."""
    with site.database.reading() as session:
        rows = studies.images_in_use(session, studies.find(session, UID).id)
    return [int(row.sop_instance_uid.rpartition(".")[2]) for row in rows]


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return saved(tmp_path / "images", *(make_slice(number=number) for number in NUMBERS))


@pytest.mark.parametrize("trusted", [True, False])
def test_a_corrected_study_is_sent_again_by_orthanc(
    site, orthanc: Orthanc, images, trusted
) -> None:
    sources = ("ORTHANC",) if trusted else ()
    with receiving(site, correction_sources=sources) as (there, port):
        storescu(port, *images)
        register(there)
        run("dcmodify", "-nb", "-m", "PatientID=RIGHT", "-m", "PatientName=Right^Rita", *images)
        for file in images:
            orthanc.post("/instances", file.read_bytes())
        (found,) = orthanc.post("/tools/lookup", UID.encode())
        modality = json.dumps(["LUMBAR", "127.0.0.1", port]).encode()
        orthanc.post("/modalities/corrected", modality, method="PUT")
        try:
            orthanc.post("/modalities/corrected/store", found["ID"].encode())
        finally:
            orthanc.delete(found["Path"])
        register(there)
    patient = study_of(site).patient.patient_identifier
    assert patient == ("RIGHT" if trusted else "P1")
    assert read(site) == list(NUMBERS)
    reasons = {row.reason for row in quarantine.list_quarantined(site)}
    assert reasons == {QuarantineReason.REPLACED if trusted else QuarantineReason.CORRECTION}


def test_dcmtk_sends_a_corrected_name_only_spelled_in_another_way(site, images, tmp_path) -> None:
    with receiving(site) as (there, port):
        storescu(port, *images)
        run("dcmodify", "-nb", "-m", "PatientName=TEST^1^^", "-i", "AccessionNumber=A1", *images)
        storescu(port, *images, calling="PACS")
        register(there)
    assert quarantine.list_quarantined(site) == []
    assert study_of(site).accession_number == "A1"


@pytest.mark.parametrize(
    ("program", "syntax"), [("dcmcrle", "-xr"), ("dcmcjpls", "-xt"), ("dcmcjpeg", "-xs")]
)
def test_the_images_compressed_by_dcmtk_are_the_same(
    site, images, tmp_path, program, syntax
) -> None:
    copies = [tmp_path / f"copy{number}.dcm" for number in NUMBERS]
    for image, copy in zip(images, copies, strict=True):
        run(program, image, copy)
    with receiving(site) as (there, port):
        storescu(port, *images)
        register(there)
        storescu(port, *copies, calling="PACS", syntax=syntax)
        register(there)
    assert quarantine.list_quarantined(site) == []
    assert len(list(site.store.path("instances").glob("*/*.dcm"))) == len(NUMBERS)


def test_a_good_copy_sent_after_one_that_was_cut_short_is_read(site, images, tmp_path) -> None:
    with receiving(site) as (there, port):
        ae = AE(ae_title="MR1")
        ae.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
        association = ae.associate("127.0.0.1", port, ae_title="LUMBAR")
        keep_responses(association)
        ds = make_slice(number=1)
        ds.PixelData = ds.PixelData[:-60]
        assert association.send_c_store(ds).Status == 0
        association.release()
        register(there)
        storescu(port, images[0])
        register(there)
    (row,) = quarantine.list_quarantined(site)
    assert row.reason == QuarantineReason.REPAIRED
    assert read(site) == [1]


def test_a_rejection_note_sent_by_dcmtk_counts_from_a_named_source_only(
    site, images, tmp_path
) -> None:
    rejected = [dcmread(images[0]), dcmread(images[1])]
    (note,) = saved(tmp_path / "note", make_note("113001", rejected))
    with receiving(site, rejection_sources=("PACS",)) as (there, port):
        storescu(port, *images)
        storescu(port, note, calling="MR1")
        register(there)
        assert read(site) == list(NUMBERS)
        storescu(port, note, calling="PACS")
        register(there)
        assert read(site) == [3]
        storescu(port, images[0])
        register(there)
    assert read(site) == [3]
    with site.database.reading() as session:
        assert study_queries.other_objects(session, study_of(site).id) == 1
    assert study_of(site).state is StudyState.RECEIVING
