"""Hostile pixels in files that are otherwise valid MR images, each with the reason that is shown."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack, unpack_from

import pydicom
from pydicom.data import get_testdata_file

from tests.hostile import wire

NATIVE, RLE, JPEG_2000, JPEG_LS = (
    Path(str(get_testdata_file(f"MR_small{kind}.dcm", download=False)))
    for kind in ("", "_RLE", "_jp2klossless", "_jpeg_ls_lossless")
)
PIXEL_DATA_START = re.compile(b"\xe0\x7f\x10\x00O[BW]\0\0\xff\xff\xff\xff")
ITEM, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0" + bytes(4)

CUT = "the pixels are cut short.*"
UNDECODED = (
    "the pixels cannot be decoded .*|the decoded pixels do not have the header's rows and columns"
)
GREY = "not a greyscale image"
BITS = "BitsAllocated is not 8 or 16, or BitsStored does not fit it"
LARGE = "the image is empty or larger than .* pixels"
OTHER_SIZE = "the compressed pixels do not have the header's rows and columns"
INFLATED = "the compressed pixels are larger than the image they encode"


@dataclass(frozen=True)
class HostileFile:
    name: str
    content: Callable[[], bytes] = field(repr=False)
    reason: (
        str | None
    )  # pattern of the reason; None: it is decoded to what the header states, although damaged


def changed(**values: object) -> bytes:
    """The native file with changed elements; None drops one."""
    ds = pydicom.dcmread(NATIVE)
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    with pydicom.filebase.DicomBytesIO() as buffer:
        ds.save_as(buffer)
        return buffer.getvalue()


def replaced(old: bytes, new: bytes, source: Path = NATIVE) -> bytes:
    content = source.read_bytes()
    assert old in content
    return content.replace(old, new, 1)


def codestream(source: Path) -> bytes:
    """The only fragment of a compressed file."""
    content = source.read_bytes()
    at = _start(content)
    at += 8 + unpack_from("<L", content, at + 4)[0]
    return content[at + 8 : at + 8 + unpack_from("<L", content, at + 4)[0]]


def _start(content: bytes) -> int:
    match = PIXEL_DATA_START.search(content)
    assert match
    return match.end()


def fragments(
    source: Path, *parts: bytes, lengths: tuple[int, ...] = (), end: bytes = SEQUENCE_END
) -> bytes:
    """A compressed file with these fragments, of which the first is the offset table; ``lengths`` replaces theirs."""
    content = source.read_bytes()
    sizes = lengths or tuple(len(part) for part in parts)
    items = b"".join(
        ITEM + pack("<L", size) + part for size, part in zip(sizes, parts, strict=True)
    )
    return content[: _start(content)] + items + end


def headers() -> list[HostileFile]:
    """Headers that contradict the pixels or cannot be right."""
    plain: dict[str, tuple[dict[str, object], str]] = {
        "more rows than pixels": ({"Rows": 65}, CUT),
        "60,000 × 60,000": ({"Rows": 60000, "Columns": 60000}, LARGE),
        "65,535 × 1": ({"Rows": 65535, "Columns": 1}, CUT),
        "no rows": ({"Rows": 0}, LARGE),
        "rows missing": ({"Rows": None}, ".*may be damaged.*|.*missing.*"),
        "three samples": ({"SamplesPerPixel": 3}, GREY),
        "RGB": ({"PhotometricInterpretation": "RGB"}, GREY),
        "palette colour": ({"PhotometricInterpretation": "PALETTE COLOR"}, GREY),
        "YBR": ({"PhotometricInterpretation": "YBR_FULL_422"}, GREY),
        "no photometric interpretation": ({"PhotometricInterpretation": None}, GREY),
        "1 bit": ({"BitsAllocated": 1, "BitsStored": 1}, BITS),
        "12 bits": ({"BitsAllocated": 12, "BitsStored": 12}, BITS),
        "32 bits": ({"BitsAllocated": 32}, BITS),
        "64 bits": ({"BitsAllocated": 64}, BITS),
        "no bits": ({"BitsAllocated": 0, "BitsStored": 0}, BITS),
        "more bits stored than allocated": ({"BitsStored": 17}, BITS),
        "bits missing": ({"BitsAllocated": None}, BITS),
        "2,147,483,647 frames": ({"NumberOfFrames": 2147483647}, "NumberOfFrames is not within .*"),
        "minus one frame": ({"NumberOfFrames": -1}, "NumberOfFrames is not within .*"),
        "a hundred frames": ({"NumberOfFrames": 100}, "the image has 100 frames; state which one"),
        "a slope of 10³⁰⁰": (
            {"RescaleSlope": "1e300"},
            "RescaleSlope and RescaleIntercept overflow the pixels",
        ),
        "an intercept of 10³⁹": (
            {"RescaleIntercept": "1e39"},
            "RescaleSlope and RescaleIntercept overflow the pixels",
        ),
        "no pixels": (
            {"PixelData": None},
            "the file holds no pixels, or is cut short before them|the pixels are not in PixelData",
        ),
    }
    cases = [
        HostileFile(name, lambda values=values: changed(**values), reason)
        for name, (values, reason) in plain.items()
    ]  # type: ignore[misc]
    native = NATIVE.read_bytes()
    at = native.index(b"\xe0\x7f\x10\x00OW")
    cases += [
        HostileFile(
            "float pixels",
            lambda: replaced(b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x08\x00OF"),
            "the pixels are not in PixelData|the file holds no pixels.*",
        ),
        HostileFile(
            "double pixels",
            lambda: replaced(b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x09\x00OD"),
            "the pixels are not in PixelData|the file holds no pixels.*",
        ),
        HostileFile(
            "native pixels of undefined length",
            lambda: native[: at + 8] + b"\xff" * 4 + native[at + 12 :],
            CUT,
        ),
        HostileFile(
            "pixels that claim 4 GiB less one",
            lambda: native[: at + 8] + b"\xfe\xff\xff\xff" + native[at + 12 : at + 500],
            CUT,
        ),
        HostileFile(
            "an unknown transfer syntax",
            lambda: replaced(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"),
            "the transfer syntax is not supported: .*|.*may be damaged",
        ),
        HostileFile(
            "a deflated file that is not",
            lambda: native.replace(
                b"\x14\x001.2.840.10008.1.2.1\0", b"\x16\x001.2.840.10008.1.2.1.99", 1
            ),
            ".*deflated.*|.*may be damaged",
        ),
        HostileFile(
            "native pixels declared as RLE",
            lambda: native.replace(
                b"\x14\x001.2.840.10008.1.2.1\0", b"\x14\x001.2.840.10008.1.2.5\0", 1
            ),
            "the compressed pixels are not in fragments",
        ),
    ]
    cases += [
        HostileFile(
            f"native pixels cut after {remaining} bytes",
            lambda remaining=remaining: native[: at + 12 + remaining],
            CUT,
        )  # type: ignore[misc]
        for remaining in (0, 1, 4096, 8191)
    ]
    return cases


def streams() -> list[HostileFile]:
    """Compressed pixels that are damaged, or far larger than they appear."""
    cases = []
    for name, source in {"RLE": RLE, "JPEG 2000": JPEG_2000, "JPEG-LS": JPEG_LS}.items():
        frame = codestream(source)
        cases += [
            HostileFile(
                f"{name} cut by its file", lambda source=source: source.read_bytes()[:-1000], CUT
            ),  # type: ignore[misc]
            HostileFile(
                f"{name} cut to a third",
                lambda source=source, frame=frame: fragments(
                    source, b"", frame[: len(frame) // 6 * 2]
                ),
                f"{UNDECODED}|{OTHER_SIZE}",
            ),  # type: ignore[misc]
            HostileFile(
                f"{name} cut to 20 bytes",
                lambda source=source, frame=frame: fragments(source, b"", frame[:20]),
                f"{UNDECODED}|{OTHER_SIZE}",
            ),  # type: ignore[misc]
            HostileFile(
                f"{name} of zeros",
                lambda source=source: fragments(source, b"", bytes(5000)),
                UNDECODED,
            ),  # type: ignore[misc]
            HostileFile(
                f"{name} of 0xFF",
                lambda source=source: fragments(source, b"", b"\xff" * 5000),
                f"{UNDECODED}|{OTHER_SIZE}",
            ),  # type: ignore[misc]
            HostileFile(
                f"{name} without fragments", lambda source=source: fragments(source, b""), CUT
            ),  # type: ignore[misc]
            HostileFile(
                f"{name} without an offset table",
                lambda source=source, frame=frame: fragments(source, frame),
                CUT,
            ),  # type: ignore[misc]
            HostileFile(
                f"a fragment of {name} that claims 4 GiB",
                lambda source=source, frame=frame: fragments(
                    source, b"", frame, lengths=(0, 2**32 - 2)
                ),
                CUT,
            ),  # type: ignore[misc]
            HostileFile(
                f"10,000 empty fragments of {name}",
                lambda source=source: fragments(source, *[b""] * 10_000),
                f"{UNDECODED}|{CUT}",
            ),  # type: ignore[misc]
            HostileFile(
                f"1 MiB after {name}",
                lambda source=source, frame=frame: fragments(source, b"", frame, bytes(2**20)),
                INFLATED,
            ),  # type: ignore[misc]
        ]
    jp2, jls, rle = codestream(JPEG_2000), codestream(JPEG_LS), codestream(RLE)
    size, frame = jp2.index(b"\xff\x51") + 6, jls.index(b"\xff\xf7") + 5
    claims = jp2[:size] + pack(">LL", 60000, 60000) + jp2[size + 8 :]
    tiles = jp2[: size + 16] + pack(">LL", 1, 1) + jp2[size + 24 :]
    components = jp2[: size + 32] + pack(">H", 16384) + jp2[size + 34 :]
    cases += [
        HostileFile(
            "JPEG 2000 of 60,000 × 60,000", lambda: fragments(JPEG_2000, b"", claims), OTHER_SIZE
        ),
        HostileFile("JPEG 2000 of 4,096 tiles", lambda: fragments(JPEG_2000, b"", tiles), None),
        HostileFile(
            "JPEG 2000 of 16,384 components",
            lambda: fragments(JPEG_2000, b"", components),
            UNDECODED,
        ),
        HostileFile(
            "JPEG-LS of 60,000 × 60,000",
            lambda: fragments(
                JPEG_LS, b"", jls[:frame] + pack(">HH", 60000, 60000) + jls[frame + 4 :]
            ),
            OTHER_SIZE,
        ),
        HostileFile(
            "JPEG-LS in JPEG 2000's syntax", lambda: fragments(JPEG_2000, b"", jls), UNDECODED
        ),
        HostileFile("JPEG 2000 in RLE's syntax", lambda: fragments(RLE, b"", jp2), UNDECODED),
        HostileFile(
            "RLE of 15 segments", lambda: fragments(RLE, b"", pack("<L", 15) + rle[4:]), UNDECODED
        ),
        HostileFile(
            "RLE of 4 billion segments",
            lambda: fragments(RLE, b"", pack("<L", 2**32 - 1) + rle[4:]),
            UNDECODED,
        ),
        HostileFile(
            "RLE whose segments lie outside",
            lambda: fragments(RLE, b"", pack("<LLL", 2, 64, 2**31) + rle[12:]),
            UNDECODED,
        ),
        HostileFile(
            "RLE that unpacks to 128 times its size",
            lambda: fragments(RLE, b"", pack("<LLL", 2, 64, 4096) + bytes(52) + b"\x81\0" * 8000),
            None,
        ),
        HostileFile(
            "RLE that unpacks to too little",
            lambda: fragments(RLE, b"", pack("<LLL", 2, 64, 66) + bytes(52) + b"\x81\0\x81\0"),
            UNDECODED,
        ),
    ]
    return cases


FILES = [*headers(), *streams()]

UNDECODABLE = {  # transfer syntax and a fragment
    "RLE cut short": (wire.RLE, codestream(RLE)[:200]),
    "JPEG 2000 of nothing": (wire.JPEG_2000, b"\xff\x4f\xff\x51" + bytes(40)),
    "JPEG-LS of zeros": (wire.JPEG_LS, bytes(4000)),
}
