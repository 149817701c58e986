"""The tables of classes and syntaxes in ``docs/what-is-accepted.md`` say what is accepted."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pydicom.uid
import pynetdicom.sop_class
import pytest
from pydicom._uid_dict import UID_dictionary
from pynetdicom import AllStoragePresentationContexts

from lumbar.dicom.instance_identity import identity_of
from scp.sop_classes import RETIRED_CLASSES, accepted_syntaxes
from tests.factories.instances import make_slice
from tests.factories.objects import make_object

PAGE = (Path(__file__).parent.parent.parent / "docs" / "what-is-accepted.md").read_text()
SECTION = "SOP classes and transfer syntaxes"
CLASSES = ["class", "transfer syntaxes", "what becomes of it"]
SYNTAXES = ["transfer syntax", "of MR images", "of other objects", "note"]
PRIVATE = "1.3.12.2.1107.5.9.1"
NAMED = re.compile(r"`([\w.]+)`(?: to `([\w.]+)`)?")

ACCEPTED = accepted_syntaxes([PRIVATE])
BY_KIND = {
    "of MR images": set(ACCEPTED[pydicom.uid.MRImageStorage]),
    "of other objects": set(ACCEPTED[pydicom.uid.CTImageStorage]),
}


class Row(NamedTuple):
    names: str
    cells: list[str]


def rows(columns: list[str]) -> Iterator[Row]:
    (section,) = (part for part in PAGE.split("\n## ") if part.startswith(SECTION))
    for table in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
        lines = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
        ]
        if lines[0] == columns:
            yield from (Row(names, cells) for names, *cells in lines[2:])


def uid(name: str) -> str:
    """The UID of a keyword, or one that is written as such."""
    if name[0].isdigit():
        return name
    found = getattr(pydicom.uid, name, None) or getattr(pynetdicom.sop_class, name, None)
    if found is None:
        found = next(each for each, entry in UID_dictionary.items() if entry[4] == name)
    return str(found)


def syntaxes_of(row: Row) -> Iterator[str]:
    """The transfer syntaxes that a line names, those of its ranges included."""
    for first, last in NAMED.findall(row.names):
        if not last:
            yield first
            continue
        start, end = first.split("."), last.split(".")
        (at,) = (n for n in range(len(start)) if start[n] != end[n])
        for number in range(int(start[at]), int(end[at]) + 1):
            yield ".".join([*start[:at], str(number), *start[at + 1 :]])


def classes_of(row: Row) -> list[str]:
    match row.names:
        case "other private classes":
            return ["1.2.3.4.5"]
        case "every other storage class of DICOM's for objects of a study":
            known = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
            return [each for each in known if each not in documented_classes()]
        case names if "LUMBAR" in names:
            return [PRIVATE]
        case names:
            return [uid(name) for name, _ in NAMED.findall(names)]


def documented_classes() -> set[str]:
    return {
        uid(n) for row in rows(CLASSES) for n, _ in NAMED.findall(row.names) if "LUMBAR" not in n
    }


@pytest.mark.parametrize("row", list(rows(CLASSES)), ids=lambda row: row.names[:50])
def test_each_class_is_accepted_as_the_page_says(row: Row) -> None:
    syntaxes, outcome = row.cells
    classes = classes_of(row)
    assert classes
    for each in classes:
        assert set(ACCEPTED.get(each, ())) == BY_KIND.get(syntaxes, set()), each
        assert (each in ACCEPTED) is not outcome.startswith("refused")


@pytest.mark.parametrize("row", list(rows(CLASSES)), ids=lambda row: row.names[:50])
def test_only_those_are_read_that_the_page_calls_read(row: Row) -> None:
    for each in classes_of(row) if row.cells[-1].startswith("kept") else ():
        ds = make_slice() if each == pydicom.uid.MRImageStorage else make_object(each)
        is_read = identity_of(ds).slices > 0
        assert is_read is (row.cells[-1] == "kept and read"), each


@pytest.mark.parametrize("row", list(rows(SYNTAXES)), ids=lambda row: row.names[:50])
def test_each_transfer_syntax_is_accepted_as_the_page_says(row: Row) -> None:
    for syntax in syntaxes_of(row):
        stated = dict(zip(SYNTAXES[1:3], row.cells, strict=False))
        found = {kind: "yes" if syntax in BY_KIND[kind] else "no" for kind in BY_KIND}
        assert found == stated, syntax


def test_every_transfer_syntax_is_in_the_table_once() -> None:
    documented = [syntax for row in rows(SYNTAXES) for syntax in syntaxes_of(row)]
    known = [each for each, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"]
    assert sorted(documented) == sorted(known)


def test_every_retired_class_is_in_the_table() -> None:
    assert set(RETIRED_CLASSES) <= documented_classes()
