"""A slice is decoded once while it stays in memory, and the memory is bounded."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lumbar.dicom import slice_reader
from lumbar.dicom.discover import find_instances
from lumbar.dicom.slice_reader import SliceReader
from lumbar.phantoms import PhantomTruth


@pytest.mark.slow
def test_a_slice_is_decoded_once_while_there_is_room_for_it(
    phantom: Callable[[int], tuple[Path, PhantomTruth]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded: list[int | None] = []
    read_slice = slice_reader.read_slice
    monkeypatch.setattr(
        slice_reader,
        "read_slice",
        lambda path, frame: (decoded.append(frame), read_slice(path, frame))[1],
    )
    instances, _ = find_instances(phantom(1)[0], tmp_path)
    first, second, third = SliceReader(instances).headers[:3]
    image_bytes = first.rows * first.columns * 4
    slices = SliceReader(instances, max_bytes=2 * image_bytes)
    assert (slices.read(first) == slices.read(first)).all()
    assert slices.read(first).nbytes == image_bytes
    assert len(decoded) == 1
    for header in (second, first, third):
        slices.read(header)
    assert len(decoded) == 3
    slices.read(first)
    assert len(decoded) == slices.decoded == 3
    slices.read(second)
    assert len(decoded) == 4


def test_a_slice_larger_than_the_memory_is_decoded_each_time(
    phantom: Callable[[int], tuple[Path, PhantomTruth]], tmp_path: Path
) -> None:
    instances, _ = find_instances(phantom(1)[0], tmp_path)
    slices = SliceReader(instances, max_bytes=1)
    assert (slices.read(slices.headers[0]) == slices.read(slices.headers[0])).all()
    assert slices.decoded == 2
