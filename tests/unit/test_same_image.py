"""Two files hold the same image, however an archive has encoded them; or they do not."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEGLSLossless, RLELossless

from lumbar.dicom import same_image
from lumbar.dicom.same_image import Comparison, compare
from lumbar.errors import Unreadable
from lumbar.sandbox import ChildProcessDied
from tests.factories.instances import make_slice

SAME = Comparison(a_readable=True, b_readable=True, same=True)
ANOTHER = Comparison(a_readable=True, b_readable=True, same=False)
UNREADABLE = Comparison(a_readable=True, b_readable=False, same=False)

Change = Callable[[Dataset], None]


def shipped(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


SMALL = shipped("MR_small.dcm")


def setting(**values: object) -> Change:
    def change(ds: Dataset) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return change


def changed(path: Path, change: Change, original: Path = SMALL) -> Path:
    ds = pydicom.dcmread(original)
    change(ds)
    ds.save_as(path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm"),
        *("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"),
        "MR_small_padded.dcm",
    ],
)
def test_every_transfer_syntax_holds_the_same_image(name: str) -> None:
    assert compare(SMALL, shipped(name)) == SAME
    assert compare(shipped(name), SMALL) == SAME


@pytest.mark.parametrize(
    "command",
    [
        ["dcmconv", "+ti"],
        ["dcmconv", "+tb"],
        ["dcmconv", "+te", "+e"],
        ["dcmcjpls"],
        ["dcmcjpeg", "+e1"],
        ["dcmcjpeg", "+el"],
        ["dcmcrle"],
    ],
    ids=" ".join,
)
def test_what_dcmtk_rewrites_without_loss_is_the_same_image(
    tmp_path: Path, command: list[str]
) -> None:
    written = tmp_path / "written.dcm"
    subprocess.run([*command, SMALL, written], check=True, capture_output=True)
    assert compare(SMALL, written) == SAME


def test_attributes_that_an_archive_corrects_do_not_matter(tmp_path: Path) -> None:
    written = shutil.copy(SMALL, tmp_path / "written.dcm")
    corrections = [
        "(0008,0080)=Hospital",
        "(0010,0010)=Doe^Jane",
        "(0008,0018)=1.2.3",
        "(0020,4000)=x",
    ]
    inserted = [word for correction in corrections for word in ("-i", correction)]
    subprocess.run(["dcmodify", "-nb", "-gse", *inserted, written], check=True, capture_output=True)
    assert compare(SMALL, written) == SAME


def without_padding_bits(ds: Dataset) -> None:
    """Four bits beside the stored twelve, once of overlays, hold something else."""
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
    ds.PixelData = (ds.pixel_array.astype("<u2") & 0x0FFF).tobytes()


def with_padding_bits(ds: Dataset) -> None:
    without_padding_bits(ds)
    ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") | 0xA000).tobytes()


def test_bits_beside_the_stored_ones_do_not_matter(tmp_path: Path) -> None:
    plain = changed(tmp_path / "plain.dcm", without_padding_bits)
    assert compare(plain, changed(tmp_path / "other.dcm", with_padding_bits)) == SAME


def with_private_elements(ds: Dataset) -> None:
    ds.private_block(0x0029, "LUMBAR TEST", create=True).add_new(1, "OB", b"1234")


def with_another_character_set(ds: Dataset) -> None:
    ds.SpecificCharacterSet, ds.InstitutionName = "ISO_IR 192", "Klinikum Süd"


@pytest.mark.parametrize(
    "change",
    [
        with_private_elements,
        with_another_character_set,
        setting(ImagePositionPatient=["-83.906300", "-91.20000001", "6.59406"]),
        setting(RescaleSlope="1", RescaleIntercept="0"),
        setting(WindowCenter="10", WindowWidth="20"),
    ],
)
def test_the_same_image_with_other_elements(tmp_path: Path, change: Change) -> None:
    changed(tmp_path / "a.dcm", setting(ImagePositionPatient=["-83.9063", "-91.2", "6.59406"]))
    b = changed(tmp_path / "b.dcm", change, tmp_path / "a.dcm")
    assert compare(tmp_path / "a.dcm", b) == SAME


def with_another_pixel(ds: Dataset) -> None:
    pixels = ds.pixel_array.copy()
    pixels[40, 17] += 1
    ds.PixelData = pixels.tobytes()


def transposed(ds: Dataset) -> None:
    ds.Rows, ds.Columns = 32, 128


def with_padding(ds: Dataset) -> None:
    ds.add_new("PixelPaddingValue", "SS", int(ds.pixel_array[3, 3]))


@pytest.mark.parametrize(
    "change",
    [
        with_another_pixel,
        transposed,
        setting(ImagePositionPatient=[0, 0, 6.6]),
        setting(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
        setting(PixelSpacing=[0.3125, 0.3126]),
        setting(FrameOfReferenceUID="1.2.3"),
        setting(PhotometricInterpretation="MONOCHROME1"),
        setting(RescaleSlope="2", RescaleIntercept="0"),
        setting(RescaleSlope="1", RescaleIntercept="5"),
        setting(BitsStored=15, HighBit=14),
        setting(PixelRepresentation=0),
        with_padding,
        setting(ImagePositionPatient=None),
    ],
)
def test_another_image(tmp_path: Path, change: Change) -> None:
    assert compare(SMALL, changed(tmp_path / "b.dcm", change)) == ANOTHER


def test_lossy_compression_makes_another_image(tmp_path: Path) -> None:
    original, lossy = changed(tmp_path / "a.dcm", without_padding_bits), tmp_path / "lossy.dcm"
    subprocess.run(["dcmcjpls", "+en", original, lossy], check=True, capture_output=True)
    assert compare(original, lossy) == ANOTHER


def cut_short(ds: Dataset) -> None:
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([frame[: len(frame) // 4 * 2]])


@pytest.mark.parametrize(
    "name",
    [
        *("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"),
        pytest.param("MR_small_jpeg_ls_lossless.dcm", marks=pytest.mark.slow),  # CharLS takes 5 s
    ],
)
def test_a_codestream_that_is_cut_short_is_not_readable(tmp_path: Path, name: str) -> None:
    damaged = changed(tmp_path / name, cut_short, shipped(name))
    assert compare(SMALL, damaged) == UNREADABLE


def test_either_file_or_both_may_be_unreadable(tmp_path: Path) -> None:
    damaged = changed(tmp_path / "d.dcm", cut_short, shipped("MR_small_RLE.dcm"))
    assert compare(damaged, SMALL) == Comparison(a_readable=False, b_readable=True, same=False)
    assert compare(damaged, damaged) == Comparison(a_readable=False, b_readable=False, same=False)


@pytest.mark.parametrize("bytes_left", [0, 100, 1000, 9000])
def test_a_file_that_is_cut_short_is_not_readable(tmp_path: Path, bytes_left: int) -> None:
    (tmp_path / "cut.dcm").write_bytes(SMALL.read_bytes()[:bytes_left])
    assert compare(SMALL, tmp_path / "cut.dcm") == UNREADABLE


def test_another_kind_of_object_is_not_readable() -> None:
    assert compare(SMALL, shipped("CT_small.dcm")) == UNREADABLE


def enhanced(count: int = 3) -> Dataset:
    """An Enhanced MR image; each frame has its position, and the second its own rescaling."""
    ds = make_slice()
    ds.SOPClassUID = pydicom.uid.EnhancedMRImageStorage
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.NumberOfFrames = count
    pixels = np.arange(count * 64, dtype="<u2")
    ds.PixelData = pixels.tobytes()
    groups = []
    for number in range(count):
        group, position, rescale = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [number * 4.0, 0, 0]
        rescale.RescaleSlope, rescale.RescaleIntercept = number + 1, 0
        group.PlanePositionSequence = [position]
        group.PixelValueTransformationSequence = [rescale]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    del ds.ImagePositionPatient
    return ds


def saved(path: Path, ds: Dataset) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_an_enhanced_image_is_the_same_after_compression(
    tmp_path: Path, syntax: pydicom.uid.UID
) -> None:
    a = saved(tmp_path / "a.dcm", enhanced())
    compressed = pydicom.dcmread(a)
    compressed.compress(syntax)
    assert compare(a, saved(tmp_path / "b.dcm", compressed)) == SAME


def another_last_pixel(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[:-2] + b"\7\7"


def another_position(ds: Dataset) -> None:
    position = ds.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    position.ImagePositionPatient = [8.01, 0, 0]


def another_slope(ds: Dataset) -> None:
    rescale = ds.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence[0]
    rescale.RescaleSlope = "2.1"


def fewer_frames(ds: Dataset) -> None:
    ds.NumberOfFrames = 2
    del ds.PerFrameFunctionalGroupsSequence[2]


@pytest.mark.parametrize(
    "change", [another_last_pixel, another_position, another_slope, fewer_frames]
)
@pytest.mark.parametrize("batch", [1, 128, same_image.BATCH_PIXELS])
def test_a_difference_in_one_frame_is_found(tmp_path: Path, change: Change, batch: int) -> None:
    ds = enhanced()
    a = saved(tmp_path / "a.dcm", ds)
    change(ds)
    b = saved(tmp_path / "b.dcm", ds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(same_image, "BATCH_PIXELS", batch)
        patch.setattr(same_image, "_request", in_this_process)
        assert compare(a, a) == SAME
        assert compare(a, b) == ANOTHER


def in_this_process(path: Path, first: int) -> dict[str, Any]:
    return same_image._described(path, first)


def test_frames_without_their_groups_are_not_readable(tmp_path: Path) -> None:
    ds = enhanced()
    a = saved(tmp_path / "a.dcm", ds)
    del ds.PerFrameFunctionalGroupsSequence[2]
    assert compare(a, saved(tmp_path / "b.dcm", ds)) == UNREADABLE


def test_only_a_file_that_kills_the_child_process_is_unreadable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killer = shipped("MR_small_RLE.dcm")
    request, requests = same_image.child.request, list[str]()

    def dying(content: dict[str, Any]) -> Any:
        requests.append(content["path"])
        if content["path"] == str(killer):
            raise ChildProcessDied
        return request(content)

    monkeypatch.setattr(same_image.child, "request", dying)
    assert compare(SMALL, killer) == UNREADABLE
    assert compare(killer, SMALL) == Comparison(a_readable=False, b_readable=True, same=False)
    assert requests.count(str(killer)) == 4


def test_a_child_process_that_was_killed_is_started_again() -> None:
    assert compare(SMALL, SMALL) == SAME
    assert same_image.child.pid is not None
    os.kill(same_image.child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, same_image.child.pid, os.WEXITED | os.WNOWAIT)
    assert compare(SMALL, SMALL) == SAME


def test_a_file_that_the_disk_does_not_give_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        compare(SMALL, tmp_path / "missing.dcm")


def test_real_enhanced_frames_are_the_same_after_compression(
    tmp_path: Path, real_files: Path
) -> None:
    original = real_files / "not-lumbar/enhanced-mr-brain-multiframe.dcm"
    written = tmp_path / "written.dcm"
    subprocess.run(["dcmcjpls", original, written], check=True, capture_output=True)
    assert compare(original, written) == SAME
