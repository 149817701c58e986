"""Any answer of a DICOMweb server is read, whatever it contains."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lumbar.peers.dicom_json import code, items, read_objects, text
from lumbar.peers.store_response import Failed, Stored, read_store_response

UID = "1.2.3"

TAGS = [
    "00081199",
    "00081198",
    "00081155",
    "00081197",
    "00081196",
    "ReferencedSOPSequence",
    "failedsopsequence",
    "Value",
    "value",
    "vr",
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text(max_size=8)
    | st.sampled_from([UID, "42752", "A700", "0x0110"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(TAGS) | st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(values)
def test_any_json_says_something_or_nothing(value: Any) -> None:
    response = read_store_response(json.dumps(value).encode(), UID)

    assert response is None or isinstance(response, Stored | Failed)
    if isinstance(response, Stored):
        assert UID in json.dumps(value)
    if isinstance(response, Failed) and response.reason is not None:
        assert 0 <= response.reason <= 0xFFFF


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_say_something_or_nothing(body: bytes) -> None:
    assert read_store_response(body, UID) is None or UID.encode() in body or b"1198" in body


XML_PARTS = ["<a>", "</a>", "<", ">", "&amp;", "&x;", "<!DOCTYPE a>", "<![CDATA[", "]]>", "\0", "é"]


@given(st.lists(st.sampled_from([*XML_PARTS, '<DicomAttribute tag="00081199">', "<Item>"])))
def test_any_xml_says_something_or_nothing(parts: list[str]) -> None:
    assert read_store_response(f"<NativeDicomModel>{''.join(parts)}".encode(), UID) is None


@given(values)
def test_any_listed_object_has_values_or_none(value: Any) -> None:
    for each in read_objects(json.dumps(value).encode()) or []:
        assert isinstance(text(each, "ReferencedSOPInstanceUID"), str)
        assert all(isinstance(item, dict) for item in items(each, "FailedSOPSequence"))
        code(each, "FailureReason")


def test_a_reason_is_a_number_however_it_is_written() -> None:
    for written in (272, 272.0, "272", "0110", "0x0110", " 272 "):
        assert code({"00081197": {"vr": "US", "Value": [written]}}, "FailureReason") == 0x0110
    for written in ("", "x", None, True, -1, 65536, 1e99, float("nan"), "9" * 5000, [], {}, "²"):
        assert code({"00081197": {"vr": "US", "Value": [written]}}, "FailureReason") is None


def test_failed_outweighs_stored() -> None:
    item = {"00081155": {"vr": "UI", "Value": [UID]}}
    both = {"00081199": {"Value": [item]}, "00081198": {"Value": [item]}}
    assert read_store_response(json.dumps(both).encode(), UID) == Failed(None)
