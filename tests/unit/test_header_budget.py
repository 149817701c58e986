"""The headers of one input are bounded together, however they hold what they hold."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset, Sequence

from commands.analyse import analyse, classify
from lumbar.dicom import header_budget, instance_identity
from lumbar.dicom.discover import find_instances
from lumbar.errors import NotAnalysable, NotDicom
from tests.factories.instances import make_slice

FILES = 3


def many_elements(ds: Dataset) -> None:
    block = ds.private_block(0x0043, "LUMBAR TEST", create=True)
    for number in range(200):
        block.add_new(number, "LO", "")


def many_nested_elements(ds: Dataset) -> None:
    ds.RequestAttributesSequence = Sequence([Dataset() for _ in range(200)])
    for item in ds.RequestAttributesSequence:
        item.ScheduledProcedureStepID = ""
    ds["RequestAttributesSequence"].is_undefined_length = True


def large_value(ds: Dataset) -> None:
    ds.private_block(0x0043, "LUMBAR TEST", create=True).add_new(1, "OB", bytes(10_000))


@pytest.mark.parametrize(
    ("limit", "value", "filled"),
    [
        ("MAX_ELEMENTS", 500, many_elements),
        ("MAX_ELEMENTS", 500, many_nested_elements),
        ("MAX_BYTES", 25_000, large_value),
    ],
)
def test_headers_that_hold_too_much_together_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
    filled: Callable[[Dataset], None],
) -> None:
    for number in range(1, FILES + 1):
        ds = make_slice(number=number)
        filled(ds)
        ds.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    assert len(find_instances(tmp_path, tmp_path)[0]) == FILES

    monkeypatch.setattr(header_budget, limit, value)

    with pytest.raises(NotAnalysable, match="choose fewer files"):
        find_instances(tmp_path, tmp_path)
    assert find_instances(tmp_path / "1.dcm", tmp_path)[0]


@pytest.mark.parametrize("command", [analyse, classify])
def test_commands_open_no_file_that_the_child_process_could_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[[Path], None]
) -> None:
    def refuse(path: Path, *, whole: bool) -> None:
        raise NotDicom(f"refused as a whole: {whole}")

    monkeypatch.setenv("LUMBAR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(instance_identity, "identify", refuse)
    make_slice().save_as(tmp_path / "a.dcm", enforce_file_format=True)

    with pytest.raises(NotAnalysable, match="refused as a whole: True"):
        command(tmp_path / "a.dcm")
