"""Pixels of untrusted files: every syntax gives the same image; damage gives only a reason."""

import os
import random
import signal
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from lumbar.dicom import decoder, pixels
from lumbar.dicom.codestreams import declared_size
from lumbar.dicom.discover import find_instances
from lumbar.dicom.pixels import read_slice
from lumbar.errors import LumbarError, NotAnalysable, NotDicom

COMPRESSED = ("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm")
UNCOMPRESSED = ("MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_padded.dcm")


def shipped(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


SMALL = shipped("MR_small.dcm")


def changed(path: Path, **values: object) -> Path:
    """A copy of the small file with other elements."""
    ds = pydicom.dcmread(SMALL)
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.save_as(path)
    return path


def test_the_stored_values_are_read() -> None:
    image = read_slice(SMALL, None)
    stored = np.frombuffer(pydicom.dcmread(SMALL).PixelData, "<i2").reshape(64, 64)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, stored)


@pytest.mark.parametrize("name", [*UNCOMPRESSED, *COMPRESSED])
def test_every_transfer_syntax_gives_the_same_pixels(name: str) -> None:
    np.testing.assert_array_equal(read_slice(shipped(name), None), read_slice(SMALL, None))


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    rescaled = changed(tmp_path / "r.dcm", RescaleSlope="2.5", RescaleIntercept="-10")
    np.testing.assert_allclose(read_slice(rescaled, None), read_slice(SMALL, None) * 2.5 - 10)


def test_an_overflowing_slope_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotDicom, match="RescaleSlope"):
        read_slice(changed(tmp_path / "r.dcm", RescaleSlope="1e300"), None)


def test_monochrome1_is_turned_so_that_bright_is_bright(tmp_path: Path) -> None:
    inverted = read_slice(
        changed(tmp_path / "m.dcm", PhotometricInterpretation="MONOCHROME1"), None
    )
    straight = read_slice(SMALL, None)
    assert inverted.min() == 0
    np.testing.assert_array_equal(inverted + straight, np.full_like(straight, straight.max()))
    np.testing.assert_array_equal(
        np.argsort(-straight, axis=None, kind="stable"), np.argsort(inverted, None, "stable")
    )


def test_the_requested_frame_is_read(tmp_path: Path) -> None:
    first_frame = pydicom.dcmread(SMALL).PixelData
    second_frame = (np.frombuffer(first_frame, "<i2") + 1).astype("<i2").tobytes()
    path = changed(tmp_path / "f.dcm", NumberOfFrames=2, PixelData=first_frame + second_frame)
    ds = pydicom.dcmread(path)
    ds.PerFrameFunctionalGroupsSequence = [pydicom.Dataset(), pydicom.Dataset()]
    ds.save_as(path)
    np.testing.assert_array_equal(read_slice(path, 2), read_slice(path, 1) + 1)
    for frame, reason in ((3, "no frame 3"), (0, "no frame 0"), (None, "state which one")):
        with pytest.raises(NotDicom, match=reason):
            read_slice(path, frame)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"Rows": 65}, "cut short: 8192 of 8320 bytes"),
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"Rows": 60000, "Columns": 60000}, "larger than"),
        ({"Rows": 0}, "empty"),
        ({"SamplesPerPixel": 3}, "not a greyscale"),
        ({"PhotometricInterpretation": "RGB"}, "not a greyscale"),
        ({"BitsAllocated": 64}, "BitsAllocated"),
        ({"BitsStored": 209}, "BitsStored"),
    ],
)
def test_what_the_header_states_is_checked_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, object], reason: str
) -> None:
    monkeypatch.setattr(pixels, "pixel_array", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(NotDicom, match=reason):
        read_slice(changed(tmp_path / "c.dcm", **values), None)


def test_truncated_pixels_are_refused_as_such() -> None:
    with pytest.raises(NotDicom, match="the pixels are cut short: 8130 of 8192 bytes"):
        read_slice(shipped("MR_truncated.dcm"), None)


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_truncated_fragment_is_refused_as_such(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(shipped(name).read_bytes()[:-1000])
    with pytest.raises(NotDicom, match="cut short"):
        read_slice(path, None)


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_missing_closing_delimiter_is_tolerated(tmp_path: Path, name: str) -> None:
    content = shipped(name).read_bytes()
    end = content.rindex(b"\xfe\xff\xdd\xe0")
    path = tmp_path / name
    path.write_bytes(content[:end])
    np.testing.assert_array_equal(read_slice(path, None), read_slice(SMALL, None))


def test_a_file_without_pixels_is_refused_as_such(tmp_path: Path) -> None:
    content = SMALL.read_bytes()
    path = tmp_path / "none.dcm"
    path.write_bytes(content[: content.index(b"\xe0\x7f\x10\x00OW")])
    with pytest.raises(NotDicom, match="no pixels"):
        read_slice(path, None)


@pytest.mark.parametrize(
    ("name", "at"), [("MR_small_jp2klossless.dcm", 8), ("MR_small_jpeg_ls_lossless.dcm", 5)]
)
def test_a_codestream_that_claims_another_size_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    monkeypatch.setattr(pixels, "decode", lambda *_: pytest.fail("it was decoded"))
    content = bytearray(shipped(name).read_bytes())
    start = content.index(b"\xff\x4f\xff\x51") if "jp2k" in name else content.index(b"\xff\xf7")
    content[start + at] = 0x7F
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(NotDicom, match="rows and columns"):
        read_slice(path, None)


def test_declared_sizes_are_rows_then_columns() -> None:
    sof = b"\xff\xc3\x00\x0b\x0c\x01\x40\x01\x00\x01\x01\x11\x00"
    assert declared_size(b"\xff\xd8\xff\xe0\x00\x04AB" + sof) == (320, 256)
    assert declared_size(b"\xff\xd8\xff\xe0\x00\x04AB") == (0, 0)
    assert declared_size(b"\x00\x00\x00\x02RLE") is None


def test_a_crashed_decoder_gives_a_reason_and_the_next_slice_is_read() -> None:
    path = shipped("MR_small_jp2klossless.dcm")
    expected = read_slice(path, None)
    assert decoder.child.pid is not None
    os.kill(decoder.child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, decoder.child.pid, os.WEXITED | os.WNOWAIT)
    np.testing.assert_array_equal(read_slice(path, None), expected)


def test_compressed_frames_are_read_by_their_number(tmp_path: Path) -> None:
    ds = pydicom.dcmread(SMALL)
    second_frame = np.stack([ds.pixel_array, ds.pixel_array[::-1]])
    ds.NumberOfFrames = 2
    ds.PerFrameFunctionalGroupsSequence = [pydicom.Dataset(), pydicom.Dataset()]
    ds.PixelData = second_frame.tobytes()
    ds.compress(pydicom.uid.RLELossless)
    ds.save_as(tmp_path / "two.dcm")
    for frame in (1, 2):
        np.testing.assert_array_equal(
            read_slice(tmp_path / "two.dcm", frame), second_frame[frame - 1]
        )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused_without_any_other_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["MR_small.dcm", "MR_small_implicit.dcm", *COMPRESSED]))
    content = bytearray(shipped(name).read_bytes())
    generator = random.Random(data.draw(st.integers(0, 2**32)))
    for _ in range(generator.randint(0, 5)):
        content[generator.randrange(len(content))] = generator.randrange(256)
    if generator.random() < 0.5:
        del content[generator.randrange(len(content)) :]
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    path.write_bytes(content)
    try:
        image = read_slice(path, None)
    except LumbarError as error:
        reason = str(error)
    else:
        assert not np.isinf(image).any()  # padding is NaN
        return
    assert "\n" not in reason


def test_a_real_jpeg_lossless_slice_without_its_closing_delimiter_is_read(real_files: Path) -> None:
    image = read_slice(real_files / "lumbar/siemens-1.5T-axial-t2-jpeg-lossless.dcm", None)
    assert image.shape == (320, 320)
    assert (image.min(), image.max()) == (0, 819)


def test_real_frames_differ_and_each_is_read_separately(real_files: Path) -> None:
    path = real_files / "not-lumbar/enhanced-mr-brain-multiframe.dcm"
    first, last = read_slice(path, 1), read_slice(path, 15)
    assert first.shape == last.shape == (256, 256)
    assert np.abs(first - last).mean() > 1
    np.testing.assert_array_equal(last, pydicom.dcmread(path).pixel_array[14])


def folder_of_files(folder: Path) -> Path:
    (folder / "series").mkdir(parents=True)
    (folder / "series" / "b.dcm").write_bytes(SMALL.read_bytes())
    (folder / "a.dcm").write_bytes(shipped("MR_small_RLE.dcm").read_bytes())
    (folder / "ct.dcm").write_bytes(shipped("CT_small.dcm").read_bytes())
    (folder / "notes.txt").write_text("no DICOM here")
    return folder


def test_a_folder_gives_its_mr_instances_and_a_reason_for_every_other_file(tmp_path: Path) -> None:
    instances, refused = find_instances(folder_of_files(tmp_path / "in"), tmp_path)
    assert [f.path.name for f in instances] == ["a.dcm", "b.dcm"]
    assert [len(f.slices) for f in instances] == [1, 1]
    assert {r.path.name: r.reason for r in refused} == {
        "ct.dcm": "not an MR image",
        "notes.txt": "not a DICOM file",
    }


def test_a_zip_is_read_within_the_scratch_folder_whatever_its_names(tmp_path: Path) -> None:
    scratch = tmp_path / "deep" / "scratch"
    scratch.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "study", "w") as archive:
        archive.write(SMALL, "../../../escaped.dcm")
        archive.write(SMALL, "/absolute.dcm")
    instances, refused = find_instances(tmp_path / "study", scratch)
    assert len(instances) == 2
    assert not refused
    assert {f.path.parent for f in instances} == {scratch}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "study"]
    assert read_slice(instances[0].path, None).shape == (64, 64)


def test_an_input_without_anything_to_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotAnalysable, match="holds no DICOM files"):
        find_instances(tmp_path / "empty", tmp_path)
    with pytest.raises(NotAnalysable, match="not an MR image"):
        find_instances(shipped("CT_small.dcm"), tmp_path)
    with pytest.raises(NotAnalysable, match="cannot be opened"):
        find_instances(tmp_path / "nowhere", tmp_path)
