"""The words in an element of a data set."""

from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset


def words(datasets: Sequence[Dataset], *keywords: str) -> tuple[str, ...]:
    """The first values under any of the keywords, tried in order, in upper case without padding."""
    for keyword in keywords:
        for dataset in datasets:
            if values := as_list(dataset.get(keyword)):
                return tuple(str(value).strip().strip(" \0").upper() for value in values)
    return ()


def as_list(value: Any) -> list[Any]:
    """The values of an element, whether it has none, one or several."""
    if value is None or value == "":
        return []
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return [value]
    return list(value)
