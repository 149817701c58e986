"""Every object has an identity; of other classes than MR images only what is needed is read."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    SegmentationStorage,
)

from lumbar.dicom import instance_identity
from lumbar.dicom.header_scan import BEHIND_UIDS, MAX_DEPTH, MAX_ELEMENTS
from lumbar.dicom.instance_identity import identify, identity_of
from lumbar.dicom.part10 import read_up_to
from lumbar.dicom.rejection_note import RejectionNote
from lumbar.errors import NotDicom
from lumbar.rejection_reason import RejectionReason
from tests.factories.instances import ROOT, make_slice
from tests.factories.objects import evidence, make_key_objects, make_object, other_objects

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
SEQUENCE = b"\x62\0\x02\0SQ\0\0" + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4


def saved(path: Path, ds: Dataset, tail: bytes = b"", syntax: UID = ExplicitVRLittleEndian) -> Path:
    """The data set in a file, followed by other bytes."""
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True)
    with path.open("ab") as file:
        file.write(tail)
    return path


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("ds", other_objects(), ids=lambda ds: ds.SOPClassUID.name)
def test_any_object_has_an_identity(tmp_path: Path, ds: Dataset, syntax: UID) -> None:
    ds.StudyID, ds.ReferringPhysicianName = "17", "Ärztin^A"
    ds.SpecificCharacterSet = "ISO_IR 192"
    identity = identify(saved(tmp_path / "o.dcm", ds, syntax=syntax))
    assert identity.sop_class_uid == ds.SOPClassUID
    assert (identity.study_instance_uid, identity.patient_identifier) == (f"{ROOT}.1", "P1")
    assert (identity.study_id, identity.referring_physician) == ("17", "Ärztin^A")
    assert (identity.slices, identity.role, identity.note) == (0, None, None)


@pytest.mark.parametrize(
    "tail",
    [
        b"\x62\0\x02\0LO\0\0" * (MAX_ELEMENTS + 1),
        SEQUENCE * (20 * MAX_DEPTH),
        b"\x62\0\x02\0OB\0\0\xf0\xff\xff\xff",
    ],
    ids=["many elements", "deeply nested", "cut short"],
)
def test_what_is_behind_the_uids_of_another_object_is_not_read(tmp_path: Path, tail: bytes) -> None:
    path = saved(tmp_path / "o.dcm", make_object(SegmentationStorage), tail)
    assert identify(path).sop_instance_uid == f"{ROOT}.1.90.1"
    assert identify(path).slices == 0


def test_a_whole_header_is_read_if_the_caller_will_read_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "o.dcm", make_object(SegmentationStorage), SEQUENCE * 2000)
    assert identify(path).slices == 0
    with pytest.raises(NotDicom):
        identify(path, whole=True)


@pytest.mark.parametrize("keyword", ["SeriesNumber", "StudyDate", "Manufacturer", "StudyID"])
def test_an_unreadable_value_of_another_object_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keyword: str
) -> None:
    ds = read_up_to_uids(saved(tmp_path / "o.dcm", make_object(SegmentationStorage)))
    monkeypatch.setattr(Dataset, "__getitem__", raising_at(keyword))
    identity = identity_of(ds)
    assert (identity.patient_identifier, identity.slices) == ("P1", 0)
    assert identity.series_number == (None if keyword == "SeriesNumber" else 90)


def read_up_to_uids(path: Path) -> Dataset:
    with path.open("rb") as stream:
        return read_up_to(stream, BEHIND_UIDS)


def raising_at(keyword: str) -> Callable[[Dataset, Any], Any]:
    """Reading that element raises, as it may if its bytes are damaged."""
    original = Dataset.__getitem__

    def get(ds: Dataset, key: Any) -> Any:
        if Tag(key) == Tag(keyword):
            raise ValueError
        return original(ds, key)

    return get


def test_an_object_without_a_readable_patient_has_no_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = read_up_to_uids(saved(tmp_path / "o.dcm", make_object(SegmentationStorage)))
    monkeypatch.setattr(Dataset, "__getitem__", raising_at("PatientID"))
    with pytest.raises(NotDicom):
        identity_of(ds)


def test_identifiers_are_left_empty_rather_than_cut_and_names_are_cut() -> None:
    ds = make_slice()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about illegal values
        ds.StudyID, ds.ReferringPhysicianName = "1" * 17, "A" * 400
    identity = identity_of(ds)
    assert (identity.study_id, identity.referring_physician) == ("", "A" * 320)
    assert (identity.slices, identity.note) == (1, None)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_rejection_note_is_part_of_the_identity(tmp_path: Path, syntax: UID) -> None:
    references = ((f"{ROOT}.1", f"{ROOT}.1.1.1"), (f"{ROOT}.1", f"{ROOT}.1.1.2"))
    path = saved(tmp_path / "k.dcm", make_key_objects("113001", references), syntax=syntax)
    assert identify(path).note == RejectionNote(RejectionReason.QUALITY, references)


def test_only_a_key_object_selection_is_a_rejection_note(tmp_path: Path) -> None:
    ds = make_key_objects("113001", [("1.2", "1.2.3")])
    ds.SOPClassUID = SegmentationStorage
    assert identify(saved(tmp_path / "k.dcm", ds)).note is None


@pytest.mark.parametrize("undefined", [False, True])
def test_a_selection_of_more_than_can_be_read_is_kept_but_rejects_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undefined: bool
) -> None:
    monkeypatch.setattr(instance_identity, "NOTE_BYTES", 2**14)
    references = [f"1.2.{'9' * 50}.{n}" for n in range(200)]
    for count, is_note in ((100, True), (200, False)):
        ds = make_key_objects("113001", [])
        ds.CurrentRequestedProcedureEvidenceSequence = [evidence("1.2", *references[:count])]
        for element in ds.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = undefined
        identity = instance_identity._read(saved(tmp_path / "k.dcm", ds), whole=False)
        assert identity.sop_class_uid == KeyObjectSelectionDocumentStorage
        assert (identity.note is not None) is is_note
        if identity.note:
            assert identity.note.references == tuple(("1.2", uid) for uid in references[:count])


@pytest.mark.slow
def test_a_selection_of_very_many_empty_items_keeps_its_identity(tmp_path: Path) -> None:
    ds = make_key_objects("113001", [])
    del ds.CurrentRequestedProcedureEvidenceSequence
    head = b"\x40\0\x75\xa3SQ\0\0" + b"\xff" * 4
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * (instance_identity.NOTE_BYTES // 8 - 200)
    tail = head + items + b"\xfe\xff\xdd\xe0\0\0\0\0"
    identity = identify(saved(tmp_path / "k.dcm", ds, tail))  # read or not, within the limits
    assert identity.sop_instance_uid == ds.SOPInstanceUID


def test_a_damaged_selection_is_kept_but_rejects_nothing(tmp_path: Path) -> None:
    ds = make_key_objects("113001", [])
    del ds.CurrentRequestedProcedureEvidenceSequence
    nested = b"\x40\0\x75\xa3SQ\0\0" + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4
    assert identify(saved(tmp_path / "k.dcm", ds, nested * 2000)).note is None


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_header_with_too_many_elements_is_refused_where_it_is_read_as_a_whole(
    tmp_path: Path, syntax: UID
) -> None:
    little = {True: b"\x62\0\x02\0" + bytes(4), False: b"\x62\0\x02\0LO\0\0"}
    element = little[syntax.is_implicit_VR] if syntax.is_little_endian else b"\0\x62\0\x02LO\0\0"
    ds = make_slice()
    del ds.PixelData
    path = saved(tmp_path / "large.dcm", ds, element * MAX_ELEMENTS, syntax)

    with pytest.raises(NotDicom, match=f"more than {MAX_ELEMENTS} elements"):
        identify(path, whole=True)
