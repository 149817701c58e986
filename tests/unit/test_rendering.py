"""How values stand on a page."""

import pytest

from web.rendering import day, person, span


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Doe^Jane", "Doe, Jane"),
        ("Doe^Jane^Mary^^Dr", "Doe, Jane Mary Dr"),
        ("Doe", "Doe"),
        ("Yamada^Tarou=山田^太郎", "Yamada, Tarou"),
        ("", ""),
    ],
)
def test_a_persons_name_is_written_as_people_do(name, shown):
    assert person(name) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("20261127", "2026-11-27"), ("", ""), ("2026", "2026"), ("20269999", "20269999")],
)
def test_a_date_that_is_none_stays_as_it_is(text, shown):
    assert day(text) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(59, "0 min"), (3599, "59 min"), (3660, "1 h 01 min"), (172_800, "2 days")],
)
def test_a_span_is_told_in_the_unit_that_matters(seconds, shown):
    assert span(seconds) == shown
