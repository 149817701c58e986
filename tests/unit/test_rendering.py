"""How values are shown on a page and written to a CSV file."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.csv_export import as_csv, cell
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
def test_a_persons_name_is_written_family_name_first(name, shown):
    assert person(name) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("20261127", "2026-11-27"), ("", ""), ("2026", "2026"), ("20269999", "20269999")],
)
def test_a_text_that_is_not_a_date_is_unchanged(text, shown):
    assert day(text) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(59, "0 min"), (3599, "59 min"), (3660, "1 h 01 min"), (172_800, "2 days")],
)
def test_a_time_span_is_shown_in_its_largest_units(seconds, shown):
    assert span(seconds) == shown


@given(st.text())
def test_no_text_can_begin_a_formula_or_break_a_line(text):
    written = cell(text)
    assert not written.lstrip(" ").startswith(("=", "+", "-", "@", "\t"))
    assert not set(written) & set("\r\n\0\x1b")


def test_numbers_and_none_are_unchanged():
    assert [cell(value) for value in (-1.5, 0, None, True)] == [-1.5, 0, None, True]


@pytest.mark.parametrize("count", [0, 1, 1234])
def test_a_long_file_has_all_its_rows(count):
    response = as_csv("x.csv", ("a", "b"), ({"a": n, "b": f"={n}"} for n in range(count)))
    assert response.headers["content-disposition"] == 'attachment; filename="x.csv"'

    async def read():
        return "".join(
            [
                part if isinstance(part, str) else part.decode()
                async for part in response.body_iterator
            ]
        )

    import asyncio

    rows = list(csv.reader(io.StringIO(asyncio.run(read()))))
    assert rows == [["a", "b"], *([str(n), f"'={n}"] for n in range(count))]
