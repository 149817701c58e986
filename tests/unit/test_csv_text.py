"""CSV: no cell is run by a spreadsheet, no text commands a terminal, and all rows are there."""

import asyncio
import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.reports.csv_text import BYTE_ORDER_MARK, cell, csv_parts, printable
from web.csv_export import as_csv


@given(st.text())
def test_no_text_can_begin_a_formula_or_break_a_line(text):
    text_in_cell = cell(text)
    assert not text_in_cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t"))
    assert not set(text_in_cell) & set("\r\n\0\x1b")


@pytest.mark.parametrize("sign", [*"=+-@", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
@pytest.mark.parametrize("before", ["", " ", "\xa0", "\u3000", "\t", " \t", "\x01"])
def test_text_that_begins_a_formula_stays_text(sign, before):
    assert cell(f"{before}{sign}1").startswith("'")
    assert cell(f"a{before}{sign}1").startswith("a")


def test_numbers_and_empty_values_are_unchanged():
    assert [cell(value) for value in (-1.5, 0, None)] == [-1.5, 0, None]
    assert [cell(value) for value in (True, False)] == ["true", "false"]


@pytest.mark.parametrize("count", [0, 1, 1234])
def test_a_long_file_has_all_its_lines(count):
    response = as_csv("x.csv", ("a", "b"), ({"a": n, "b": f"={n}"} for n in range(count)))
    assert response.headers["content-disposition"] == 'attachment; filename="x.csv"'

    async def read():
        return "".join(
            [
                part if isinstance(part, str) else part.decode()
                async for part in response.body_iterator
            ]
        )

    text = asyncio.run(read())
    assert text.startswith(BYTE_ORDER_MARK)
    assert text.endswith("\r\n")
    rows = list(csv.reader(io.StringIO(text[1:])))
    assert rows == [["a", "b"], *([str(n), f"'={n}"] for n in range(count))]


@given(st.lists(st.text()), st.sampled_from(["\n", "\r\n"]))
def test_every_text_stays_in_its_own_cell(texts, line_end):
    text = "".join(csv_parts(["a", "b"], [{"a": t, "b": 1} for t in texts], line_end=line_end))
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows == [["a", "b"], *([cell(t), "1"] for t in texts)]
    assert text.count(line_end) == len(texts) + 1


@given(st.text())
def test_a_terminal_gets_no_control_character_but_the_line_feed(text):
    printed = printable(text)
    assert len(printed) == len(text)
    assert not set(printed) & {"\x1b", "\r", "\t", "\x9b", "\u202e", "\u2028"}
    assert [c for c in text if c == "\n"] == [c for c in printed if c == "\n"]
