"""Slices are decoded once, and not all of them are kept."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lumbar.dicom import slice_reader
from lumbar.dicom.discover import find_instances
from lumbar.dicom.slice_reader import SliceReader
from lumbar.phantoms import PhantomTruth


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
    found, _ = find_instances(phantom(1)[0], tmp_path)
    slices = SliceReader(found)
    first, second, third = slices.headers[:3]
    assert (slices.read(first) == slices.read(first)).all()
    assert len(decoded) == 1
    monkeypatch.setattr(slice_reader, "KEPT", 2 * slices.read(first).nbytes)
    for header in (second, first, third):
        slices.read(header)
    assert len(decoded) == 3
    slices.read(second)
    assert len(decoded) == 3
    slices.read(first)
    assert len(decoded) == 4
