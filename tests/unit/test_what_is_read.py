"""The tables of ``docs/what-is-read.md`` say what the code does.

A new section with such a table needs its entry in ``OUTCOMES``.
"""

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword

from lumbar.dicom.headers import slice_headers
from lumbar.dicom.instance_identity import identity_of
from lumbar.dicom.pixels import read_slice
from lumbar.errors import NotDicom
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


def set_element(ds: Dataset, name: str, value: str | int) -> None:
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
        several = isinstance(value, str) and "\\" in value
        setattr(ds, name, str(value).split("\\") if several else value)


def verdict(series: list[SliceHeader]) -> str:
    """What the study's line says of the series."""
    (choice,) = assign_roles(series).choices
    return choice.split("): ", 1)[1]


def verdict_of(elements: Elements) -> str:
    try:
        return verdict(headers(elements))
    except NotDicom as error:
        return f"refused, {error}"


def fat_suppression(elements: Elements) -> str:
    return "fat-suppressed" if fat_suppressed(headers(elements)[0]) else "not fat-suppressed"


def contrast_agent(elements: Elements) -> str:
    given = headers(elements)[0].contrast_agent
    return "a contrast agent was given" if given else "none was given"


def value_read(elements: Elements) -> str:
    """What the first pixel of an image becomes; ``stored`` is its value, and 1 that of others."""
    elements = dict(elements)
    ds = make_slice(BitsAllocated=16, BitsStored=16, HighBit=15, PixelRepresentation=0)
    pixels = np.ones((ds.Rows, ds.Columns), "<u2")
    pixels[0, 0] = int(elements.pop("stored"))
    ds.PixelData = pixels.tobytes()
    for name, value in elements.items():
        set_element(ds, name, int(value) if value.isdigit() else value)
    with tempfile.TemporaryDirectory() as folder:
        ds.save_as(Path(folder) / "slice.dcm", enforce_file_format=True)
        value = read_slice(Path(folder) / "slice.dcm", None)[0, 0]
    return "left out" if np.isnan(value) else f"{value:g}"


def text_read(elements: Elements) -> str:
    ds = make_slice()
    ((name, value),) = elements.items()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about illegal values
        set_element(ds, name, value)
    field = {"PatientID": "patient_identifier", "StudyDate": "study_date"}.get(name, "study_time")
    return str(getattr(identity_of(ds), field)) or "empty"


# What the lines of each section are held against.
OUTCOMES: dict[str, Callable[[Elements], str]] = {
    "What the pixels mean": verdict_of,
    "Whether it was acquired": verdict_of,
    "Which weighting it has": verdict_of,
    "Fat suppression": fat_suppression,
    "Contrast agent": contrast_agent,
    "Values that say nothing": verdict_of,
    "What a stored value becomes": value_read,
    "Texts": text_read,
}


@pytest.mark.parametrize(
    "row", list(rows()), ids=lambda row: " ".join(f"{k}={v}" for k, v in row.elements.items())
)
def test_each_line_of_the_tables_is_what_the_code_does(row: Row) -> None:
    assert row.elements, "a line names elements and values, each as `Keyword = value`"
    assert OUTCOMES[row.section](row.elements) == row.outcome


def test_every_section_with_such_a_table_has_lines() -> None:
    assert {row.section for row in rows()} == set(OUTCOMES)


def test_every_reason_for_a_refusal_is_in_the_tables() -> None:
    unread = [w for w in Weighting if (Plane.SAGITTAL, w) not in ROLES]
    documented = {row.outcome.removeprefix("refused, ") for row in rows()}
    weightings = {f"{w} in this plane is not read" for w in unread}
    assert {*REASONS, *weightings, f"fewer than {MIN_SLICES} slices"} <= documented
