"""A fast reader of RGB PNGs, 8 or 16 bits, not interlaced: ISA-L inflates their rows, in half the time of zlib.

libpng still turns rows into pixels: a strip of them is handed to it as a PNG of its own, deflated without compression, below
the row that it is predicted from. Nothing that is out of order is judged here: other readers say what it is.
"""

import struct
from functools import reduce
from typing import cast

import imagecodecs
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from ntire.picture.header import DAMAGED
from ntire.picture.png import STRIP_BYTES, chunk
from ntire.picture.repairs import PNG_SIGNATURE, png_chunks

RGB = 2
BROKEN = (cast("type[Exception]", isal_zlib.error), *DAMAGED)
STORED = (1 << 16) - 1
"""Bytes of the longest block of deflate that is not compressed."""


def decode_rgb(data: bytes) -> NDArray[np.uint8 | np.uint16] | None:
    """The pixels (H, W, 3) of a file whose bytes have been read; None unless it is such a PNG, whole, its checksums right."""
    packed = _packed_rows(data)
    if packed is None:
        return None
    width, height, bits = struct.unpack_from(">IIB", data, 16)
    size = 1 + 3 * width * bits // 8
    high = max(STRIP_BYTES // size, 1)
    pixels = np.empty((height, width, 3), np.uint8 if bits == 8 else np.uint16)
    inflating = isal_zlib.decompressobj()
    above = bytes(size)  # as the standard has it: the first row is predicted from zeros
    try:
        for top in range(0, height, high):
            count = min(high, height - top)
            rows = inflating.decompress(packed, count * size)
            packed = inflating.unconsumed_tail
            if len(rows) != count * size:
                return None
            pixels[top : top + count] = imagecodecs.png_decode(_strip(width, bits, count + 1, above, rows))[1:]
            above = b"\0" + pixels[top + count - 1].astype(f">u{bits // 8}").tobytes()
        # What is left is the checksum, and no row.
        return pixels if not inflating.decompress(packed, 1) and inflating.eof else None
    except BROKEN:
        return None


def _packed_rows(data: bytes) -> bytes | None:
    """The zlib stream of an RGB PNG; None where anything but chunks of pixels lies between its first one and its end."""
    if not data.startswith(PNG_SIGNATURE + b"\0\0\0\x0dIHDR") or len(data) < 33:
        return None
    bits, *kind = data[24:29]
    if bits not in (8, 16) or kind != [RGB, 0, 0, 0]:
        return None
    parts: list[bytes] = []
    for name, begin, end in png_chunks(data):
        if name == b"IDAT":
            if isal_zlib.crc32(memoryview(data)[begin - 4 : end]) != int.from_bytes(data[end : end + 4]):
                return None
            parts.append(data[begin:end])
        elif name == b"IEND":
            packed = b"".join(parts)
            # Other windows than the largest are rare, and where they are wrong readers differ.
            return packed if packed[:1] == b"\x78" else None
        elif parts or name == b"acTL":
            return None
    return None


def _strip(width: int, bits: int, count: int, *rows: bytes) -> bytes:
    """A PNG of so many filtered rows, given in parts."""
    check = 1
    stream: list[bytes | memoryview] = [b"\x78\x01"]
    for part in rows:
        check = isal_zlib.adler32(part, check)
        for at in range(0, len(part), STORED):
            block = memoryview(part)[at : at + STORED]
            stream += [struct.pack("<BHH", 0, len(block), len(block) ^ STORED), block]
    stream += [struct.pack("<BHH", 1, 0, STORED), struct.pack(">I", check)]
    # Joined once: a copy of a strip takes as long as its checksums.
    sums = reduce(lambda sofar, part: isal_zlib.crc32(part, sofar), stream, isal_zlib.crc32(b"IDAT"))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, count, bits, RGB, 0, 0, 0))
    length = struct.pack(">I4s", sum(map(len, stream)), b"IDAT")
    return b"".join([PNG_SIGNATURE, header, length, *stream, struct.pack(">I", sums), chunk(b"IEND", b"")])
