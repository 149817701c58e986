"""What a compressed image says of its own size, so that a small file cannot make a decoder allocate a large one."""

from struct import unpack_from

JPEG_START = b"\xff\xd8"
JPEG2000_START = b"\xff\x4f\xff\x51"
FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {
    0xC4,
    0xC8,
    0xCC,
}  # SOF0–15 (ITU-T T.81), SOF55 (T.87)
STANDALONE = {0x01, *range(0xD0, 0xD9)}


def declared_size(head: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG, JPEG-LS or JPEG 2000 codestream; None where it is none of these, or a later part.

    A JPEG 2000 codestream inside a JP2 file is found too. A start without a size gives (0, 0).
    """
    if head.startswith(JPEG_START):
        return _jpeg(head)
    start = head.find(JPEG2000_START, 0, 4096)
    if start >= 0:
        return _jpeg2000(head[start:])
    return None


def _jpeg(head: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 <= len(head):
        marker = head[at + 1]
        if head[at] != 0xFF:
            break
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in STANDALONE:
            at += 2
        elif marker in FRAME_HEADERS:
            rows, columns = unpack_from(">HH", head, at + 5)
            return rows, columns
        else:
            at += 2 + int(unpack_from(">H", head, at + 2)[0])
    return 0, 0


def _jpeg2000(head: bytes) -> tuple[int, int]:
    """The SIZ segment: image extent less its offset (ITU-T T.800 A.5.1)."""
    if len(head) < 24:
        return 0, 0
    width, height, left, top = unpack_from(">LLLL", head, 8)
    return height - top, width - left
