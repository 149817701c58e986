"""Rejection notes are told from other selections, and what they reject is read."""

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict

import pytest
from pydicom import Dataset

from lumbar.dicom.rejection_note import RejectionNote, rejection_note_of
from lumbar.rejection_reason import RejectionReason
from tests.factories.objects import coded, evidence, make_key_objects, referenced

REFERENCES = (("1.2.3", "1.2.3.4"), ("1.2.3", "1.2.3.5"), ("1.9", "1.9.1"))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("113001", RejectionReason.QUALITY),
        ("113037", RejectionReason.PATIENT_SAFETY),
        ("113038", RejectionReason.WORKLIST_ENTRY),
        ("113039", RejectionReason.RETENTION),
    ],
)
@pytest.mark.parametrize("scheme", ["DCM", " dcm "])
def test_a_title_of_imaging_object_change_management_is_a_rejection(
    code: str, reason: RejectionReason, scheme: str
) -> None:
    note = rejection_note_of(make_key_objects(code, REFERENCES, scheme=scheme))
    assert note == RejectionNote(reason, REFERENCES)


@pytest.mark.parametrize(
    ("code", "scheme"),
    [("113000", "DCM"), ("113001", "99LOCAL"), ("113001", ""), ("", "DCM"), ("1130010", "DCM")],
)
def test_a_selection_with_another_title_rejects_nothing(code: str, scheme: str) -> None:
    assert rejection_note_of(make_key_objects(code, REFERENCES, scheme=scheme)) is None


def without_title(ds: Dataset) -> None:
    del ds.ConceptNameCodeSequence


def with_an_empty_title(ds: Dataset) -> None:
    ds.ConceptNameCodeSequence = []


def with_a_text_as_title(ds: Dataset) -> None:
    ds.add_new(0x0040A043, "LO", "113001")


@pytest.mark.parametrize("change", [without_title, with_an_empty_title, with_a_text_as_title])
def test_a_selection_without_a_readable_title_rejects_nothing(
    change: Callable[[Dataset], None],
) -> None:
    ds = make_key_objects("113001", REFERENCES)
    change(ds)
    assert rejection_note_of(ds) is None


def test_one_reference_is_stated_once_and_an_invalid_one_not_at_all() -> None:
    ds = make_key_objects("113037", [("1.2.3", "1.2.3.4")])
    without_series, without_study, text = (
        evidence("1.2.3"),
        evidence("1.2", "1.5"),
        evidence("1.2.3"),
    )
    del without_series.ReferencedSeriesSequence
    del without_study.StudyInstanceUID
    text.ReferencedSeriesSequence[0].add_new(0x00081199, "LO", "1.2.3.9")
    many = evidence("1.2.3", "1.2.3.4", "1.2.3.5", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about illegal values
        many.ReferencedSeriesSequence[0].ReferencedSOPSequence += [
            referenced("1.2/../../3"),
            referenced("1" * 65),
        ]
    ds.CurrentRequestedProcedureEvidenceSequence += [
        many,
        without_series,
        without_study,
        text,
    ]
    note = rejection_note_of(ds)
    assert note is not None
    assert note.references == (("1.2.3", "1.2.3.4"), ("1.2.3", "1.2.3.5"))


def test_a_rejection_without_references_rejects_nothing() -> None:
    ds = make_key_objects("113001", [])
    del ds.CurrentRequestedProcedureEvidenceSequence
    assert rejection_note_of(ds) == RejectionNote(RejectionReason.QUALITY, ())


def test_only_the_first_title_counts() -> None:
    ds = make_key_objects("113000", REFERENCES)
    ds.ConceptNameCodeSequence.append(coded("113001"))
    assert rejection_note_of(ds) is None


def test_a_note_is_the_same_after_json() -> None:
    note = RejectionNote(RejectionReason.PATIENT_SAFETY, REFERENCES)
    assert RejectionNote.from_json(json.loads(json.dumps(asdict(note)))) == note
