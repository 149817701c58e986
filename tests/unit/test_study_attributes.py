"""Of several stated values, the one that most images state counts; an empty one never does."""

from dataclasses import astuple, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.study_attributes import StudyAttributes, agreed, disagreements

DOE = StudyAttributes("7", "", "Doe^Jane", "19700101", "F", "A1", "Ref^Erring", "S1", "20261116")
FIELDS = [field.name for field in fields(StudyAttributes)]
few = st.sampled_from(["", "a", "b", "A^", "c"])
attributes = st.builds(StudyAttributes, **dict.fromkeys(FIELDS, few))
stated = st.lists(st.tuples(attributes, st.integers(1, 9)), min_size=1, max_size=5)


@pytest.mark.parametrize("name", ["DOE^JANE", "Doe^Jane^^^", "doe^jane ", "Doe^Jane=", " Doe^Jane"])
def test_a_name_spelled_another_way_corrects_nothing(name: str) -> None:
    assert not replace(DOE, patient_name=name).corrects(DOE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patient_identifier", "8"),
        ("patient_name", "Roe^Jane"),
        ("birth_date", "19700102"),
        ("sex", "M"),
        ("accession_number", "A2"),
    ],
)
def test_another_identifying_value_is_a_correction(field: str, value: str) -> None:
    corrected = replace(DOE, **{field: value})
    assert corrected.corrects(DOE)
    assert DOE.corrects(corrected)


@pytest.mark.parametrize("field", FIELDS[2:])
def test_a_value_that_only_one_of_them_has_is_no_correction(field: str) -> None:
    emptied = replace(DOE, **{field: ""})
    assert not emptied.corrects(DOE)
    assert not DOE.corrects(emptied)
    assert getattr(emptied.filled_from(DOE), field) == getattr(DOE, field)


def test_without_an_identifier_name_and_birth_date_tell_patients_apart() -> None:
    nobody = replace(DOE, patient_identifier="")
    assert nobody.same_patient(replace(nobody, patient_name="DOE^JANE^"))
    assert not nobody.same_patient(replace(nobody, patient_name="Roe^Jane"))
    assert not nobody.same_patient(replace(nobody, birth_date="19700102"))
    assert not nobody.same_patient(DOE)


def test_the_value_of_most_images_counts_then_the_first() -> None:
    second = replace(DOE, accession_number="A2")
    assert agreed([(DOE, 2), (second, 3)]).accession_number == "A2"
    assert agreed([(DOE, 2), (second, 2)]).accession_number == "A1"
    assert agreed([(second, 2), (DOE, 2)]).accession_number == "A2"


def test_the_one_value_that_exists_counts_however_few_images_state_it() -> None:
    assert agreed([(replace(DOE, accession_number=""), 59), (DOE, 1)]).accession_number == "A1"


def test_where_images_disagree_is_said_with_their_numbers() -> None:
    (accession,) = disagreements([(DOE, 3), (replace(DOE, accession_number="A2"), 1)])
    assert str(accession) == "accession number: A1 on 3 images counts; A2 on 1"
    assert accession.identifies


def test_empty_values_and_other_spellings_are_no_disagreement() -> None:
    variants = [(DOE, 3), (replace(DOE, patient_name="DOE^JANE^^", accession_number=""), 1)]
    assert disagreements(variants) == ()


@given(stated)
def test_what_counts_was_stated_and_is_empty_only_if_nothing_was(images) -> None:
    for field, value in zip(FIELDS, astuple(agreed(images)), strict=True):
        values = {getattr(one, field) for one, _ in images}
        assert value in values
        assert bool(value) == bool(values - {""})


@given(stated)
def test_what_counts_is_no_correction_where_nothing_disagrees(images) -> None:
    if not disagreements(images):
        counts = agreed(images)
        for one, _ in images:
            assert not one.corrects(counts) or not one.same_patient(counts)


@given(attributes, attributes)
def test_to_correct_is_symmetric(one: StudyAttributes, other: StudyAttributes) -> None:
    assert one.corrects(other) == other.corrects(one)
    assert not one.corrects(one)
    if one.same_patient(other):
        assert not one.filled_from(other).corrects(one)


@given(attributes)
def test_as_elements_the_values_stay_what_they_are(one: StudyAttributes) -> None:
    dataset = one.as_dataset()
    assert str(dataset.AccessionNumber) == one.accession_number
    assert str(dataset.PatientName) == one.patient_name
