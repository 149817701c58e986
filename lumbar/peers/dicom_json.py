"""What a DICOMweb server answers: DICOM JSON (PS3.18 annex F) or the Native DICOM Model in XML.

Servers write it in many ways, so it is read leniently: tags in any case or keywords, single values
where lists belong, numbers as texts. Whatever cannot be read is as if it were not there.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from pydicom.datadict import tag_for_keyword

DicomObject = Mapping[str, Any]

_HEXADECIMAL = re.compile("(?:0[xX])?([0-9a-fA-F]{4})")


def read_objects(body: bytes) -> list[DicomObject] | None:
    """The objects of an answer; None if it is no DICOM JSON and no Native DICOM Model."""
    content = body.removeprefix(b"\xef\xbb\xbf").strip()
    if content[:1] == b"<":
        return _read_xml(content)
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    objects = answer if isinstance(answer, list) else [answer]
    if any(not isinstance(each, dict) for each in objects):
        return None
    return objects


def items(dicom_object: DicomObject, keyword: str) -> list[DicomObject]:
    """The items of a sequence."""
    return [value for value in _values(dicom_object, keyword) if isinstance(value, dict)]


def text(dicom_object: DicomObject, keyword: str) -> str:
    """The element's first value as text; empty if there is none."""
    for value in _values(dicom_object, keyword)[:1]:
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return str(value).strip(" \0\r\n\t")
    return ""


def code(dicom_object: DicomObject, keyword: str) -> int | None:
    """A status or reason, as a number, or as decimal or hexadecimal text; None if there is none."""
    value = text(dicom_object, keyword)
    if value.isascii() and value.isdigit() and (value == "0" or value[0] != "0"):
        number = int(value) if len(value) <= 5 else -1
    elif match := _HEXADECIMAL.fullmatch(value):
        number = int(match[1], 16)
    else:
        return None
    return number if 0 <= number <= 0xFFFF else None


def _values(dicom_object: DicomObject, keyword: str) -> list[Any]:
    tag = f"{tag_for_keyword(keyword):08X}"
    names = (tag.lower(), keyword.lower())
    for name, element in dicom_object.items():
        if name.lower() in names:
            values = element
            if isinstance(element, dict):
                values = _ignoring_case(element, "value")
            return values if isinstance(values, list) else [] if values is None else [values]
    return []


def _ignoring_case(element: Mapping[str, Any], name: str) -> Any:
    return next((value for key, value in element.items() if key.lower() == name), None)


class _WithoutDoctype(TreeBuilder):
    """Refuses a document type, and with it every entity."""

    def doctype(self, *_: object) -> NoReturn:
        raise ParseError


def _read_xml(content: bytes) -> list[DicomObject] | None:
    parser = XMLParser(target=_WithoutDoctype())  # noqa: S314 - no entities without a document type
    try:
        parser.feed(content)
        root = parser.close()
    except (ParseError, LookupError, ValueError):
        return None
    if _name(root) != "NativeDicomModel":
        return None
    try:
        return [dict(_attributes(root))]
    except RecursionError:
        return None


def _attributes(parent: Element) -> Iterator[tuple[str, Any]]:
    """The elements of a data set, as DICOM JSON has them."""
    for element in parent:
        if _name(element) == "DicomAttribute":
            sequence = [dict(_attributes(child)) for child in element if _name(child) == "Item"]
            values = [child.text for child in element if _name(child) == "Value"]
            yield element.get("tag", ""), {"Value": sequence or values}


def _name(element: Element) -> str:
    """The name without its namespace; whichever is used."""
    return element.tag.rpartition("}")[2]
