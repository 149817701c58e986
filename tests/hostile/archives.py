"""Hostile folders and zips for ``lumbar analyse``, each with the reason that is shown."""

import bz2
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from tests.hostile.pixels import NATIVE

NO_FILES = "the input holds no DICOM files"
DAMAGED = "the zip cannot be unpacked: it is damaged"
TOO_MANY = "the zip holds more than 20000 files and folders"
UNUSUAL = "the zip is compressed by an unusual method; pack it again as an ordinary zip .*"
NO_SLICES = "the input holds no MR slice that can be read: .*"


@dataclass(frozen=True)
class HostileInput:
    name: str
    make: Callable[[Path], Path] = field(repr=False)  # in an empty folder; returns what is analysed
    reason: str | None  # None: it is read, and nothing outside it is


def _zip(
    *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def _file(content: bytes, before: bytes = b"", name: str = "study.zip") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(before + content)
        return folder / name

    return make


def _zeros(mib: int, copies: int, stated: int | None = None) -> bytes:
    """A zip of members that each unpack to so many MiB of zeros, without creating them; a thousand to one."""
    packer, piece = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(2**20)
    # What is packed up to a full flush can be repeated.
    packed = mib * (packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)) + packer.flush()
    check = 0
    for _ in range(mib):
        check = zlib.crc32(piece, check)
    size, local, central = stated or mib * 2**20, b"", b""
    for n in range(copies):
        name = b"%05d" % n
        common = struct.pack(
            "<HHHHHLLLHH", 20, 0, 8, 0, 0x21, check, len(packed), size, len(name), 0
        )
        central += (
            b"PK\x01\x02"
            + struct.pack("<H", 20)
            + common
            + struct.pack("<HHHLL", 0, 0, 0, 0, len(local))
            + name
        )
        local += b"PK\x03\x04" + common + name + packed
    return (
        local
        + central
        + struct.pack(
            "<4sHHHHLLH", b"PK\x05\x06", 0, 0, copies, copies, len(central), len(local), 0
        )
    )


def _folders(count: int, stated: int | None = None, disk: int = 0) -> Callable[[Path], Path]:
    """A zip64 that lists so many folders, all of them without a name, and may state otherwise."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, *[0] * 14)
    entry = entry[:28] + struct.pack("<H", 1) + entry[30:] + b"/"
    number = count if stated is None else stated

    def make(folder: Path) -> Path:
        size = count * len(entry)
        with (folder / "study.zip").open("wb") as file:
            file.write(b"PK\x03\x04" + bytes(26))
            for start in range(0, count, 10_000):
                file.write(min(10_000, count - start) * entry)
            end = struct.pack(
                "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, disk, number, number, size, 30
            )
            locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 30 + size, 1)
            short = struct.pack(
                "<4s4H2LH", b"PK\x05\x06", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0
            )
            file.write(end + locator + short)
        return folder / "study.zip"

    return make


def _commented(comment: bytes) -> bytes:
    content = _zip(("a.dcm", NATIVE.read_bytes()))
    return content[:-2] + struct.pack("<H", len(comment)) + comment


def _bz2_bomb() -> bytes:
    """A few kB; the streams of bz2 may follow each other."""
    content = bz2.compress(bytes(2**28), 9)
    packed = _zip(("a.dcm", b""), method=zipfile.ZIP_STORED)
    local, central = packed[: packed.index(b"PK\x01\x02")], packed[packed.index(b"PK\x01\x02") :]
    sizes = struct.pack("<2L", 12 * len(content), 100)
    local = local[:8] + struct.pack("<H", 12) + local[10:18] + sizes + local[26:] + 12 * content
    entry, end = central[:-22], central[-22:]
    entry = entry[:10] + struct.pack("<H", 12) + entry[12:20] + sizes + entry[28:]
    return local + entry + end[:16] + struct.pack("<L", len(local)) + end[20:]


def _overlapping() -> bytes:
    """A hundred listed files that are one."""
    packed = _zip(("a.dcm", NATIVE.read_bytes()))
    at = packed.index(b"PK\x01\x02")
    local, entry, end = packed[:at], packed[at:-22], packed[-22:]
    counts = struct.pack("<2H2L", 100, 100, 100 * len(entry), len(local))
    return local + 100 * entry + end[:8] + counts + end[20:]


def _encrypted() -> bytes:
    content = bytearray(_zip(("a.dcm", NATIVE.read_bytes()), method=zipfile.ZIP_STORED))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def _nested(depth: int) -> bytes:
    content = _zip(("a.dcm", NATIVE.read_bytes()))
    for _ in range(depth):
        content = _zip(("inner.zip", content))
    return content


def _symlink_member(target: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("link.dcm")
    member.create_system, member.external_attr = 3, 0o120777 << 16
    return member


def _link_out(folder: Path) -> Path:
    outside = folder / "outside"
    outside.mkdir()
    (outside / "secret.dcm").write_bytes(NATIVE.read_bytes())
    inside = folder / "inside"
    inside.mkdir()
    (inside / "a.dcm").symlink_to(outside / "secret.dcm")
    (inside / "all").symlink_to(outside, target_is_directory=True)
    return inside


def _loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "self").symlink_to(folder / "self")
    return folder


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.dcm")
    return folder


def _fifo_itself(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.dcm")
    return folder / "pipe.dcm"


def _sparse(folder: Path) -> Path:
    with (folder / "zeros.dcm").open("wb") as file:
        file.truncate(8 * 2**30)
    return folder


def _dicomdir(folder: Path) -> Path:
    (folder / "secret.dcm").write_bytes(NATIVE.read_bytes())
    disc = folder / "disc"
    disc.mkdir()
    head = NATIVE.read_bytes()[:128] + b"DICM"
    meta = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
    path = b"..\\secret.dcm "
    entry = b"\x04\x00\x00\x15CS" + struct.pack("<H", len(path)) + path
    sequence = (
        b"\x04\x00\x20\x12SQ\0\0"
        + struct.pack("<L", len(entry) + 8)
        + b"\xfe\xff\x00\xe0"
        + struct.pack("<L", len(entry))
        + entry
    )
    (disc / "DICOMDIR").write_bytes(head + meta + sequence)
    return disc


INPUTS = [
    HostileInput("an empty file", _file(b""), NO_FILES),
    HostileInput("an empty folder", lambda folder: folder, NO_FILES),
    HostileInput(
        "a file that is not there", lambda folder: folder / "none", "the input cannot be opened: .*"
    ),
    HostileInput("64 MiB of zeros", _file(bytes(2**26), name="zeros.dcm"), NO_FILES),
    HostileInput("8 GiB of zeros, sparse", _sparse, NO_FILES),
    HostileInput("a pipe without a writer, in a folder", _fifo, NO_FILES),
    HostileInput(
        "a pipe without a writer", _fifo_itself, "the input is neither a file nor a folder"
    ),
    HostileInput(
        "a device without end",
        lambda folder: Path("/dev/zero"),
        "the input is neither a file nor a folder",
    ),
    HostileInput("a loop of links", _loop, NO_FILES),
    HostileInput("links out of the folder", _link_out, NO_FILES),
    HostileInput("a DICOMDIR that points outside", _dicomdir, f"{NO_FILES}|{NO_SLICES}"),
    HostileInput(
        "a folder named like a zip",
        lambda folder: (folder / "study.zip").mkdir() or folder / "study.zip",
        NO_FILES,
    ),  # type: ignore[func-returns-value]
    HostileInput("an empty zip", _file(_zip()), NO_FILES),
    HostileInput("a zip cut in two", _file(_zip(("a.dcm", NATIVE.read_bytes()))[:2000]), DAMAGED),
    HostileInput("a zip of one byte more than its mark", _file(b"PK\x03\x04!"), DAMAGED),
    HostileInput(
        "an encrypted zip", _file(_encrypted()), "the zip cannot be unpacked: it is encrypted"
    ),
    HostileInput("a zip within ten zips", _file(_nested(10)), NO_FILES),
    HostileInput(
        "a zip of 20,001 empty files",
        _file(_zip(*[(f"{n}.dcm", b"") for n in range(20_001)])),
        TOO_MANY,
    ),
    HostileInput("a zip of 2,000,000 folders", _folders(2_000_000), TOO_MANY),
    HostileInput("a zip of 300,000 folders that states ten", _folders(300_000, stated=10), DAMAGED),
    HostileInput("a zip of three folders that states four", _folders(3, stated=4), DAMAGED),
    HostileInput("a zip of which half is on another disk", _folders(3, disk=1), DAMAGED),
    HostileInput(
        "a zip whose names take 20 MiB",
        _file(_zip(*[(f"{n:060000}.dcm", b"") for n in range(350)])),
        "the names of the zip's files are too long",
    ),
    HostileInput(
        "a zip with the longest comment, which ends like a zip",
        _file(_commented(b"PK\x05\x06" + bytes(2**16 - 5))),
        NO_FILES,
    ),
    HostileInput("a zip with the longest comment", _file(_commented(b"x" * (2**16 - 1))), None),
    HostileInput(
        "a zip behind a program", _file(_zip(("a.dcm", NATIVE.read_bytes())), b"PK\3\4"), None
    ),
    HostileInput(
        "a zip of 3 GiB of zeros in one bz2 member that states 100 bytes",
        _file(_bz2_bomb()),
        UNUSUAL,
    ),
    HostileInput(
        "a zip compressed by LZMA",
        _file(_zip(("a.dcm", NATIVE.read_bytes()), method=zipfile.ZIP_LZMA)),
        UNUSUAL,
    ),
    HostileInput(
        "a zip of 1 GiB of zeros that states 100 bytes",
        _file(_zeros(1024, copies=1, stated=100)),
        DAMAGED,
    ),
    HostileInput("a zip whose files share their bytes", _file(_overlapping()), DAMAGED),
    HostileInput(
        "a zip within a folder of a zip",
        _file(_zip(("deep/" * 1000 + "inner.zip", _nested(1)), ("a.dcm", NATIVE.read_bytes()))),
        None,
    ),
    HostileInput(
        "a zip of 5 GiB of zeros in 5 MiB",
        _file(_zeros(256, copies=20)),
        "the zip unpacks to more than .*",
    ),
    HostileInput(
        "a zip with a wrong checksum",
        _file(
            _zip(("a.dcm", NATIVE.read_bytes()), method=zipfile.ZIP_STORED).replace(
                b"DICM", b"DICX", 1
            )
        ),
        DAMAGED,
    ),
    HostileInput(
        "a zip whose member is a link",
        _file(_zip((_symlink_member("x"), b"/etc/passwd"))),
        NO_FILES,
    ),
    HostileInput(
        "a zip that climbs out", _file(_zip(("../../escaped.dcm", NATIVE.read_bytes()))), None
    ),
    HostileInput(
        "a zip of absolute names", _file(_zip(("/tmp/escaped.dcm", NATIVE.read_bytes()))), None
    ),
    HostileInput(
        "a zip of one name twice",
        _file(_zip(("a.dcm", b"x"), ("A.dcm", NATIVE.read_bytes()))),
        None,
    ),
    HostileInput(
        "a zip of names with newlines", _file(_zip(("a\n\x1b[2J.dcm", NATIVE.read_bytes()))), None
    ),
]
