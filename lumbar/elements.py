"""Single elements of a header as texts, numbers, dates and times, whatever a file holds in them."""

import datetime
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DatasetSequence

# YYYYMMDD; YYYY.MM.DD of ACR-NEMA, which receivers may still get (PS3.5 6.2); and ISO 8601's.
_DATE = re.compile("([0-9]{4})([.-]?)([0-9]{2})\\2([0-9]{2})")
# HHMMSS.FFFFFF, of which all but the hours may be missing; and HH:MM:SS of ACR-NEMA (PS3.5 6.2)
_TIME = re.compile(
    "([01][0-9]|2[0-3])(?::?([0-5][0-9])(?::?([0-5][0-9]|60)([.][0-9]{1,6})?[0-9]*)?)?"
)
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
MAX_UID = 64


def as_list(value: Any) -> list[Any]:
    """An element's values; none if it is empty."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, MultiValue | list | tuple) else [value]


def text(dataset: Dataset, keyword: str) -> str:
    """The element's value without its padding; empty if absent, or if it is not text or a number.

    Several values are joined by backslashes, as they are stored: a PatientID of ``12\\345`` is
    illegal (PS3.5 6.2), but it is still one patient's.
    """
    return stored_text(dataset, keyword).strip(" \0")


def stored_text(dataset: Dataset, keyword: str) -> str:
    """As ``text``, with leading spaces."""
    value = dataset.get(keyword)
    if isinstance(value, bytes | DatasetSequence):
        return ""
    return "\\".join(str(v) for v in as_list(value) if v is not None).rstrip(" \0")


def date(dataset: Dataset, keyword: str) -> str:
    """The element's value as YYYYMMDD; empty if it is no day of the calendar."""
    match = _DATE.fullmatch(text(dataset, keyword))
    if match is None:
        return ""
    year, _, month, day = match.groups()
    try:
        datetime.date(int(year), int(month), int(day))
    except ValueError:
        return ""
    return year + month + day


def time(dataset: Dataset, keyword: str) -> str:
    """The element's value as HHMMSS.FFFFFF, as far as it goes; empty if it is no time of day."""
    match = _TIME.fullmatch(text(dataset, keyword))
    return "".join(match.groups("")) if match else ""


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none if it is absent, or is no sequence."""
    value = dataset.get(keyword)
    return list(value) if isinstance(value, DatasetSequence) else []


def is_uid(value: str) -> bool:
    """Whether it has the form of a UID (PS3.5 9.1), zeros at the start of a component included."""
    return len(value) <= MAX_UID and _UID.fullmatch(value) is not None


def words(datasets: Sequence[Dataset], *keywords: str) -> tuple[str, ...]:
    """The first values under any of the keywords, tried in order, in upper case without padding."""
    for keyword in keywords:
        for dataset in datasets:
            if values := as_list(dataset.get(keyword)):
                return tuple(str(value).strip().strip(" \0").upper() for value in values)
    return ()


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """The element's values; empty if absent or empty, or if any is not a finite number."""
    try:
        values = tuple(float(v) for v in as_list(dataset.get(keyword)))
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        return ()
    return values if all(map(math.isfinite, values)) else ()


def first_number(datasets: Sequence[Dataset], *keywords: str) -> float | None:
    """The first finite value under any of the keywords, tried in order; None if there is none."""
    return next(_first_values(datasets, keywords), None)


def first_positive(datasets: Sequence[Dataset], *keywords: str) -> float | None:
    """As ``first_number``, for what is never zero: scanners write 0 where they have no value."""
    return next((value for value in _first_values(datasets, keywords) if value > 0), None)


def _first_values(datasets: Sequence[Dataset], keywords: Sequence[str]) -> Iterator[float]:
    for keyword in keywords:
        for dataset in datasets:
            yield from numbers(dataset, keyword)
