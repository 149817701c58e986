"""Zips are unpacked by a confined child process: all of what they hold, or a reason why not."""

import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.dicom import archive
from lumbar.dicom.archive import CHUNK, unpack
from lumbar.errors import NotAnalysable
from lumbar.store.files import StoreFull

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
METHODS = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])


def zipped(contents: dict[str, bytes], method: int, comment: bytes = b"") -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as writing:
        for name, content in contents.items():
            writing.writestr(name, content)
        writing.comment = comment
    return buffer.getvalue()


def answers(path: Path) -> list[dict[str, object]]:
    """What the child process answers, until it refuses or all has been unpacked."""
    unpacker = archive._Unpacker()
    given_ = [unpacker.respond({"open": str(path)})[0]]
    files = given_[0].get("files", 0)
    while files and "refused" not in given_[-1]:
        given_.append(unpacker.respond({})[0])
        files -= bool(given_[-1].get("end"))
    return given_


@given(st.dictionaries(NAMES, st.binary(max_size=300), max_size=5), METHODS, st.binary(max_size=50))
@settings(max_examples=15, deadline=None)
def test_all_files_are_unpacked_in_the_order_of_their_names(
    tmp_path_factory: pytest.TempPathFactory,
    contents: dict[str, bytes],
    method: int,
    comment: bytes,
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    (folder / "study.zip").write_bytes(zipped(contents, method, comment))
    (scratch := folder / "scratch").mkdir()
    with zipfile.ZipFile(folder / "study.zip") as reading:
        members = [member for member in reading.infolist() if not member.is_dir()]
        expected = [
            reading.read(member) for member in sorted(members, key=lambda one: one.filename)
        ]

    assert [file.read_bytes() for file in unpack(folder / "study.zip", scratch)] == expected


def test_a_file_of_several_chunks_is_whole(tmp_path: Path) -> None:
    contents = {
        f"{size}": bytes(range(251)) * (size // 251) for size in (251, 2**20, 3 * 2**20 + 17)
    }
    (tmp_path / "study.zip").write_bytes(zipped(contents, zipfile.ZIP_DEFLATED))
    (scratch := tmp_path / "scratch").mkdir()

    files = unpack(tmp_path / "study.zip", scratch)

    assert sorted(file.read_bytes() for file in files) == sorted(contents.values())


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_zip_is_refused_or_unpacked_but_never_a_fault(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(
        zipped({"a.dcm": b"abc" * 50, "b/": b"", "b/c": b"x"}, zipfile.ZIP_DEFLATED)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.sampled_from([0, 1, 8, 0x50, 0x7F, 0x80, 0xFF]))
    path = tmp_path_factory.mktemp("zip") / "study.zip"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])

    *_, last = answers(path)

    assert set(last) in ({"files"}, {"end"}, {"refused"})


def test_bytes_are_counted_as_they_come_whatever_the_zip_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 9000)  # in this process, not in the child
    (tmp_path / "study.zip").write_bytes(zipped({"a": bytes(9001)}, zipfile.ZIP_DEFLATED))

    with pytest.raises(NotAnalysable, match="unpacks to more"):
        unpack(tmp_path / "study.zip", tmp_path)


def test_the_room_on_the_disk_is_looked_at_while_a_zip_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "ROOM_CHECK_BYTES", 2 * CHUNK)
    contents = {"a": bytes(3 * CHUNK), "b": bytes(4 * CHUNK)}
    (tmp_path / "study.zip").write_bytes(zipped(contents, zipfile.ZIP_DEFLATED))
    written = list[int]()

    def require_room() -> None:
        written.append(sum(file.stat().st_size for file in tmp_path.glob("*.dcm")))
        if len(written) == 3:
            raise StoreFull("no room")

    with pytest.raises(StoreFull):
        unpack(tmp_path / "study.zip", tmp_path, require_room)

    assert [size // CHUNK for size in written] == [0, 2, 4]


def test_unpacking_that_takes_too_long_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LIMIT_S", 0)
    (tmp_path / "study.zip").write_bytes(zipped({"a": b""}, zipfile.ZIP_DEFLATED))

    with pytest.raises(NotAnalysable, match="exceeds the time or memory limit"):
        unpack(tmp_path / "study.zip", tmp_path)


def test_a_disk_that_fails_is_not_the_zips_fault(tmp_path: Path) -> None:
    (tmp_path / "study.zip").write_bytes(zipped({"a": b""}, zipfile.ZIP_DEFLATED))

    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "study.zip", tmp_path / "removed")
    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "removed.zip", tmp_path)


def test_a_file_with_a_wrong_checksum_is_damaged(tmp_path: Path) -> None:
    content = bytearray(zipped({"a": bytes(1000)}, zipfile.ZIP_STORED))
    content[500] ^= 0xFF
    (tmp_path / "study.zip").write_bytes(content)

    with pytest.raises(NotAnalysable, match="damaged"):
        unpack(tmp_path / "study.zip", tmp_path)
