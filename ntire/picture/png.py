"""A fast writer of standard PNG files: strips are filtered and deflated side by side, then joined into one stream.

Each row is stored as its difference from the row above (filter Up), the first of a strip from its left neighbours (Sub), so
that a strip stands on its own; ISA-L deflates at its fastest level. The bytes depend on the pixels alone, not on the threads.
"""

import struct
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from ntire.environment import usable_cores

STRIP_BYTES = 1 << 20
"""About how much of the picture is in one strip."""
THREADS = 16
SUB, UP = 1, 2


def encode_png(pixels: NDArray[np.uint8 | np.uint16]) -> bytes:
    """A PNG file's bytes of RGB (H, W, 3) or gray (H, W), 8 or 16 bit; the same bytes for the same pixels.

    Raises ValueError for arrays of another shape or dtype.
    """
    if (
        pixels.dtype not in (np.uint8, np.uint16)
        or not (pixels.ndim == 2 or pixels.shape[2:] == (3,))
        or not pixels.size
    ):
        raise ValueError(f"no PNG can be made of an array {pixels.shape} of {pixels.dtype}")
    height, width = pixels.shape[:2]
    step = pixels.itemsize * (3 if pixels.ndim == 3 else 1)
    stored = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">"), copy=False))
    rows = stored.view(np.uint8).reshape(height, width * step)
    high = max(STRIP_BYTES // rows.shape[1], 1)
    tops = range(0, height, high)

    def deflated(top: int) -> tuple[bytes, int, int]:
        """A strip's stream, and the checksum and the length of what is in it."""
        filtered = _filtered(rows, top, min(top + high, height), step)
        packer = isal_zlib.compressobj(1, isal_zlib.DEFLATED, -15)
        last = isal_zlib.Z_FINISH if top == tops[-1] else isal_zlib.Z_FULL_FLUSH
        return packer.compress(filtered) + packer.flush(last), isal_zlib.adler32(filtered), len(filtered)

    parts = list(map(deflated, tops) if len(tops) == 1 else _pool().map(deflated, tops))
    stream, check = [packed for packed, _, _ in parts], 1
    for _, of_strip, length in parts:
        check = _joined(check, of_strip, length)
    del parts  # of a large picture neither strips nor streams are there twice
    stream[0] = b"\x78\x01" + stream[0]  # zlib: deflate with a window of 32 KiB, fastest
    stream[-1] += struct.pack(">I", check)
    colour = 2 if pixels.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour, 0, 0, 0)
    pieces = [b"\x89PNG\r\n\x1a\n", *_parts_of(b"IHDR", header)]
    for data in stream:
        pieces += _parts_of(b"IDAT", data)
    return b"".join([*pieces, *_parts_of(b"IEND", b"")])


def _joined(first: int, second: int, length: int) -> int:
    """The Adler-32 of two runs of bytes, of which the second has that length (RFC 1950)."""
    prime = 65521
    total = ((first & 0xFFFF) + (second & 0xFFFF) - 1) % prime
    sums = ((first >> 16) + (second >> 16) + length * ((first & 0xFFFF) - 1)) % prime
    return sums << 16 | total


def _filtered(rows: NDArray[np.uint8], top: int, bottom: int, step: int) -> bytes:
    """Rows `top` to `bottom`, each behind the number of its filter; `step` is the bytes of a pixel."""
    out = np.empty((bottom - top, rows.shape[1] + 1), np.uint8)
    out[0, 0] = SUB
    out[0, 1 : step + 1] = rows[top, :step]
    np.subtract(rows[top, step:], rows[top, :-step], out=out[0, step + 1 :])
    out[1:, 0] = UP
    np.subtract(rows[top + 1 : bottom], rows[top : bottom - 1], out=out[1:, 1:])
    return out.tobytes()


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return b"".join(_parts_of(name, data))


def _parts_of(name: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
    """Head, data and checksum of a chunk."""
    check = isal_zlib.crc32(data, isal_zlib.crc32(name))
    return struct.pack(">I", len(data)) + name, data, struct.pack(">I", check)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(THREADS, usable_cores()), thread_name_prefix="png")
