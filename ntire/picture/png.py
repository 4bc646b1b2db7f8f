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

    def deflated(top: int) -> tuple[bytes, bytes]:
        filtered = _filtered(rows, top, min(top + high, height), step)
        packer = isal_zlib.compressobj(1, isal_zlib.DEFLATED, -15)
        last = isal_zlib.Z_FINISH if top == tops[-1] else isal_zlib.Z_FULL_FLUSH
        return packer.compress(filtered) + packer.flush(last), filtered

    check = 1
    stream: list[bytes] = []
    for packed, filtered in map(deflated, tops) if len(tops) == 1 else _pool().map(deflated, tops):
        check = isal_zlib.adler32(filtered, check)
        stream.append(packed)
    stream[0] = b"\x78\x01" + stream[0]  # zlib: deflate with a window of 32 KiB, fastest
    stream[-1] += struct.pack(">I", check)
    colour = 2 if pixels.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *((b"IDAT", data) for data in stream), (b"IEND", b"")]
    return b"".join([b"\x89PNG\r\n\x1a\n", *(part for name, data in chunks for part in _chunk(name, data))])


def _filtered(rows: NDArray[np.uint8], top: int, bottom: int, step: int) -> bytes:
    """Rows `top` to `bottom`, each behind the number of its filter; `step` is the bytes of a pixel."""
    out = np.empty((bottom - top, rows.shape[1] + 1), np.uint8)
    out[0, 0] = SUB
    out[0, 1 : step + 1] = rows[top, :step]
    np.subtract(rows[top, step:], rows[top, :-step], out=out[0, step + 1 :])
    out[1:, 0] = UP
    np.subtract(rows[top + 1 : bottom], rows[top : bottom - 1], out=out[1:, 1:])
    return out.tobytes()


def _chunk(name: bytes, data: bytes) -> tuple[bytes, ...]:
    check = isal_zlib.crc32(data, isal_zlib.crc32(name))
    return struct.pack(">I", len(data)), name, data, struct.pack(">I", check)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(THREADS, usable_cores()), thread_name_prefix="png")
