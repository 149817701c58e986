"""The UIDs found by the scan are those pydicom reads, at a bounded cost."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, Sequence
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SegmentationStorage,
)

from lumbar.dicom import header_scan
from lumbar.dicom.header_scan import BEHIND_UIDS, MAX_DEPTH, MAX_ELEMENTS, WINDOW, scan_uids
from lumbar.errors import NotDicom
from tests.factories.instances import ROOT, make_slice
from tests.factories.objects import make_object

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
ITEM = b"\xfe\xff\x00\xe0"
ITEM_END, SEQUENCE_END = b"\xfe\xff\x0d\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)


def encoded(ds, syntax=ExplicitVRLittleEndian):
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = (
        syntax.is_implicit_VR,
        syntax.is_little_endian,
    )
    write_dataset(buffer, ds)
    return buffer.getvalue()


def reading(content):
    return lambda count, offset: content[offset : offset + count]


def private_block(ds, group, values):
    block = ds.private_block(group, "LUMBAR TEST", create=True)
    for number, (vr, value) in enumerate(values):
        block.add_new(number, vr, value)


values = st.one_of(
    st.tuples(st.just("LO"), st.text("ABC 123", max_size=60)),
    st.tuples(st.just("OB"), st.binary(max_size=3000).map(lambda b: b + b"\0" * (len(b) % 2))),
    st.tuples(st.just("US"), st.integers(0, 65535)),
    st.tuples(st.just("UT"), st.text("xyz", max_size=20000)),
)


@st.composite
def headers(draw):
    """A slice with private elements before and behind its UIDs, and nested sequences."""
    ds = make_slice(number=draw(st.integers(1, 9)))
    for group in (0x0009, 0x0019, 0x0021):
        private_block(ds, group, draw(st.lists(values, max_size=8)))
    for keyword in ("ReferencedImageSequence", "SourceImageSequence"):
        setattr(ds, keyword, draw(items(3)))
    return ds


@st.composite
def items(draw, depth):
    sequence = Sequence()
    for _ in range(draw(st.integers(0, 2))):
        item = Dataset()
        item.ReferencedSOPInstanceUID = "1.2.3"
        item.StudyInstanceUID = "9.9.9"  # of another: those in sequences do not count
        item.is_undefined_length_sequence_item = draw(st.booleans())
        if depth:
            item.PurposeOfReferenceCodeSequence = draw(items(depth - 1))
            undefined = draw(st.booleans())
            item["PurposeOfReferenceCodeSequence"].is_undefined_length = undefined
        sequence.append(item)
    return sequence


@pytest.mark.slow
@given(headers(), st.sampled_from(SYNTAXES), st.booleans(), st.sampled_from([80, 400, WINDOW]))
def test_it_finds_what_pydicom_reads(ds, syntax, undefined, window):
    ds["ReferencedImageSequence"].is_undefined_length = undefined
    content = encoded(ds, syntax)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(header_scan, "WINDOW", window)
        found = scan_uids(reading(content), syntax)
    expected = (ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID)
    assert (found.sop_class, found.sop_instance, found.series, found.study) == expected


@pytest.mark.parametrize(("stated", "found"), [SYNTAXES[:2], SYNTAXES[1::-1]])
def test_other_vrs_than_stated_are_read(stated, found):
    ds = make_slice()
    assert scan_uids(reading(encoded(ds, found)), stated).study == ds.StudyInstanceUID


@given(st.binary(max_size=2000), st.sampled_from(SYNTAXES))
def test_any_bytes_are_scanned_or_refused(content, syntax):
    try:
        found = scan_uids(reading(content), syntax)
    except NotDicom:
        return
    assert all(uid.isascii() and len(uid) <= 66 for uid in vars(found).values())


def test_a_large_element_before_the_uids_is_passed_over_unread():
    ds = make_slice()
    private_block(ds, 0x0009, [("OB", b"\0" * 2**24)])
    stream, read = BytesIO(encoded(ds)), []

    def counting(count, offset):
        stream.seek(offset)
        read.append(count)
        return stream.read(count)

    assert scan_uids(counting, ExplicitVRLittleEndian).series == ds.SeriesInstanceUID
    assert sum(read) <= 4 * WINDOW


def test_too_many_elements_are_refused():
    element = b"\x09\0\x10\x10LO\0\0"
    content = element * MAX_ELEMENTS + encoded(make_slice())
    with pytest.raises(NotDicom, match=f"more than {MAX_ELEMENTS} elements"):
        scan_uids(reading(content), ExplicitVRLittleEndian)


def test_sequences_nested_too_deeply_are_refused():
    level = b"\x09\0\x10\x10SQ\0\0" + b"\xff" * 4 + ITEM + b"\xff" * 4
    with pytest.raises(NotDicom, match=f"more than {MAX_DEPTH} deep"):
        scan_uids(reading(level * MAX_DEPTH), ExplicitVRLittleEndian)


def test_what_is_behind_the_end_is_not_walked_over():
    behind = b"\x21\0\x10\x10LO\0\0" * (MAX_ELEMENTS + 1)
    content = encoded(make_object(SegmentationStorage)) + behind
    assert scan_uids(reading(content), ExplicitVRLittleEndian, BEHIND_UIDS).study == f"{ROOT}.1"
    with pytest.raises(NotDicom, match="elements"):
        scan_uids(reading(content), ExplicitVRLittleEndian)


@pytest.mark.parametrize("vr", [b"LO\x04\0", b"\x04\0\0\0"], ids=["explicit", "implicit"])
def test_a_sequence_as_un_may_have_either_kind_of_vr_inside(vr):
    item = ITEM + b"\xff" * 4 + b"\x09\0\x11\x10" + vr + b"abcd" + ITEM_END
    sequence = b"\x09\0\x10\x10UN\0\0" + b"\xff" * 4 + item + SEQUENCE_END
    ds = make_slice()
    found = scan_uids(reading(sequence + encoded(ds)), ExplicitVRLittleEndian)
    assert (found.study, found.sop_class) == (ds.StudyInstanceUID, ds.SOPClassUID)
