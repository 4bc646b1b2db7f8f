"""Pictures as NumPy files: (H, W, 3), gray (H, W) or (H, W, 1), or with alpha (H, W, 4).

uint8 and uint16 fill their range: white is 255 or 65535. Floats are in [0, 1]. Other types have no stated white.
"""

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ntire.picture.header import (
    DAMAGED,
    Header,
    Pixels,
    UnreadableImage,
    as_unit_floats,
    check_size,
    three_channels,
)

MAGIC = npy.MAGIC_PREFIX


def header_of(name: object, data: bytes) -> Header:
    """The header of a `.npy` file's bytes. Raises UnreadableImage, naming `name`."""
    shape, dtype, _ = _described(name, io.BytesIO(data))
    channels = shape[2] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in (1, 3, 4):
        raise UnreadableImage(f"{name}: expected a picture (H, W, 3) or (H, W), found an array {shape}.")
    if dtype.kind + str(dtype.itemsize) not in ("u1", "u2", "f2", "f4", "f8"):
        raise UnreadableImage(
            f"{name}: expected uint8 or uint16 of full range or floats in [0, 1], found {dtype}, whose white is not stated."
        )
    check_size(name, shape[0], shape[1])
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    return Header(
        "NPY",
        mode,
        8 * dtype.itemsize,
        shape[0],
        shape[1],
        floating=dtype.kind == "f",
        alpha=channels == 4,
    )


def decode(name: object, data: bytes) -> Pixels:
    """The pixels of a `.npy` file's bytes. Raises UnreadableImage, naming `name`."""
    header = header_of(name, data)
    file = io.BytesIO(data)
    shape, dtype, fortran = _described(name, file)
    count, left = math.prod(shape), len(data) - file.tell()
    if left < count * dtype.itemsize:
        raise UnreadableImage(
            f"{name}: not a whole .npy array: expected {count * dtype.itemsize:,} bytes of values, found {left:,}. "
            "Copy the file again."
        )
    flat = np.frombuffer(data, dtype, count, file.tell())
    values: NDArray[Any] = flat.reshape(shape, order="F" if fortran else "C")
    values = as_unit_floats(name, values) if header.floating else values.astype(dtype.newbyteorder("="))
    return three_channels(values)


def _described(name: object, file: io.BytesIO) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, type and whether the first index runs fastest; leaves `file` where the values begin."""
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except DAMAGED as error:
        raise UnreadableImage(f"{name}: not a whole .npy array: {error}. Copy the file again.") from None
    return shape, dtype, fortran
