"""Mosaics as NumPy files, and the white level of those that do not say it: one for a folder, whatever is in each frame."""

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntire.picture.header import DAMAGED, UnreadableImage

ARRAYS = frozenset({".npy", ".npz"})
USUAL_BITS = {1: (8,), 2: (10, 12, 14, 16), 4: (10, 12, 14, 16, 32), 8: (10, 12, 14, 16, 32, 64)}
"""Of sensors, by the bytes that a sample takes in the file: nobody keeps 8 bits in 16."""


@dataclass(frozen=True)
class WhiteLevel:
    """Of a frame of integers that nobody has written down."""

    white: float
    note: str
    """Where it comes from."""
    stated: bool
    """Whether the file's name states it."""


def mosaic_in(path: Path) -> NDArray[Any]:
    """The mosaic (H, W) of a `.npy`, or of the only array of a `.npz`: unsigned integers or floats.

    Packed planes (H/2, W/2, 4) are unpacked. Raises UnreadableImage.
    """
    array = _array(path)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.shape[2] == 4:
        height, width, _ = array.shape
        array = array.reshape(height, width, 2, 2).transpose(0, 2, 1, 3).reshape(2 * height, 2 * width)
    if array.ndim != 2 or array.dtype.kind not in "uf":
        raise UnreadableImage(
            f"{path}: expected a mosaic (H, W) or packed planes (H/2, W/2, 4) of unsigned integers or floats, "
            f"found {array.shape} of {array.dtype}."
        )
    if min(array.shape) < 2:
        raise UnreadableImage(f"{path}: expected a mosaic of at least 2 x 2, found {array.shape}.")
    return array


def white_level_of(path: Path, array: NDArray[np.unsignedinteger]) -> WhiteLevel:
    """The depth that the file's name states ("..._12bit.npy"), else the smallest usual one that holds all frames beside it.

    A dark frame is as deep as its bright neighbours. Frames whose names state a depth speak for themselves alone.
    """
    highest = int(array.max())
    bits = _stated_bits(path)
    if bits is not None and highest < 2**bits:
        return WhiteLevel(2.0**bits - 1, f"white level {2**bits - 1} ({bits} bit)", True)
    there, frames = _brightest(path.parent, path.parent.stat().st_mtime_ns, array.dtype.str)
    highest = max(highest, there)
    bits = next(bits for bits in USUAL_BITS[array.itemsize] if highest < 2**bits)
    of = f", by the brightest of {frames} frames in its folder" if frames > 1 else ""
    return WhiteLevel(2.0**bits - 1, f"white level {2**bits - 1} ({bits} bit{of})", False)


def _stated_bits(path: Path) -> int | None:
    stated = re.search(r"(?<!\d)(\d{1,2})[-_ ]?bit", path.stem)
    return int(stated[1]) if stated else None


@lru_cache(maxsize=64)
def _brightest(folder: Path, changed: int, dtype: str) -> tuple[int, int]:
    """The largest sample of a folder's frames that state no depth, and how many these are; `changed` is when it was."""
    maxima = list(_maxima(folder, dtype))
    return max(maxima, default=0), len(maxima)


def _maxima(folder: Path, dtype: str) -> Iterator[int]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in ARRAYS or path.name.startswith(".") or _stated_bits(path) is not None:
            continue
        try:
            array = _array(path)
        except UnreadableImage:
            # It is told of when its own turn comes.
            continue
        if array.dtype.str == dtype and array.size:
            yield int(array.max())


def _array(path: Path) -> NDArray[Any]:
    try:
        if path.suffix.lower() == ".npy":
            array: NDArray[Any] = np.load(path, allow_pickle=False, mmap_mode=None)
            return array
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays.files)
            if len(names) == 1:
                return np.asarray(arrays[names[0]])
    except (*DAMAGED, zipfile.BadZipFile) as error:
        raise UnreadableImage(f"{path}: not a whole {path.suffix} array: {error}.") from None
    raise UnreadableImage(f"{path}: expected one array, found {', '.join(names) or 'none'}. Save the mosaic alone.")
