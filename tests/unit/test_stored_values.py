"""What the bits of a pixel mean: padding, unused bits, sign and slope, in every transfer syntax."""

from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from lumbar.dicom.pixels import read_slice
from lumbar.errors import NotDicom
from lumbar.spine.crops import crop, normalised
from lumbar.spine.keypoint_input import SAGITTAL, picture
from tests.factories.headers import SLICE

SMALL = Path(str(get_testdata_file("MR_small.dcm", download=False)))
ANATOMY = np.random.default_rng(1).integers(100, 1800, (64, 48))
SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
)


def write(
    path: Path,
    words: NDArray[np.integer],
    syntax: UID = ExplicitVRLittleEndian,
    **elements: object,
) -> Path:
    """A slice whose words are stored as they are, with 16 stored bits unless stated otherwise.

    ``words`` is (rows, columns) or (frames, rows, columns).
    """
    ds = pydicom.dcmread(SMALL)
    bits = int(elements.pop("BitsAllocated", 16))  # type: ignore[call-overload]
    signed = bool(elements.get("PixelRepresentation", 0))
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits, bits - 1, 0
    ds.PixelRepresentation = int(signed)
    ds.Rows, ds.Columns = words.shape[-2:]
    ds.SmallestImagePixelValue = ds.LargestImagePixelValue = None
    kind = f"{'>' if syntax == ExplicitVRBigEndian else '<'}{'i' if signed else 'u'}{bits // 8}"
    array = words.astype(f"u{bits // 8}").astype(kind)
    ds.PixelData = array.tobytes() + b"\0" * (array.nbytes % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    if syntax == JPEG2000Lossless:
        ds.PixelData = encapsulate([jpeg_2000(array)])
    elif syntax.is_compressed:
        ds.compress(syntax, array.view(array.dtype.newbyteorder("=")))
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
        if keyword.startswith("PixelPadding"):
            ds[keyword].VR = "SS" if signed else "US"
    ds.file_meta.TransferSyntaxUID = syntax
    native = syntax if not syntax.is_compressed else ExplicitVRLittleEndian
    pydicom.dcmwrite(
        path,
        ds,
        implicit_vr=native.is_implicit_VR,
        little_endian=native.is_little_endian,
        force_encoding=True,
    )
    return path


def jpeg_2000(words: NDArray[np.integer]) -> bytes:
    """An unsigned codestream of all allocated bits, without its JP2 file."""
    lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    _, file = cv2.imencode(".jp2", words.view(f"u{words.itemsize}"), lossless)
    content = file.tobytes()
    return content[content.index(b"\xff\x4f\xff\x51") :]


def padded(value: int) -> NDArray[np.int64]:
    words = ANATOMY.copy()
    words[:3, :4] = words[-2:, -3:] = value
    return words


def assert_padded(image: NDArray[np.float32], expected: NDArray[np.integer], value: int) -> None:
    np.testing.assert_array_equal(np.isnan(image), padded(value) == value)
    kept = ~np.isnan(image)
    np.testing.assert_array_equal(image[kept], expected[kept])


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.keyword)
@pytest.mark.parametrize(
    ("signed", "value", "stated"),
    [
        (1, -32768, -32768),
        (0, 65535, 65535),
        (0, 0, 0),
    ],
)
def test_padding_is_not_a_number(
    tmp_path: Path, syntax: UID, signed: int, value: int, stated: int
) -> None:
    path = write(
        tmp_path / "p.dcm",
        padded(value),
        syntax,
        PixelRepresentation=signed,
        PixelPaddingValue=stated,
    )
    assert_padded(read_slice(path, None), ANATOMY, value)


@pytest.mark.parametrize(
    ("signed", "value", "vr", "stated"),
    [(1, -32768, "US", 32768), (0, 32768, "SS", -32768), (1, -2000, "US", 63536)],
)
def test_padding_stated_with_the_other_signedness_is_recognised(
    tmp_path: Path, signed: int, value: int, vr: str, stated: int
) -> None:
    """GE states it as US in signed images."""
    path = write(tmp_path / "p.dcm", padded(value), PixelRepresentation=signed)
    ds = pydicom.dcmread(path)
    ds.add_new("PixelPaddingValue", vr, stated)
    ds.save_as(path)
    assert_padded(read_slice(path, None), ANATOMY, value)


@pytest.mark.parametrize(("first", "last"), [(-32768, -100), (-100, -32768)])
def test_a_range_of_padding_is_inclusive_in_either_order(
    tmp_path: Path, first: int, last: int
) -> None:
    words = padded(-32768)
    words[5, :3] = (-100, -101, -99)
    path = write(
        tmp_path / "p.dcm",
        words,
        PixelRepresentation=1,
        PixelPaddingValue=first,
        PixelPaddingRangeLimit=last,
    )
    image = read_slice(path, None)
    np.testing.assert_array_equal(np.isnan(image), words <= -100)


def test_a_limit_without_a_padding_value_is_no_padding(tmp_path: Path) -> None:
    path = write(tmp_path / "p.dcm", ANATOMY, PixelPaddingRangeLimit=1000)
    np.testing.assert_array_equal(read_slice(path, None), ANATOMY)


def test_padding_beyond_the_stored_bits_is_recognised(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.dcm", padded(0x8000), BitsStored=12, HighBit=11, PixelPaddingValue=0x8000
    )
    assert_padded(read_slice(path, None), ANATOMY, 0x8000)


def test_padding_is_found_before_the_values_are_rescaled(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.dcm",
        padded(-32768),
        PixelRepresentation=1,
        PixelPaddingValue=-32768,
        RescaleSlope=2,
        RescaleIntercept=-7,
    )
    assert_padded(read_slice(path, None), ANATOMY * 2 - 7, -32768)


def test_padding_does_not_take_part_in_the_inversion(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.dcm",
        padded(-32768),
        PixelRepresentation=1,
        PixelPaddingValue=-32768,
        PhotometricInterpretation="MONOCHROME1",
    )
    kept = ANATOMY[padded(-32768) != -32768]
    assert_padded(read_slice(path, None), kept.max() - ANATOMY, -32768)


def test_an_image_of_padding_alone_shows_nothing(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.dcm",
        np.full((4, 4), 7),
        PixelPaddingValue=7,
        PhotometricInterpretation="MONOCHROME1",
    )
    image = read_slice(path, None)
    assert np.isnan(image).all()
    assert not normalised(image).any()


def test_crops_and_pictures_show_padding_black_and_the_rest_unchanged() -> None:
    image = np.random.default_rng(2).normal(800, 100, (320, 320)).astype(np.float32)
    framed = image.copy()
    framed[:, :60] = framed[:40] = 0  # what other scanners write there
    as_padding = framed.copy()
    as_padding[:, :60] = as_padding[:40] = np.nan
    for result in (
        lambda pixels: normalised(pixels),
        lambda pixels: crop(pixels, SLICE, 60, 40, 80.0),
        lambda pixels: picture(pixels, SLICE, SLICE.centre, SAGITTAL).pixels,
    ):
        np.testing.assert_array_equal(result(as_padding), result(framed))


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.keyword)
@pytest.mark.parametrize("signed", [0, 1])
def test_bits_that_are_not_stored_do_not_count(tmp_path: Path, syntax: UID, signed: int) -> None:
    """An overlay once had its place there (PS3.5 8.1.1)."""
    values = ANATOMY - 900 * signed
    overlay = np.random.default_rng(3).integers(0, 16, values.shape) << 12
    path = write(
        tmp_path / "o.dcm",
        values & 0xFFF | overlay,
        syntax,
        PixelRepresentation=signed,
        BitsStored=12,
        HighBit=11,
    )
    np.testing.assert_array_equal(read_slice(path, None), values)


@pytest.mark.parametrize("syntax", SYNTAXES[:4], ids=lambda s: s.keyword)
@pytest.mark.parametrize("signed", [0, 1])
def test_the_stored_bits_may_be_the_high_ones(tmp_path: Path, syntax: UID, signed: int) -> None:
    values = ANATOMY - 900 * signed
    words = (values & 0xFFF) << 4 | 0b1011
    path = write(
        tmp_path / "h.dcm", words, syntax, PixelRepresentation=signed, BitsStored=12, HighBit=15
    )
    np.testing.assert_array_equal(read_slice(path, None), values)


@pytest.mark.parametrize(("stored", "high"), [(12, 10), (12, 0), (12, 16)])
def test_a_high_bit_where_the_stored_bits_have_no_room_is_refused(
    tmp_path: Path, stored: int, high: int
) -> None:
    path = write(tmp_path / "h.dcm", ANATOMY, BitsStored=stored, HighBit=high)
    with pytest.raises(NotDicom, match="HighBit does not fit"):
        read_slice(path, None)


@pytest.mark.parametrize(
    "syntax", [*SYNTAXES[:3], RLELossless, JPEGLSLossless], ids=lambda s: s.keyword
)
@pytest.mark.parametrize("signed", [0, 1])
def test_eight_bits_are_read(tmp_path: Path, syntax: UID, signed: int) -> None:
    values = ANATOMY % 256 - 128 * signed
    path = write(tmp_path / "8.dcm", values, syntax, BitsAllocated=8, PixelRepresentation=signed)
    np.testing.assert_array_equal(read_slice(path, None), values)


def test_eight_bits_in_big_endian_words_are_read(tmp_path: Path) -> None:
    """Each pair of pixels is a word of OW, whose bytes are swapped."""
    swapped = (ANATOMY % 256).astype("u1").reshape(-1, 2)[:, ::-1].reshape(ANATOMY.shape)
    path = write(tmp_path / "8.dcm", swapped, ExplicitVRBigEndian, BitsAllocated=8)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x7f\xe0\x00\x10OB", b"\x7f\xe0\x00\x10OW"))
    np.testing.assert_array_equal(read_slice(path, None), ANATOMY % 256)


@pytest.mark.parametrize("slope", [0, None])
def test_a_slope_of_zero_is_none(tmp_path: Path, slope: int | None) -> None:
    path = write(tmp_path / "s.dcm", ANATOMY, RescaleSlope=slope, RescaleIntercept=5)
    np.testing.assert_array_equal(read_slice(path, None), ANATOMY + 5)


def test_each_frame_has_its_own_slope_with_its_intercept(tmp_path: Path) -> None:
    def transformation(slope: float, intercept: float) -> pydicom.Dataset:
        group, item = pydicom.Dataset(), pydicom.Dataset()
        item.RescaleSlope, item.RescaleIntercept = slope, intercept
        group.PixelValueTransformationSequence = [item]
        return group

    path = write(
        tmp_path / "f.dcm",
        np.stack([ANATOMY] * 3),
        NumberOfFrames=3,
        PerFrameFunctionalGroupsSequence=[
            transformation(2, 1),
            transformation(0, 9),
            pydicom.Dataset(),
        ],
        SharedFunctionalGroupsSequence=[transformation(3, 4)],
    )
    for frame, (slope, intercept) in enumerate([(2, 1), (3, 4), (3, 4)], 1):
        np.testing.assert_array_equal(read_slice(path, frame), ANATOMY * slope + intercept)


@given(st.integers(1, 16), st.integers(0, 4), st.booleans(), st.integers(0, 2**32 - 1))
def test_any_layout_of_bits_gives_the_values_that_were_stored(
    tmp_path_factory: pytest.TempPathFactory, stored: int, spare: int, signed: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shift = min(spare, 16 - stored)
    low = -(2 ** (stored - 1)) if signed else 0
    values = rng.integers(low, low + 2**stored, (4, 6))
    around = rng.integers(0, 2**16, values.shape)
    mask = ((1 << stored) - 1) << shift
    path = write(
        tmp_path_factory.getbasetemp() / "layout.dcm",
        (values << shift) & mask | around & ~mask,
        PixelRepresentation=int(signed),
        BitsStored=stored,
        HighBit=stored - 1 + shift,
    )
    np.testing.assert_array_equal(read_slice(path, None), values)
