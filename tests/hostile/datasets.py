"""Hostile datasets for C-STORE, each with the status that must be returned, and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from struct import pack

from tests.hostile import wire
from tests.hostile.wire import element

SOP_CLASS, SOP_INSTANCE, STUDY, SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
CHARSET, MODALITY, NAME, PATIENT, TEMPORARY = (
    0x00080005,
    0x00080060,
    0x00100010,
    0x00100020,
    0x00091010,
)
NUMBER, POSITION, ORIENTATION, FRAMES, ROWS, COLUMNS = (
    0x00200013,
    0x00200032,
    0x00200037,
    0x00280008,
    0x280010,
    0x280011,
)
SPACING, ALLOCATED, PIXELS = 0x00280030, 0x00280100, 0x7FE00010
SHARED_GROUPS, FRAME_GROUPS = 0x52009229, 0x52009230
ITEM, ITEM_END, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
UNDEFINED = 0xFFFFFFFF

DAMAGED = r"the (file|header) cannot be read.*; it may be damaged"
HEAVY = r"the header has more than 150000 elements|sequences are nested more than 64 deep"
OTHER = r"the dataset's SOP class or instance is not the one announced"
CUT = r".*the pixels are cut short.*|.*the file holds no pixels.*"


def uid_of(name: str) -> bytes:
    """Always the same UID for the same name."""
    return b"1.2.826.0.1.3680043.8.498.%d" % int(sha256(name.encode()).hexdigest()[:24], 16)


def elements(uid: bytes, study: bytes) -> dict[int, bytes]:
    """A valid sagittal T2 slice of 8 × 8 pixels, element by element."""
    values: list[tuple[int, bytes, bytes]] = [
        (SOP_CLASS, b"UI", wire.MR.encode()),
        (SOP_INSTANCE, b"UI", uid),
        (MODALITY, b"CS", b"MR"),
        (NAME, b"PN", b"Hostile^Test"),
        (PATIENT, b"LO", b"H1"),
        (0x00180020, b"CS", b"SE"),
        (0x00180050, b"DS", b"4"),
        (0x00180080, b"DS", b"3500"),
        (0x00180081, b"DS", b"100"),
        (STUDY, b"UI", study),
        (SERIES, b"UI", study + b".1"),
        (NUMBER, b"IS", b"1"),
        (POSITION, b"DS", b"4\\0\\0"),
        (ORIENTATION, b"DS", b"0\\1\\0\\0\\0\\-1"),
        (0x00280002, b"US", pack("<H", 1)),
        (0x00280004, b"CS", b"MONOCHROME2"),
        (ROWS, b"US", pack("<H", 8)),
        (COLUMNS, b"US", pack("<H", 8)),
        (SPACING, b"DS", b"30\\30"),
        (ALLOCATED, b"US", pack("<H", 16)),
        (0x00280101, b"US", pack("<H", 16)),
        (0x00280102, b"US", pack("<H", 15)),
        (0x00280103, b"US", pack("<H", 0)),
        (PIXELS, b"OW", bytes(range(128))),
    ]
    return {tag: element(tag, vr, value) for tag, vr, value in values}


Changes = Mapping[int, bytes | None]


def encoded(uid: bytes, changes: Changes | None = None) -> bytes:
    """The slice, in its own study, in Explicit VR Little Endian. ``changes`` replaces elements; None drops one."""
    values: dict[int, bytes | None] = {**elements(uid, uid + b".9"), **(changes or {})}
    return b"".join(content for _, content in sorted(values.items()) if content is not None)


@dataclass(frozen=True)
class Hostile:
    """A dataset, how it is sent, and the required outcome."""

    name: str
    make: Callable[[bytes], bytes] = field(repr=False)  # from its SOP Instance UID
    status: int | str  # as ``MonitoredSystem.store`` returns it
    reason: str = (
        ""  # pattern of the logged reason; if stored, of the reason why the study is not analysable
    )
    event: str = "instance.refused"
    syntax: str = wire.EXPLICIT
    abstract: str | bytes = wire.MR
    announced_uid: bytes | None = None  # if it is not the UID that the dataset was made with

    @property
    def uid(self) -> bytes:
        return uid_of(self.name)


def _with(
    name: str, changes: Changes, status: int, reason: str, **fields: str | bytes | None
) -> Hostile:
    return Hostile(name, lambda uid: encoded(uid, changes), status, reason, **fields)  # type: ignore[arg-type]


def _bytes(
    name: str, content: bytes, status: int, reason: str, **fields: str | bytes | None
) -> Hostile:
    return Hostile(name, lambda uid: content, status, reason, **fields)  # type: ignore[arg-type]


BAD_UIDS = {
    "65 characters": b"1." + b"2" * 63,
    "1000 characters": b"1." + b"2" * 998,
    "a path upwards": b"../../../../escaped",
    "an absolute path": b"/tmp/escaped",
    "a slash": b"1.2/3",
    "a backslash": b"1.2\\3",
    "a newline": b"1.2\nevent=forged",
    "a carriage return": b"1.2\r3",
    "a NUL inside": b"1.2\x003",
    "a space inside": b"1.2 3",
    "only spaces": b"    ",
    "nothing": b"",
    "letters": b"1.2.abc",
    "a leading dot": b".1.2",
    "a trailing dot": b"1.2.",
    "two dots": b"1..2",
    "a minus sign": b"1.-2",
    "other digits": "1.2.\u0663".encode(),
    "an escape sequence": b"1.2\x1b[2J",
    "a shell's word": b"$(touch escaped)",
}
IDENTIFYING = {
    "SOPInstanceUID": SOP_INSTANCE,
    "StudyInstanceUID": STUDY,
    "SeriesInstanceUID": SERIES,
}


def bad_uids() -> list[Hostile]:
    cases = [
        _with(
            f"{keyword} is {kind}",
            {tag: element(tag, b"UI", value)},
            0xC000,
            f"{keyword} is missing or not a UID",
        )
        for keyword, tag in IDENTIFYING.items()
        for kind, value in BAD_UIDS.items()
    ]
    cases += [
        _with(f"{keyword} is missing", {tag: None}, 0xC000, f"{keyword} is missing or not a UID")
        for keyword, tag in IDENTIFYING.items()
    ]
    cases.append(_with("SOPClassUID is missing", {SOP_CLASS: None}, 0xA900, OTHER))
    return cases


def announced_uids() -> list[Hostile]:
    """The UID in the command is invalid and the dataset has the same one: neither may be trusted."""
    return [
        Hostile(
            f"the announced UID is {kind}",
            lambda uid, value=value: encoded(
                uid, {SOP_INSTANCE: element(SOP_INSTANCE, b"UI", value)}
            ),  # type: ignore[misc]
            *_outcome_for(value),
            announced_uid=value,
        )
        for kind, value in BAD_UIDS.items()
    ]


def _outcome_for(announced_uid: bytes) -> tuple[int | str, str, str]:
    if not announced_uid.strip():
        return "aborted", "request lacks a command element", "association.aborted"
    return (
        0xC000,
        "(the announced SOP UID|SOPInstanceUID) is missing or not a UID",
        "instance.refused",
    )


def truncated() -> list[Hostile]:
    """Cut at offsets all over the header: the UIDs are missing, or an element is cut in two."""
    content = encoded(uid_of("truncated"))
    series = content.index(pack("<HH", SERIES >> 16, SERIES & 0xFFFF))
    offsets = sorted({1, 2, 3, 4, 7, 8, 9, 33, *range(40, series, (series - 40) // 14)})
    missing = f"(SOPInstanceUID|StudyInstanceUID|SeriesInstanceUID) is missing or not a UID|{DAMAGED}|{OTHER}"
    return (
        [
            Hostile(f"cut after {at} bytes", lambda uid, at=at: encoded(uid)[:at], 0xC000, missing)  # type: ignore[misc]
            for at in offsets
        ]
        + [
            Hostile(
                f"cut {before} bytes before the pixels",
                lambda uid, before=before: encoded(uid)[: -(128 + 12) - before],  # type: ignore[misc]
                0x0000,
                rf"{CUT}|.*{DAMAGED}|.* is missing.*|.*BitsAllocated.*",
            )
            for before in (0, 10, 40)
        ]
        + [
            Hostile(
                f"cut {remaining} bytes into the pixels",
                lambda uid, remaining=remaining: encoded(uid)[: remaining - 128],  # type: ignore[misc]
                0x0000,
                f"{CUT}|.*no Sagittal.*",
            )
            for remaining in (0, 1, 127)
        ]
    )


def wrong_elements() -> list[Hostile]:
    """Invalid VRs, lengths and values, in the UIDs and beside them."""
    sop, study = SOP_INSTANCE, STUDY
    bad_vrs = {
        "OB": b"OB",
        "UN": b"UN",
        "SQ": b"SQ",
        "US": b"US",
        "FD": b"FD",
        "??": b"??",
        "NULs": b"\0\0",
    }
    unread = (
        f"{DAMAGED}|(SOPInstance|StudyInstance|SeriesInstance)UID is missing or not a UID|{OTHER}"
    )
    cases = [
        _with(
            f"StudyInstanceUID as {name}",
            {study: element(study, vr, b"1.2.3.4.5.6")},
            0xC000,
            unread,
        )
        for name, vr in bad_vrs.items()
        if name != "UN"
    ]
    cases += [
        _with(
            "SOPInstanceUID claims 4 GiB",
            {sop: element(sop, b"UN", b"1.2", UNDEFINED - 1)},
            0xC000,
            unread,
        ),
        _with(
            "SOPInstanceUID claims 64 KiB",
            {sop: element(sop, b"UI", b"1.2.3", 65535)},
            0xC000,
            unread,
        ),
        _with("an odd length", {sop: element(sop, b"UI", b"1.2.3", 5)}, 0xA900, OTHER),
        _with(
            "text of undefined length",
            {PATIENT: element(PATIENT, b"UT", b"H1", UNDEFINED)},
            0xC000,
            unread,
        ),
        _with("an empty SOP class", {SOP_CLASS: element(SOP_CLASS, b"UI", b"")}, 0xA900, OTHER),
        _with(
            "CT's SOP class",
            {SOP_CLASS: element(SOP_CLASS, b"UI", wire.CT.encode())},
            0xA900,
            OTHER,
        ),
        _with(
            "Enhanced MR's SOP class",
            {SOP_CLASS: element(SOP_CLASS, b"UI", wire.ENHANCED_MR.encode())},
            0xA900,
            OTHER,
        ),
        _with("another instance", {sop: element(sop, b"UI", b"1.2.3.4")}, 0xA900, OTHER),
        _with("two SOPInstanceUIDs", {sop: element(sop, b"UI", b"1.2.3\\1.2.4")}, 0xC000, unread),
        _with(
            "announced as CT on MR's context",
            {SOP_CLASS: element(SOP_CLASS, b"UI", wire.CT.encode())},
            0x0122,
            "the SOP class is not the presentation context's",
            abstract=wire.CT.encode(),
        ),
    ]
    return cases


def unreadable() -> list[Hostile]:
    """No dataset at all, or another encoding than the one negotiated."""
    nothing = f"(SOP|Study|Series)\\w+UID is missing or not a UID|{DAMAGED}|{OTHER}|{HEAVY}"
    implicit = pack("<HHL", 8, 0x16, 26) + wire.padded(wire.MR.encode())
    refused = (0xC000, nothing)
    return [
        _bytes("an empty dataset", b"", *refused),
        _bytes("one byte", b"\0", *refused),
        _bytes("1 MiB of zeros", bytes(2**20), *refused),
        _bytes("1 MiB of 0xFF", b"\xff" * 2**20, *refused),
        _bytes("1 MiB of text", b"GET / HTTP/1.1\r\n" * 65536, *refused),
        _bytes(
            "random bytes", b"".join(sha256(bytes((n,))).digest() for n in range(255)), *refused
        ),
        _bytes("implicit sent as explicit", implicit * 3, *refused),
        Hostile("explicit sent as implicit", encoded, 0x0000, ".*", syntax=wire.IMPLICIT),
        Hostile("little sent as big endian", encoded, *refused, syntax=wire.BIG_ENDIAN),
        Hostile("big sent as little endian", lambda uid: _swapped(encoded(uid)), *refused),
        Hostile(
            "a whole file for a dataset", lambda uid: bytes(128) + b"DICM" + encoded(uid), *refused
        ),
        Hostile("zipped", lambda uid: b"PK\x03\x04" + encoded(uid), *refused),
        Hostile(
            "the file meta group inside",
            lambda uid: element(0x00020010, b"UI", b"1.2") + encoded(uid),
            0x0000,
            ".*",
        ),
    ]


def _swapped(content: bytes) -> bytes:
    return b"".join(
        content[at + 1 : at + 2] + content[at : at + 1] for at in range(0, len(content), 2)
    )


def sequences() -> list[Hostile]:
    """Excessive nesting and numbers of items."""
    private = 0x00091010
    start = element(private, b"SQ", b"", UNDEFINED)
    undefined_item = ITEM + pack("<L", UNDEFINED)
    deep = (start + undefined_item) * 10_000
    wide = start + (ITEM + bytes(4)) * 1_000_000 + SEQUENCE_END + bytes(4)
    nested = b""
    for _ in range(3000):
        nested = element(private, b"SQ", ITEM + pack("<L", len(nested)) + nested)
    unread = f"{DAMAGED}|{HEAVY}"
    return [
        _with("10,000 sequences deep, none closed", {private: deep}, 0xC000, unread),
        _with("10,000 sequences deep, all closed", {private: deep + (ITEM_END + bytes(4) + SEQUENCE_END + bytes(4)) * 10_000}, 0xC000, unread),
        _with("3,000 sequences deep, with lengths", {private: nested}, 0x0000, ".*"),
        _with("a million items", {private: wide}, 0xC000, unread),
        _with("a sequence without its end", {private: start + undefined_item}, 0xC000, f"{unread}|.*not a UID"),
        _with("an item longer than its sequence", {private: element(private, b"SQ", ITEM + pack("<L", 99) + b"12")}, 0x0000, ".*"),
        _with("an item of 4 GiB", {private: start + ITEM + pack("<L", UNDEFINED - 1)}, 0xC000, f"{unread}|.*not a UID"),
        _with("an end without a sequence", {private: SEQUENCE_END + bytes(4)}, 0x0000, ".*"),
        _with("200,000 elements", {private: b"".join(element(0x00091000 + n % 0xFFFF, b"SH", b"") for n in range(200_000))}, 0xC000, unread),
    ]  # fmt: skip


def oversized() -> list[Hostile]:
    """Larger than a header should be; most are stored, and none costs memory."""
    return [
        _with("64 MiB of private data before the pixels", {TEMPORARY: element(TEMPORARY, b"OB", bytes(64 * 2**20))}, 0x0000, ".*"),
        _with("a name of 1 MiB", {NAME: element(NAME, b"UT", b"N" * 2**20)}, 0x0000, ".*"),
        _with("a name of 65,534 bytes", {NAME: element(NAME, b"PN", b"^" * 65534)}, 0x0000, ".*"),
        _with("an identifier of 1,000 characters", {PATIENT: element(PATIENT, b"LO", b"9" * 1000)}, 0x0000, ".*"),
        Hostile("larger than an image may be", lambda uid: encoded(uid, {PIXELS: element(PIXELS, b"OW", bytes(100 * 2**20))}), 0xA700, "larger than 96 MiB .*"),
    ]  # fmt: skip


def broken_images() -> list[Hostile]:
    """Images that are not usable: they are stored, and their studies become not analysable, with the reason."""
    group = ITEM + bytes(4)
    enhanced = {SOP_CLASS: element(SOP_CLASS, b"UI", wire.ENHANCED_MR.encode())}
    two_frames = {FRAMES: element(FRAMES, b"IS", b"2")}

    def frames(value: bytes) -> dict[int, bytes | None]:
        return {FRAMES: element(FRAMES, b"IS", value)}

    def replaced(tag: int, vr: bytes, value: bytes) -> dict[int, bytes | None]:
        return {tag: element(tag, vr, value)}

    mismatch = {**enhanced, **two_frames, FRAME_GROUPS: element(FRAME_GROUPS, b"SQ", group)}
    plain: list[tuple[str, dict[int, bytes | None], str]] = [
        ("2³¹ frames", frames(b"2147483648"), "NumberOfFrames is not within 1 to .*"),
        ("-1 frames", frames(b"-1"), "NumberOfFrames is not within 1 to .*"),
        ("10³⁰⁰ frames", frames(b"1e300"), f"NumberOfFrames is not within 1 to .*|{DAMAGED}"),
        ("two frames without groups", {**two_frames}, "a multi-frame image without functional groups"),
        ("frames that are text", frames(b"many"), DAMAGED),
        ("65,535 rows", replaced(ROWS, b"US", b"\xff\xff"), "Rows is missing or not within .*"),
        ("no rows", replaced(ROWS, b"US", b"\0\0"), "Rows is missing or not within .*"),
        ("rows of three bytes", replaced(ROWS, b"US", b"\1\2\3\4"), f"{DAMAGED}|.*Rows.*|no .* series.*"),
        ("rows as text", replaced(ROWS, b"LO", b"lots"), f"{DAMAGED}|Rows is missing .*"),
        ("columns missing", {COLUMNS: None}, "Columns is missing .*"),
        ("a position of NaN", replaced(POSITION, b"DS", b"nan\\0\\0"), "ImagePositionPatient does not hold 3 numbers"),
        ("an endless position", replaced(POSITION, b"DS", b"1e999\\0\\0"), "ImagePositionPatient does not hold 3 numbers"),
        ("a position of two numbers", replaced(POSITION, b"DS", b"1\\2"), "ImagePositionPatient does not hold 3 numbers"),
        ("a position of 10,000 numbers", replaced(POSITION, b"DS", b"1\\" * 9999 + b"1"), "ImagePositionPatient does not .*"),
        ("a position of text", replaced(POSITION, b"DS", b"a\\b\\c"), "ImagePositionPatient does not hold 3 numbers"),
        ("an orientation of zeros", replaced(ORIENTATION, b"DS", b"0\\0\\0\\0\\0\\0"), "ImageOrientationPatient is not two .*"),
        ("an orientation that is skew", replaced(ORIENTATION, b"DS", b"1\\0\\0\\1\\0\\0"), "ImageOrientationPatient is not two .*"),
        ("an orientation missing", {ORIENTATION: None}, "ImageOrientationPatient is missing"),
        ("a spacing of zero", replaced(SPACING, b"DS", b"0\\0"), "PixelSpacing is not positive"),
        ("a negative spacing", replaced(SPACING, b"DS", b"-1\\1"), "PixelSpacing is not positive"),
        ("a spacing of 10³⁰⁸", replaced(SPACING, b"DS", b"1e308\\1e308"), ".*"),
        ("an instance number of 10³⁰", replaced(NUMBER, b"IS", b"1" + b"0" * 30), ".*"),
        ("a modality of CT", replaced(MODALITY, b"CS", b"CT"), "not an MR image"),
        ("an unknown character set", replaced(CHARSET, b"CS", b"HOSTILE_2026"), ".*"),
        ("200 character sets", replaced(CHARSET, b"CS", b"ISO 2022 IR 87\\" * 200), ".*"),
    ]  # fmt: skip
    cases = [_with(name, changes, 0x0000, f".*({reason}).*") for name, changes, reason in plain]
    cases += [
        _with("groups that do not fit the frames", mismatch, 0x0000, ".*does not match NumberOfFrames.*", abstract=wire.ENHANCED_MR),
        _with("Enhanced MR without groups", enhanced, 0x0000, ".*does not match NumberOfFrames.*", abstract=wire.ENHANCED_MR),
        _with("groups of 10,001 frames", {**enhanced, **frames(b"10001"), FRAME_GROUPS: element(FRAME_GROUPS, b"SQ", group * 10001)}, 0x0000, ".*NumberOfFrames is not within.*", abstract=wire.ENHANCED_MR),
        _with("groups that are text", {**enhanced, **two_frames, FRAME_GROUPS: element(FRAME_GROUPS, b"LO", b"groups")}, 0x0000, ".*", abstract=wire.ENHANCED_MR),
        _with("empty groups", {**enhanced, **two_frames, FRAME_GROUPS: element(FRAME_GROUPS, b"SQ", group * 2)}, 0x0000, ".*cut short.*", abstract=wire.ENHANCED_MR),
    ]  # fmt: skip
    return cases


DATASETS = [
    *bad_uids(),
    *announced_uids(),
    *truncated(),
    *wrong_elements(),
    *unreadable(),
    *sequences(),
    *oversized(),
    *broken_images(),
]
