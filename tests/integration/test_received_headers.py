"""What scanners write into headers, from the receiver's door to study, slices and report."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from db import studies
from db.ingest import Arrival, ingest
from db.reconcile import reconcile
from db.registrar import Registrar
from lumbar.dicom.discover import find_instances
from lumbar.dicom.pixels import read_slice
from lumbar.errors import NotDicom
from lumbar.reports.sources import copy_patient_and_study
from tests.factories.instances import ROOT, arrival, make_slice

LITTLE, IMPLICIT, BIG = ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian


def receive(site, ds: Dataset, syntax: UID = LITTLE, found: UID | None = None, start: bytes = b""):
    """Ingests a data set that may be encoded otherwise than ``syntax``; returns its stored file."""
    buffer = DicomBytesIO()
    encoding = found or syntax
    buffer.is_implicit_VR = encoding.is_implicit_VR
    buffer.is_little_endian = encoding.is_little_endian
    write_dataset(buffer, ds)
    content = BytesIO(start + buffer.getvalue())
    announced = replace(arrival(make_slice()).announced, transfer_syntax_uid=str(syntax))
    ingest(site.database, site.store, Arrival(content, announced))
    with site.database.reading() as session:
        (instance,) = studies.images_in_use(session, study_of(site).id)
    return site.store.path(instance.file)


def study_of(site):
    with site.database.reading() as session:
        study = studies.find(session, f"{ROOT}.1")
        assert study.patient.name is not None  # loaded before the session ends
        return study


def report_header(path, scratch) -> Dataset:
    """Patient and study as a report of the stored file states them."""
    ((instance,), _) = find_instances(path, scratch)
    document = Dataset()
    document.SpecificCharacterSet = "ISO_IR 192"
    copy_patient_and_study(document, instance.header)
    return document


def raw(ds: Dataset, keyword: str, value: bytes) -> None:
    """Sets the bytes of a text, which are written as they are."""
    tag = Tag(keyword)
    value = value.ljust(len(value) + len(value) % 2)
    ds[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)


def test_an_identifier_with_a_backslash_is_the_same_on_the_worklist_and_in_the_report(
    site, tmp_path
):
    path = receive(site, make_slice(PatientID="12\\345", AccessionNumber="A\\7"))
    study = study_of(site)
    assert (study.patient.patient_identifier, study.accession_number) == ("12\\345", "A\\7")
    assert list(report_header(path, tmp_path).PatientID) == ["12", "345"]


@pytest.mark.parametrize("syntax", [LITTLE, IMPLICIT])
@pytest.mark.parametrize("declared", [None, b"UTF_8?"])
def test_an_undeclared_utf8_name_is_right_everywhere(site, tmp_path, syntax, declared):
    ds = make_slice()
    raw(ds, "PatientName", "Šimůnek^Žofie".encode())
    if declared:
        raw(ds, "SpecificCharacterSet", declared)
    path = receive(site, ds, syntax)
    assert study_of(site).patient.name == "Šimůnek^Žofie"
    assert str(report_header(path, tmp_path).PatientName) == "Šimůnek^Žofie"


def test_old_dates_and_times_are_normalised(site, tmp_path):
    ds = make_slice()
    raw(ds, "StudyDate", b"2026.11.16")
    raw(ds, "StudyTime", b"10:20:30")
    raw(ds, "PatientBirthDate", b"1970.01.02")
    document = report_header(receive(site, ds), tmp_path)
    study = study_of(site)
    assert (study.study_date, study.study_time, study.patient.birth_date) == (
        "20261116",
        "102030",
        "19700102",
    )
    assert (document.StudyDate, document.StudyTime) == ("20261116", "102030")


@pytest.mark.filterwarnings("ignore:.*The value length")
def test_identifiers_too_long_for_their_columns_never_become_another_patients(site):
    long = "9" * 64
    for number, tail in ((1, "1"), (2, "2")):
        ds = make_slice(study=number, PatientName=f"Patient{number}")
        raw(ds, "PatientID", (long + tail).encode())
        ingest(site.database, site.store, arrival(ds))
    with site.database.reading() as session:
        names = {studies.find(session, f"{ROOT}.{n}").patient.name for n in (1, 2)}
    assert names == {"Patient1", "Patient2"}


@pytest.mark.parametrize(("stated", "found"), [(LITTLE, IMPLICIT), (IMPLICIT, LITTLE)])
def test_vrs_other_than_negotiated_are_read(site, tmp_path, stated, found):
    path = receive(site, make_slice(), stated, found)
    assert_slice_is_read(path, tmp_path)


@pytest.mark.parametrize(("stated", "found"), [(LITTLE, BIG), (IMPLICIT, BIG), (BIG, LITTLE)])
def test_another_byte_order_than_negotiated_is_refused_at_the_door(site, stated, found):
    with pytest.raises(NotDicom, match="byte order of its transfer syntax"):
        receive(site, make_slice(), stated, found)
    assert not list(site.store.root.rglob("*.dcm"))


@pytest.mark.parametrize("inner", [LITTLE, IMPLICIT, BIG, RLELossless])
@pytest.mark.parametrize("syntax", [LITTLE, IMPLICIT])
def test_file_meta_information_in_the_data_set_does_not_replace_our_own(
    site, tmp_path, syntax, inner
):
    uid = inner.encode() + b"\0" * (len(inner) % 2)
    start = b"\2\0\x10\0UI" + len(uid).to_bytes(2, "little") + uid + b"\2\0\x16\0AE\2\0XX"
    path = receive(site, make_slice(), syntax, start=start)
    assert_slice_is_read(path, tmp_path)
    with site.database.transaction() as session:
        (instance,) = studies.images_in_use(session, study_of(site).id)
        session.delete(instance)
    assert reconcile(site).adopted == 1
    assert Registrar(site).register_arrived() == 1
    with site.database.reading() as session:
        (adopted,) = studies.images_in_use(session, study_of(site).id)
    assert (adopted.transfer_syntax_uid, adopted.source) == (syntax, "MR1")


def assert_slice_is_read(path, scratch):
    ((instance,), rejected) = find_instances(path, scratch)
    assert not rejected
    assert (instance.slices[0].repetition_time, instance.slices[0].echo_time) == (3500, 100)
    np.testing.assert_array_equal(read_slice(path, None), np.full((8, 8), 1))
