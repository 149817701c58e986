"""Single elements: several values, dates and times of other forms, and what is no text at all."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from lumbar.elements import date, first_number, first_positive, numbers, text, time


def holding(keyword: str, value: object) -> Dataset:
    ds = Dataset()
    setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("12\\345", "12\\345"),
        (["12", "", "345"], "12\\\\345"),
        (" 7 ", "7"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_text_is_its_values_joined_by_backslashes(value: object, expected: str) -> None:
    assert text(holding("PatientID", value), "PatientID") == expected


def test_names_and_numbers_are_texts_and_bytes_and_sequences_are_not() -> None:
    assert text(holding("PatientName", "Doe^Jane"), "PatientName") == "Doe^Jane"
    assert text(holding("PatientName", ["Doe^Jane", "Roe"]), "PatientName") == "Doe^Jane\\Roe"
    assert text(holding("MagneticFieldStrength", "1.50"), "MagneticFieldStrength") == "1.50"
    assert text(holding("PixelSpacing", ["0.50", "1"]), "PixelSpacing") == "0.50\\1"
    for vr, value in (("OB", b"1.2.3"), ("SQ", [holding("PatientID", "7")])):
        ds = Dataset()
        ds.add_new("PatientID", vr, value)
        assert text(ds, "PatientID") == ""
    assert text(Dataset(), "PatientID") == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20261116", "20261116"),
        ("2026.11.16", "20261116"),
        ("2026-11-16", "20261116"),
        ("20261116 ", "20261116"),
        ("2026.1116", ""),
        ("2026.11-16", ""),
        ("20261316", ""),
        ("20260230", ""),
        ("20240229", "20240229"),
        ("00000000", ""),
        ("16.11.2026", ""),
        ("20261116-20261118", ""),
        ("202611", ""),
        ("２０２６１１１６", ""),
        ("soon", ""),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_dates_are_normalised_or_left_out(value: str, expected: str) -> None:
    assert date(holding("StudyDate", value), "StudyDate") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("102030", "102030"),
        ("10:20:30", "102030"),
        ("10:20:30.5", "102030.5"),
        ("102030.123456789", "102030.123456"),
        ("1020", "1020"),
        ("10:20", "1020"),
        ("10", "10"),
        ("235960", "235960"),
        ("240000", ""),
        ("106000", ""),
        ("102", ""),
        ("10.5", ""),
        ("noon", ""),
        ("", ""),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_times_are_normalised_or_left_out(value: str, expected: str) -> None:
    assert time(holding("StudyTime", value), "StudyTime") == expected


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.datetimes(), st.sampled_from(["%Y%m%d", "%Y.%m.%d"]))
def test_every_day_is_normalised(moment: datetime.datetime, form: str) -> None:
    written = moment.strftime(form).rjust(8 if "." not in form else 10, "0")
    assert date(holding("StudyDate", written), "StudyDate") == moment.strftime("%Y%m%d").rjust(
        8, "0"
    )


def test_the_first_positive_number_counts_in_the_order_of_keywords_then_data_sets() -> None:
    zero, frame, root = Dataset(), Dataset(), holding("EchoTime", 114)
    zero.EffectiveEchoTime, frame.EffectiveEchoTime = 0.0, -1.0
    datasets = [zero, frame, root]
    assert first_number(datasets, "EffectiveEchoTime", "EchoTime") == 0
    assert first_positive(datasets, "EffectiveEchoTime", "EchoTime") == 114
    assert first_positive(datasets, "EffectiveEchoTime") is None
    root.EffectiveEchoTime = 80.0
    assert first_positive(datasets, "EffectiveEchoTime", "EchoTime") == 80


def test_numbers_are_finite_or_none() -> None:
    for value in (b"\0", "", None):
        assert numbers(holding("PixelData", value), "PixelData") == ()
    assert numbers(holding("EffectiveEchoTime", float("nan")), "EffectiveEchoTime") == ()
