"""Noisy pictures as floats beyond [0, 1]: what the tables of DnCNN and its successors are measured on.

A file of ours, made by `add_noise` and read like any picture: MAGIC, then a NumPy array (H, W, 3), float32, 1 being white.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntire.picture.header import DAMAGED, Header, Pixels, UnreadableImage, check_size
from ntire.picture.noise_protocol import NoiseProtocol as NoiseProtocol

MAGIC = b"NTIRE unclipped 1\n"
SUFFIX = ".unclipped"


def encode(pixels: NDArray[np.float32]) -> bytes:
    """The bytes of a file for RGB (H, W, 3), float32."""
    file = io.BytesIO(MAGIC)
    file.seek(len(MAGIC))
    np.lib.format.write_array(file, np.ascontiguousarray(pixels, dtype=np.float32), allow_pickle=False)
    return file.getvalue()


def header_of(name: object, data: bytes) -> Header:
    """The header of a file's bytes. Raises UnreadableImage, naming `name`."""
    height, width, _ = _array(name, data).shape
    check_size(name, height, width)
    return Header("UNCLIPPED", "RGB", 32, height, width, floating=True)


def decode(name: object, data: bytes) -> Pixels:
    """The pixels of a file's bytes: float32, beyond [0, 1] where the noise is. Raises UnreadableImage, naming `name`."""
    return _array(name, data)


def _array(name: object, data: bytes) -> NDArray[np.float32]:
    try:
        values: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data[len(MAGIC) :]), allow_pickle=False)
    except DAMAGED as error:
        raise UnreadableImage(f"{name}: not a whole file of unclipped floats: {error}. Make it again.") from None
    if values.dtype != np.float32 or values.ndim != 3 or values.shape[2] != 3 or not np.isfinite(values).all():
        raise UnreadableImage(f"{name}: expected finite float32 (H, W, 3), found {values.dtype} {values.shape}.")
    return values
