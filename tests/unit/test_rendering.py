"""How values are written on a page."""

import pytest

from web.rendering import day, person, span


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Doe^Jane", "Doe, Jane"),
        ("Doe^Jane^Mary^^Dr", "Doe, Jane Mary Dr"),
        ("Doe", "Doe"),
        ("Yamada^Tarou=山田^太郎", "Yamada, Tarou"),
        ("", ""),
    ],
)
def test_a_persons_name_is_written_in_the_usual_form(name, expected):
    assert person(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20261127", "2026-11-27"), ("", ""), ("2026", "2026"), ("20269999", "20269999")],
)
def test_an_invalid_date_is_shown_unchanged(text, expected):
    assert day(text) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(59, "0 min"), (3599, "59 min"), (3660, "1 h 01 min"), (172_800, "2 days")],
)
def test_a_duration_is_shown_in_a_suitable_unit(seconds, expected):
    assert span(seconds) == expected
