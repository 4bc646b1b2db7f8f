"""Files that decoders refuse although their pixels are all there: the same file without what is in the way."""

import re
import struct
import zlib
from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
OF_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL"})
"""Chunks that decoding needs; those for animations tell that there is one."""
EOI, SOS, SOF = 0xD9, 0xDA, (0xC0, 0xC1, 0xC2)
PROGRESSIVE = 0xC2


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, and where its content begins and ends, of each chunk of a PNG that is whole apart from its checksum."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, begin, end = data[at + 4 : at + 8], at + 8, at + 8 + length
        if end > len(data):
            return
        yield name, begin, end
        at = end + 4


def only_pixels(data: bytes) -> bytes:
    """A PNG without its metadata, however large or damaged that is, and with an end."""
    kept = [data[begin - 8 : end + 4] for name, begin, end in png_chunks(data) if name in OF_PIXELS]
    end = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
    return b"".join([PNG_SIGNATURE, *kept, end])


def png_chunk(data: bytes, wanted: bytes) -> bytes:
    """The content of the first chunk of a name whose checksum is right; empty if there is none."""
    for name, begin, end in png_chunks(data):
        if name == wanted and zlib.crc32(data[begin - 4 : end]) == int.from_bytes(data[end : end + 4]):
            return data[begin:end]
    return b""


def ended_jpeg(data: bytes) -> tuple[bytes, bytes] | None:
    """A JPEG that has no end marker with one, and again with some bits before it; None if scans are missing.

    If its pixels are all there, the bits come too late to change any: the two decode alike.
    """
    begun = data[:-1] if data.endswith(b"\xff") else data
    if not begun.startswith(b"\xff\xd8") or not _every_scan(begun):
        return None
    end = bytes((0xFF, EOI))
    return begun + end, begun + b"\x5a\xa5\x3c" * 64 + end


def _every_scan(data: bytes) -> bool:
    """Whether the scans that begin in a JPEG bring every coefficient of every component to its last bit."""
    components: list[int] = []
    left: dict[tuple[int, int], int] = {}
    for marker, body in _segments(data):
        if marker in SOF:
            components = list(body[6::3][: body[5]]) if len(body) > 5 else []
        if marker == EOI:
            return False
        if marker == SOS and body:
            names = body[1 : 1 + 2 * body[0] : 2]
            first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
            left |= {(name, number): bits & 15 for name in names for number in range(first, last + 1)}
    wanted = [(name, number) for name in components for number in range(64)]
    return bool(wanted) and all(left.get(key) == 0 for key in wanted)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment of a JPEG; what follows a scan's header is passed over."""
    at = 2
    marker = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
    while found := marker.search(data, at):
        code, at = found[1][0], found.end()
        if code == EOI or at + 2 > len(data):
            yield code, b""
            return
        (length,) = struct.unpack_from(">H", data, at)
        yield code, data[at + 2 : at + length]
        at += max(length, 2)
