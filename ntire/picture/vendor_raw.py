"""Raw files of cameras, and DNG, by LibRaw: the mosaic of a Bayer sensor, its levels and its colours.

LibRaw decodes what there is of a damaged file, tells of it on stderr if at all, and leaves the rest black. So its lines are
read, the strips of a TIFF-like file are looked for, and rows without any light at the end are taken for what they are.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ntire.picture.header import DAMAGED, UnreadableImage
from ntire.picture.tiff import opened

if TYPE_CHECKING:
    import rawpy

BAYER = ("RGGB", "GRBG", "GBRG", "BGGR")
OTHER_PATTERNS = {(6, 6): "Fujifilm's X-Trans (6 x 6 colours)", (4, 4): "Quad-Bayer (4 x 4 colours)"}
MIRRORED_ACROSS, MIRRORED_DOWN, TRANSPOSED = 1, 2, 4
"""Bits of LibRaw's number of how a frame is to be turned, which are done in this order."""
EMPTY_ROWS = 8
"""Rows at the end without a sample above the black level: noise lifts some of a sensor's above it, even in the dark."""
IN_WORDS = {
    "Input/output error": "the file ends early or is damaged",
    "Unsupported file format or not RAW file": (
        "no raw file, or one of a camera that this LibRaw does not know; for a finished picture use --track srgb"
    ),
    "Corrupted data or unexpected EOF": "its data are damaged or end early",
    "Data error": "its data are damaged",
    "Request for nonexistent image": "there is no raw image in it",
    "Insufficient memory": "it asks for more memory than there is",
}
COMPLAINTS = (b"Unexpected end of file", b"data corrupted at")
_stderr = threading.Lock()


@dataclass(frozen=True)
class VendorFrame:
    """What a raw file says, upright."""

    samples: NDArray[np.uint16]
    """(H, W), sensor values."""
    cfa: str
    black: tuple[float, ...]
    """One for each position of `cfa`."""
    white: float
    gains: tuple[float, float, float] | None
    """White balance of R, G, B."""
    camera_from_xyz: NDArray[np.float32] | None
    """(3, 3), by LibRaw's table of cameras."""
    srgb_from_camera: NDArray[np.float32] | None
    """(3, 3), white-balanced camera RGB to linear sRGB, rows of sum 1, by the file itself."""
    iso: float | None


def read_vendor(path: Path) -> VendorFrame:
    """Read a raw file. Raises UnreadableImage for a damaged one and for sensors that are not Bayer, with the reason."""
    import rawpy

    try:
        with rawpy.RawPy() as raw:
            with _complaints() as complaints:
                raw.open_file(str(path))
                raw.unpack()
            letters, colours = _bayer(path, raw)
            _check_whole(path, raw, complaints)
            return _frame(raw, _upright(raw.raw_image_visible, raw.sizes.flip).copy(), letters, colours)
    except (rawpy.LibRawError, *DAMAGED) as error:
        first = error.args[0] if error.args else ""
        said = first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first or error)
        raise UnreadableImage(f"{path}: LibRaw cannot read it: {IN_WORDS.get(said, said)}.") from None


def _frame(raw: "rawpy.RawPy", samples: NDArray[np.uint16], letters: str, colours: NDArray[Any]) -> VendorFrame:
    table = np.array(raw.rgb_xyz_matrix[:3], dtype=np.float32)
    own = _own_matrix(np.array(raw.color_matrix, dtype=np.float32))
    return VendorFrame(
        samples,
        letters,
        tuple(float(raw.black_level_per_channel[index]) for index in colours),
        float(raw.white_level),
        _gains(raw),
        table if table.any() else None,
        own,
        float(raw.other.iso_speed) or None,
    )


def _upright(samples: NDArray[Any], flip: int) -> NDArray[Any]:
    """(H, W) as LibRaw's `flip` has it: a view."""
    down, across = -1 if flip & MIRRORED_DOWN else 1, -1 if flip & MIRRORED_ACROSS else 1
    turned = samples[::down, ::across]
    return turned.T if flip & TRANSPOSED else turned


def _bayer(path: Path, raw: "rawpy.RawPy") -> tuple[str, NDArray[Any]]:
    """The four letters of the upright mosaic, and LibRaw's numbers of their colours."""
    import rawpy

    pattern = raw.raw_pattern if raw.raw_type == rawpy.RawType.Flat else None
    if pattern is None or pattern.shape != (2, 2):
        if raw.raw_type != rawpy.RawType.Flat:
            found = "all colours in every pixel (Foveon, or a DNG that is demosaiced already)"
        elif pattern is None or pattern.size == 1:
            found = "no colour filters (a monochrome sensor)"
        else:
            found = OTHER_PATTERNS.get(pattern.shape, f"a pattern of {pattern.shape[0]} x {pattern.shape[1]} colours")
        raise UnreadableImage(
            f"{path}: expected a Bayer sensor (2 x 2 colours), as the methods were trained on, found {found}. "
            "Develop it with a raw converter and restore the picture with --track srgb."
        )
    colours = _upright(raw.raw_colors_visible, raw.sizes.flip)[:2, :2].flatten()
    letters = "".join(chr(raw.color_desc[index]) for index in colours)
    if letters not in BAYER:
        letters = "of one filter everywhere, as of a monochrome sensor" if len(set(letters)) == 1 else letters
        raise UnreadableImage(f"{path}: expected a Bayer sensor of red, green and blue, found the colours {letters}.")
    return letters, colours


def _check_whole(path: Path, raw: "rawpy.RawPy", complaints: list[str]) -> None:
    """Raises UnreadableImage if there are signs that LibRaw has filled up what the file does not hold."""
    lost = complaints[0] if complaints else _beyond_the_end(path.read_bytes())
    lit = np.flatnonzero((raw.raw_image_visible > min(raw.black_level_per_channel)).any(axis=1))
    height = raw.raw_image_visible.shape[0]
    empty = height - (int(lit[-1]) + 1 if lit.size else 0)
    if lost is None and empty >= min(EMPTY_ROWS, height):
        lost = f"the last {empty} of {height} rows are empty"
    if lost is not None:
        raise UnreadableImage(f"{path}: not a whole raw file: {lost}. Copy the file again.")


def _beyond_the_end(data: bytes) -> str | None:
    """What a TIFF-like file says to have and has not."""
    import tifffile

    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    try:
        with opened(data) as file:
            pages = [page for first in file.pages for page in (first, *(first.pages or ()))]
            ends = [
                offset + count
                for page in pages
                if isinstance(page, tifffile.TiffPage)
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
            ]
    except DAMAGED:
        # Makers' files stretch the standard; LibRaw has read this one.
        return None
    if max(ends, default=0) <= len(data):
        return None
    return f"its data go on to byte {max(ends):,}, the file has {len(data):,}"


def _gains(raw: "rawpy.RawPy") -> tuple[float, float, float] | None:
    for gains in (raw.camera_whitebalance, raw.daylight_whitebalance):
        red, green, blue = (float(value) for value in gains[:3])
        if min(red, green, blue) > 0:
            return red, green, blue
    return None


def _own_matrix(matrix: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """LibRaw's `cmatrix` (3, 4), a second green added to the first, with rows that keep white white."""
    colours = matrix[:, :3].copy()
    if matrix.shape[1] > 3:
        colours[:, 1] += matrix[:, 3]
    sums = colours.sum(axis=1, keepdims=True)
    if not colours.any() or not np.isfinite(colours).all() or (sums <= 0).any():
        return None
    return np.asarray(colours / sums, dtype=np.float32)


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What LibRaw says on stderr meanwhile, in words; what others write there appears afterwards."""
    told: list[str] = []
    with _stderr, tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        kept = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            yield told
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines = file.read().splitlines(keepends=True)
            own = [line for line in lines if any(words in line for words in COMPLAINTS)]
            told += [
                "LibRaw found " + line.decode("utf-8", "replace").rpartition(": ")[2].strip().lower() for line in own
            ]
            os.write(2, b"".join(line for line in lines if line not in own))
