"""The tables of ``docs/what-is-read.md`` say what the code does.

A new section with such a table needs its entry in ``OUTCOMES``.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword

from lumbar.dicom.headers import slice_headers
from lumbar.spine.anatomy import Plane
from lumbar.spine.image_content import REASONS
from lumbar.spine.roles import MIN_SLICES, assign_roles
from lumbar.spine.slices import SliceHeader
from lumbar.spine.weighting import ROLES, Weighting, fat_suppressed
from tests.factories.instances import make_slice

PAGE = (Path(__file__).parent.parent.parent / "docs" / "what-is-read.md").read_text()
COLUMNS = ["what the file says", "what becomes of it", "reason or source"]
ASSIGNMENT = re.compile(r"`([\w(),]+) = ?([^`]*)`")

Elements = dict[str, str]  # values by keyword, as the page writes them


class Row(NamedTuple):
    section: str
    elements: Elements  # of one of the row's alternatives
    outcome: str


def rows() -> Iterator[Row]:
    for section in PAGE.split("\n## ")[1:]:
        heading, *lines = section.splitlines()
        table = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in lines
            if line.startswith("|")
        ]
        for says, outcome, _ in table[2:] if table and table[0] == COLUMNS else ():
            for alternative in says.split("` or `"):
                yield Row(heading, dict(ASSIGNMENT.findall(f"`{alternative.strip('`')}`")), outcome)


def headers(elements: Elements) -> list[SliceHeader]:
    """A sagittal T2 series with these elements; ``slices`` is how many there are."""
    elements = dict(elements)
    count = int(elements.pop("slices", "15"))
    series = [make_slice(number=n) for n in range(1, count + 1)]
    for ds in series:
        for name, value in elements.items():
            set_element(ds, name, value)
    return [header for ds in series for header in slice_headers(ds)]


def set_element(ds: Dataset, name: str, value: str) -> None:
    if name == "(0043,102F)":
        ds.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", int(value))
        return
    tag = tag_for_keyword(name)
    assert tag is not None, f"{name} is no element"
    if dictionary_VR(tag) == "SQ":
        item = Dataset()
        item.CodeValue = value
        setattr(ds, name, [item])
    elif dictionary_VR(tag) == "FD":
        setattr(ds, name, float(value))
    else:
        setattr(ds, name, value.split("\\") if "\\" in value else value)


def verdict(series: list[SliceHeader]) -> str:
    """What the study's line says of the series."""
    (choice,) = assign_roles(series).choices
    return choice.split("): ", 1)[1]


# What the lines of each section are held against.
OUTCOMES: dict[str, Callable[[list[SliceHeader]], str]] = {
    "What the pixels mean": verdict,
    "Whether it was acquired": verdict,
    "Which weighting it has": verdict,
    "Fat suppression": lambda series: (
        "fat-suppressed" if fat_suppressed(series[0]) else "not fat-suppressed"
    ),
    "Contrast agent": lambda series: (
        "a contrast agent was given" if series[0].contrast_agent else "none was given"
    ),
}


@pytest.mark.parametrize(
    "row", list(rows()), ids=lambda row: " ".join(f"{k}={v}" for k, v in row.elements.items())
)
def test_each_line_of_the_tables_is_what_the_code_does(row: Row) -> None:
    assert row.elements, "a line names elements and values, each as `Keyword = value`"
    assert OUTCOMES[row.section](headers(row.elements)) == row.outcome


def test_every_section_with_such_a_table_has_lines() -> None:
    assert {row.section for row in rows()} == set(OUTCOMES)


def test_every_reason_for_a_refusal_is_in_the_tables() -> None:
    unread = [w for w in Weighting if (Plane.SAGITTAL, w) not in ROLES]
    documented = {row.outcome.removeprefix("refused, ") for row in rows()}
    weightings = {f"{w} in this plane is not read" for w in unread}
    assert {*REASONS, *weightings, f"fewer than {MIN_SLICES} slices"} <= documented
