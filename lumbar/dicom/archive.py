"""Unpacks a zip of unknown origin: a child process inflates it, this process counts and writes.

Stored and deflated members only: other methods inflate without a bound. Members are numbered, never
named, and none is opened as a zip again. ``python -m lumbar.dicom.archive`` is the child process;
of the zip, it is the only one to read more than the first bytes.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from struct import Struct
from time import monotonic
from typing import IO, Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from lumbar.errors import NotAnalysable
from lumbar.sandbox import ChildProcess, ChildProcessDied, serve
from lumbar.untrusted_pipe import Response

MAX_FILES = 20_000  # and folders
MAX_BYTES = 4 * 2**30  # of the unpacked contents
MAX_DIRECTORY = 16 * 2**20  # bytes of the zip's own list of its members
SECONDS = 10  # per request, which is for one chunk
MEMORY = 192 * 2**20  # bytes
LIMIT_S = 600  # for all of it
CHUNK = 2**20
ROOM_CHECK_BYTES = 64 * 2**20  # unpacked between two checks of the room on the disk
TOO_LARGE = f"the zip unpacks to more than {MAX_BYTES // 2**30} GiB"
_STARTS = (b"PK\x03\x04", b"PK\x05\x06")

# APPNOTE.TXT 4.3.16, 4.3.15, 4.3.14, 4.3.12: the records by which a zip states its members
_END = Struct("<4s4H2LH")
_LOCATOR = Struct("<4sLQL")
_END64 = Struct("<4sQ2H2L4Q")
_MEMBER = Struct("<4s24x3H12x")
_MAX_COMMENT = 2**16 - 1
_LOCAL_HEADER = 30  # bytes, at least
_ENCRYPTED = 0x2041  # flag bits 0, 6 and 13


def is_zip(path: Path) -> bool:
    """Whether the file begins as a zip does; a folder does not.

    Raises:
        NotAnalysable: it cannot be opened.
    """
    if path.exists() and not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(4) in _STARTS
    except OSError as fault:
        raise NotAnalysable(f"the input cannot be opened: {fault.strerror}") from None


def unpack(
    path: Path, scratch: Path, require_room: Callable[[], None] = lambda: None
) -> list[Path]:
    """The files of a zip, written into an empty folder in the order of their names.

    ``require_room`` is called now and then, and raises where the disk has no room for more.

    Raises:
        NotAnalysable: it is damaged, encrypted, too large, or compressed by another method.
        OSError: the zip cannot be read, or the files cannot be written.
    """
    with closing(_child()) as child:
        requests = _Requests(child)
        count = requests.answer(open=str(path.resolve()))[0]["files"]
        files: list[Path] = []
        remaining, check_at = MAX_BYTES, MAX_BYTES
        for ordinal in range(1, count + 1):
            files.append(scratch / f"{ordinal:06}.dcm")
            with files[-1].open("wb") as target:
                for chunk in requests.chunks():
                    remaining -= len(chunk)
                    if remaining < 0:
                        raise NotAnalysable(TOO_LARGE)
                    if remaining <= check_at:
                        require_room()
                        check_at = remaining - ROOM_CHECK_BYTES
                    target.write(chunk)
    return files


def _child() -> ChildProcess:
    return ChildProcess("lumbar.dicom.archive", seconds=SECONDS, max_content=CHUNK)


class _Requests:
    """What is asked of one child process, within ``LIMIT_S``."""

    def __init__(self, child: ChildProcess) -> None:
        self._child = child
        self._until = monotonic() + LIMIT_S

    def chunks(self) -> Iterator[bytes]:
        """The content of the next file; raises as ``answer``."""
        end = False
        while not end:
            response, chunk = self.answer()
            end = response["end"]
            yield chunk

    def answer(self, **request: str) -> Response:
        """The child's answer.

        Raises:
            NotAnalysable: the zip is refused, or unpacking exceeds the limits.
            OSError: the zip's disk cannot be read.
        """
        try:
            response, chunk = self._child.request(request, until=self._until)
        except ChildProcessDied:
            raise NotAnalysable("unpacking the zip exceeds the time or memory limit") from None
        if "refused" in response:
            raise NotAnalysable(response["refused"])
        if "errno" in response:
            raise OSError(response["errno"], os.strerror(response["errno"]))
        return response, chunk


class _Unpacker:
    """The child's side: one zip."""

    def __init__(self) -> None:
        self._contents: Iterator[tuple[bytes, bool]] = iter(())

    def respond(self, request: dict[str, Any]) -> Response:
        """How many files the zip holds that is to be opened; or else the next chunk of them."""
        try:
            if "open" in request:
                archive, members = _opened(Path(request["open"]))
                self._contents = _contents(archive, members)
                return {"files": len(members)}, b""
            chunk, end = next(self._contents)
        except NotAnalysable as refusal:
            return {"refused": str(refusal)}, b""
        except Exception as fault:  # noqa: BLE001 - whatever zipfile makes of damaged bytes
            if isinstance(fault, OSError) and fault.errno:
                return {"errno": fault.errno}, b""
            return {"refused": "the zip cannot be unpacked: it is damaged"}, b""
        return {"end": end}, chunk


def _contents(archive: ZipFile, members: list[ZipInfo]) -> Iterator[tuple[bytes, bool]]:
    """Chunk by chunk, each with whether it is its member's last."""
    for member in members:
        with archive.open(member) as source:
            yield from _chunks(source)


def _chunks(source: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    chunk = source.read(CHUNK)
    while following := source.read(CHUNK):
        yield chunk, False
        chunk = following
    yield chunk, True


def _opened(path: Path) -> tuple[ZipFile, list[ZipInfo]]:
    """The open zip and its files by name, of which none has been inflated yet.

    Raises:
        NotAnalysable: it is not to be unpacked.
        BadZipFile: it is damaged.
    """
    with path.open("rb") as stream:
        count = _count_members(stream)
    archive = ZipFile(path)
    members = archive.infolist()
    if len(members) != count or _overlap(members):
        raise BadZipFile
    if any(member.flag_bits & _ENCRYPTED for member in members):
        raise NotAnalysable("the zip cannot be unpacked: it is encrypted")
    if any(member.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for member in members):
        raise NotAnalysable(
            "the zip is compressed by an unusual method; pack it again as an ordinary zip (deflate)"
        )
    files = [member for member in members if not member.is_dir()]
    if sum(member.file_size for member in files) > MAX_BYTES:
        raise NotAnalysable(TOO_LARGE)
    return archive, sorted(files, key=lambda member: member.filename)


def _overlap(members: list[ZipInfo]) -> bool:
    """Whether bytes of the zip belong to two members: few bytes could be many files."""
    by_place = sorted(members, key=lambda member: member.header_offset)
    return any(
        one.header_offset + _LOCAL_HEADER + one.compress_size > next_one.header_offset
        for one, next_one in pairwise(by_place)
    )


def _count_members(stream: BinaryIO) -> int:
    """How many members are listed, counted without keeping any.

    Raises:
        NotAnalysable: they are too many.
        BadZipFile: the list is damaged, of another length than stated, or on another disk.
    """
    end_at, stated, size = _stated(stream)
    if stated > MAX_FILES:
        raise NotAnalysable(f"the zip holds more than {MAX_FILES} files and folders")
    if size > MAX_DIRECTORY:
        raise NotAnalysable("the names of the zip's files are too long")
    stream.seek(end_at - size)
    directory, at, count = stream.read(size), 0, 0
    while at < size and count <= stated:
        signature, *lengths = _MEMBER.unpack_from(directory, at)
        if signature != b"PK\x01\x02":
            raise BadZipFile
        at += _MEMBER.size + sum(lengths)  # of name, extra fields and comment
        count += 1
    if count != stated or at != size:
        raise BadZipFile
    return count


def _stated(stream: BinaryIO) -> tuple[int, int, int]:
    """Where the list of members ends, how many it has, and how many bytes.

    Raises:
        BadZipFile: there is no such statement, or it names another disk.
    """
    start = max(0, stream.seek(0, os.SEEK_END) - _END.size - _MAX_COMMENT)
    stream.seek(start)
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + _END.size:
        raise BadZipFile
    _, disk, first, here, stated, size, _, _ = _END.unpack_from(tail, at)
    end_at, locator_at = start + at, start + at - _LOCATOR.size
    if locator_at >= _END64.size and _at(stream, locator_at, b"PK\x06\x07"):
        _, _, _, disks = _LOCATOR.unpack(stream.read(_LOCATOR.size))
        end_at = locator_at - _END64.size  # where zipfile expects it, too
        if disks > 1 or not _at(stream, end_at, b"PK\x06\x06"):
            raise BadZipFile
        *_, disk, first, here, stated, size, _ = _END64.unpack(stream.read(_END64.size))
    if disk or first or here != stated or size > end_at:
        raise BadZipFile
    return end_at, stated, size


def _at(stream: BinaryIO, place: int, signature: bytes) -> bool:
    """Moves to a place; whether a record of this signature begins there."""
    stream.seek(place)
    found = stream.read(len(signature)) == signature
    stream.seek(place)
    return found


if __name__ == "__main__":
    serve(_Unpacker().respond, seconds=SECONDS, memory=MEMORY)
