"""The size a compressed image declares, so that a small file cannot trigger a large allocation."""

from struct import unpack_from

JPEG_START = b"\xff\xd8"
JPEG2000_START = b"\xff\x4f\xff\x51"
# SOF0 to SOF15 (ITU-T T.81) without DHT, JPG and DAC, which lie between them, and SOF55 (T.87)
FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


def declared_size(head: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG, JPEG-LS or JPEG 2000 codestream.

    None if it is none of these, or a later part of one. A JPEG 2000 codestream inside a JP2 file is
    recognised too. (0, 0) if the beginning of the codestream does not state a size.
    """
    if head.startswith(JPEG_START):
        return _jpeg_size(head)
    start = head.find(JPEG2000_START, 0, 4096)
    if start >= 0:
        return _jpeg2000_size(head[start:])
    return None


def _jpeg_size(head: bytes) -> tuple[int, int]:
    offset = 2
    while offset + 9 <= len(head):
        marker = head[offset + 1]
        if head[offset] != 0xFF:
            break
        if marker == 0xFF:  # fill byte
            offset += 1
        elif marker in STANDALONE:
            offset += 2
        elif marker in FRAME_HEADERS:
            rows, columns = unpack_from(">HH", head, offset + 5)
            return rows, columns
        else:
            offset += 2 + int(unpack_from(">H", head, offset + 2)[0])
    return 0, 0


def _jpeg2000_size(head: bytes) -> tuple[int, int]:
    """From the SIZ segment: image extent less its offset (ITU-T T.800 A.5.1)."""
    if len(head) < 24:
        return 0, 0
    width, height, left, top = unpack_from(">LLLL", head, 8)
    return height - top, width - left
