"""Files whose data set is encoded otherwise than they state: read right, or refused."""

from io import BytesIO
from pathlib import Path
from struct import pack

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from lumbar.dicom.discover import find_instances
from lumbar.dicom.headers import read_header, slice_headers
from lumbar.dicom.instance_identity import identity_of
from lumbar.dicom.part10 import file_head, read_file_meta, sender_address
from lumbar.dicom.pixels import read_slice
from lumbar.errors import NotAnalysable, NotDicom

SMALL = Path(str(get_testdata_file("MR_small.dcm", download=False)))
RLE = Path(str(get_testdata_file("MR_small_RLE.dcm", download=False)))
JPEG_LS = Path(str(get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False)))
LITTLE, IMPLICIT, BIG = ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """Explicit VR Little Endian, with a short length."""
    return pack("<HH2sH", group, number, vr, len(value)) + value


def file_meta(syntax: str, *others: bytes) -> bytes:
    """Preamble and file meta information."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    content = element(2, 0x0010, b"UI", uid) + b"".join(others)
    return b"\0" * 128 + b"DICM" + element(2, 0, b"UL", pack("<L", len(content))) + content


def encoded(ds: pydicom.Dataset, syntax: UID) -> bytes:
    """The data set alone."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    write_dataset(buffer, ds)
    return buffer.getvalue()


def dataset(syntax: UID) -> bytes:
    name = {LITTLE: "MR_small", IMPLICIT: "MR_small_implicit", BIG: "MR_small_bigendian"}[syntax]
    return encoded(pydicom.dcmread(get_testdata_file(f"{name}.dcm", download=False)), syntax)


def assert_read_like_the_original(path: Path, original: Path = SMALL) -> None:
    ((instance,), _) = find_instances(path, path.parent)
    assert instance.slices == tuple(slice_headers(read_header(SMALL)))
    assert identity_of(instance.header) == identity_of(read_header(SMALL))
    np.testing.assert_array_equal(read_slice(path, None), read_slice(original, None))


@pytest.mark.parametrize("found", [LITTLE, IMPLICIT, BIG])
@pytest.mark.parametrize("stated", [LITTLE, IMPLICIT, BIG])
def test_another_encoding_than_the_stated_one_is_read_right_or_refused(
    tmp_path: Path, stated: UID, found: UID
) -> None:
    path = tmp_path / "file.dcm"
    path.write_bytes(file_meta(stated) + dataset(found))
    if stated.is_little_endian == found.is_little_endian:
        assert_read_like_the_original(path)
        return
    for read in (lambda: read_header(path), lambda: read_slice(path, None)):
        with pytest.raises(NotDicom, match="byte order of its transfer syntax"):
            read()
    with pytest.raises(NotAnalysable, match="byte order of its transfer syntax"):
        find_instances(path, tmp_path)


@pytest.mark.parametrize("compressed", [RLE, JPEG_LS])
def test_compressed_pixels_after_implicit_vrs_are_read(tmp_path: Path, compressed: Path) -> None:
    ds = pydicom.dcmread(compressed)
    explicit = encoded(ds, LITTLE)
    pixels = explicit.index(b"\xe0\x7f\x10\x00O") + 12
    syntax = ds.file_meta.TransferSyntaxUID
    del ds.PixelData
    path = tmp_path / "file.dcm"
    path.write_bytes(
        file_meta(syntax)
        + encoded(ds, IMPLICIT)
        + b"\xe0\x7f\x10\x00\xff\xff\xff\xff"
        + explicit[pixels:]
    )
    assert_read_like_the_original(path, compressed)


@pytest.mark.parametrize("inner", [LITTLE, IMPLICIT, BIG, JPEGLSLossless, RLELossless])
@pytest.mark.parametrize("syntax", [LITTLE, IMPLICIT])
@pytest.mark.parametrize("whole", [False, True])
def test_file_meta_information_inside_the_data_set_changes_nothing(
    tmp_path: Path, inner: UID, syntax: UID, whole: bool
) -> None:
    own = file_meta(inner)[132:] if whole else file_meta(inner)[144:]
    path = tmp_path / "file.dcm"
    path.write_bytes(file_meta(syntax, element(2, 0x0016, b"AE", b"US")) + own + dataset(syntax))
    assert_read_like_the_original(path)
    with path.open("rb") as stream:
        meta = read_file_meta(stream)
    assert (meta.TransferSyntaxUID, meta.SourceApplicationEntityTitle) == (syntax, "US")


def test_compressed_pixels_are_decoded_by_the_files_own_transfer_syntax(tmp_path: Path) -> None:
    path = tmp_path / "file.dcm"
    ds = pydicom.dcmread(RLE)
    path.write_bytes(file_meta(RLELossless) + file_meta(JPEGLSLossless)[144:] + encoded(ds, LITTLE))
    assert_read_like_the_original(path, RLE)


@pytest.mark.parametrize("stated", [0, 5, 10**6])
def test_a_wrong_length_of_the_file_meta_information_is_tolerated(
    tmp_path: Path, stated: int
) -> None:
    content = file_meta(LITTLE) + dataset(LITTLE)
    path = tmp_path / "file.dcm"
    path.write_bytes(content[:140] + pack("<L", stated) + content[144:])
    assert_read_like_the_original(path)


def test_file_meta_information_in_any_order_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.dcm"
    version = pack("<HH2s2xL", 2, 1, b"OB", 2) + b"\0\1"
    source = element(2, 0x0016, b"AE", b"US")
    path.write_bytes(file_meta(LITTLE, source, version) + dataset(LITTLE))
    assert_read_like_the_original(path)
    with path.open("rb") as stream:
        assert len(read_file_meta(stream)) == 4


def test_file_meta_information_without_its_length_is_read(tmp_path: Path) -> None:
    content = file_meta(LITTLE) + dataset(LITTLE)
    path = tmp_path / "file.dcm"
    path.write_bytes(content[:132] + content[144:])
    assert_read_like_the_original(path)


def test_a_command_before_the_data_set_is_skipped(tmp_path: Path) -> None:
    command = pack("<HHLL", 0, 0, 4, 10) + pack("<HHLH", 0, 0x0100, 2, 1)
    path = tmp_path / "file.dcm"
    path.write_bytes(file_meta(LITTLE) + command + dataset(LITTLE))
    assert_read_like_the_original(path)


# What pydicom says about the placeholders.
UNDECLARED = pytest.mark.filterwarnings("ignore::UserWarning")
NAME = "Šimůnek^Žofie"


def with_name(name: bytes, declared: str | None, syntax: UID = LITTLE) -> bytes:
    """The small file with the bytes of a name, which has no character set of its own."""
    ds = pydicom.dcmread(SMALL)
    placeholder = b"x" * (len(name) + len(name) % 2)
    ds.PatientName = placeholder.decode()
    if declared is not None:
        ds.add_new("SpecificCharacterSet", "CS", "Z" * len(declared))
    content = encoded(ds, syntax).replace(placeholder, name.ljust(len(placeholder)))
    return file_meta(syntax) + content.replace(
        b"Z" * len(declared or "Z"), (declared or "Z").encode()
    )


@pytest.mark.parametrize("syntax", [LITTLE, IMPLICIT])
@pytest.mark.parametrize("declared", [None, "", "ISO_IR 6", "ISO 2022 IR 6", "ISO_IR_192", "???"])
@UNDECLARED
def test_utf8_without_a_known_character_set_is_read(
    tmp_path: Path, syntax: UID, declared: str | None
) -> None:
    path = tmp_path / "file.dcm"
    path.write_bytes(with_name(NAME.encode(), declared, syntax))
    assert str(read_header(path).PatientName) == NAME
    assert identity_of(read_header(path)).patient_name == NAME


@pytest.mark.parametrize(
    ("name", "declared", "expected"),
    [
        ("Müller".encode("latin-1"), None, "Müller"),
        ("Müller".encode("latin-1"), "ISO_IR 100", "Müller"),
        ("Müller".encode(), "ISO_IR 192", "Müller"),
        ("Müller".encode(), "ISO_IR 100", "MÃ¼ller"),
        ("Šimůnek".encode("iso8859_2"), "ISO_IR 101", "Šimůnek"),
    ],
)
@UNDECLARED
def test_other_texts_are_read_as_declared_and_latin_1_is_assumed(
    tmp_path: Path, name: bytes, declared: str | None, expected: str
) -> None:
    path = tmp_path / "file.dcm"
    path.write_bytes(with_name(name, declared))
    assert str(read_header(path).PatientName) == expected


def test_the_stream_is_left_where_the_data_set_begins() -> None:
    stream = BytesIO(file_meta(LITTLE) + element(8, 5, b"CS", b"ISO_IR 100"))
    read_file_meta(stream)
    assert stream.read(4) == b"\x08\x00\x05\x00"


@pytest.mark.parametrize("address", ["", "10.0.0.7", "2001:db8::7", "scanner"])
def test_a_file_names_the_address_of_its_sender_in_the_standards_element(address: str) -> None:
    head = file_head("1.2", "1.2.3", LITTLE, "MR1", address)
    meta = read_file_meta(BytesIO(head + b"\x08\x00"))
    assert (meta.SourceApplicationEntityTitle, sender_address(meta)) == ("MR1", address)
    assert ("SourcePresentationAddress" in meta) == bool(address)
    assert meta.FileMetaInformationGroupLength == len(head) - 144


@pytest.mark.parametrize("stated", ["", "10.0.0.7", "dicom://[10.0.0.7", "dicom://", "\\"])
def test_what_is_no_address_of_a_sender_is_none(stated: str) -> None:
    meta = FileMetaDataset()
    meta.SourcePresentationAddress = stated
    assert sender_address(meta) == ""
