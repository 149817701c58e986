"""CSV without spreadsheet formulas, and text without terminal control characters."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

BYTE_ORDER_MARK = "\ufeff"  # by which spreadsheets recognise UTF-8
ROWS_PER_PART = 500

# The beginning of a cell that a spreadsheet runs as a formula: a sign after white space and
# controls (full-width forms count too), or a tab or line break as the very first character.
_FORMULA = re.compile("[\\s\x00-\x1f]*[=+@\uff1d\uff0b\uff0d\uff20-]|[\t\r\n]")
# C0 and C1 controls, line separators, and the marks that change a text's direction.
_CONTROLS = "\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
CONTROL = re.compile(f"[{_CONTROLS}]")  # all but the line feed
_CONTROL_OR_LINE_FEED = re.compile(f"[\n{_CONTROLS}]")


def printable(text: str) -> str:
    """A sender's text, safe for a terminal: every control character is replaced by U+FFFD."""
    return CONTROL.sub("\ufffd", text)


def cell(value: object) -> object:
    """A value as it is written to a CSV cell.

    Text that a spreadsheet would run as a formula is prefixed with an apostrophe, control
    characters and line breaks are replaced by U+FFFD, and a boolean is ``true`` or ``false``.
    Numbers and None are unchanged.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    plain = _CONTROL_OR_LINE_FEED.sub("\ufffd", value)
    return f"'{plain}" if _FORMULA.match(value) else plain


def csv_parts(
    columns: Sequence[str], records: Iterable[Mapping[str, Any]], *, line_end: str = "\n"
) -> Iterator[str]:
    """A table with its header, in parts of up to ``ROWS_PER_PART`` rows, while records arrive."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator=line_end)
    table.writerow(columns)
    for count, record in enumerate(records, 1):
        table.writerow([cell(record[name]) for name in columns])
        if count % ROWS_PER_PART == 0:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()
