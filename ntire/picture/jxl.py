"""JPEG XL files, by libjxl through imagecodecs, which turns them upright; size and depth are read from the codestream
first (ISO/IEC 18181-1, annex D), as libjxl would decode whatever it is given.
"""

from dataclasses import dataclass

import numpy as np

from ntire.picture.header import (
    DAMAGED,
    Header,
    Pixels,
    UnreadableImage,
    as_unit_floats,
    check_size,
    three_channels,
)

CODESTREAM, CONTAINER = b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n"
RATIOS = ((1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Width to height."""


def is_jxl(data: bytes) -> bool:
    """Whether a file's bytes begin as those of a JPEG XL image do."""
    return data.startswith((CODESTREAM, CONTAINER))


def header_of(name: object, data: bytes) -> Header:
    """The header of a JPEG XL file's bytes. Raises UnreadableImage, naming `name`."""
    try:
        header = _header(name, _Bits(_codestream(data)))
    except IndexError:
        raise UnreadableImage(
            f"{name}: not a whole JPEG XL image: its header ends early. Copy the file again."
        ) from None
    check_size(name, header.height, header.width)
    return header


def decode(name: object, data: bytes) -> Pixels:
    """The upright pixels of a JPEG XL file's bytes. Raises UnreadableImage, naming `name`."""
    header = header_of(name, data)
    try:
        import imagecodecs

        samples = imagecodecs.jpegxl_decode(data)
    except (*DAMAGED, ImportError) as error:
        raise UnreadableImage(f"{name}: not a whole JPEG XL image: {error}. Copy the file again.") from None
    if samples.shape[:2] != (header.height, header.width):
        raise UnreadableImage(f"{name}: expected one picture, found an array {samples.shape}. Save the one you mean.")
    if samples.dtype.kind == "f":
        samples = as_unit_floats(name, samples)
    elif header.depth.dtype != samples.dtype.name:
        raise UnreadableImage(f"{name}: its samples of {header.bits} bits are decoded to {samples.dtype}.")
    return three_channels(np.asarray(samples))


@dataclass
class _Bits:
    """A codestream read from its lowest bit on."""

    data: bytes
    at: int = 0

    def take(self, count: int) -> int:
        value = 0
        for number in range(count):
            value |= (self.data[self.at >> 3] >> (self.at & 7) & 1) << number
            self.at += 1
        return value

    def one_of(self, *choices: tuple[int, int]) -> int:
        """Two bits choose an offset and the count of bits that are added to it."""
        offset, count = choices[self.take(2)]
        return offset + self.take(count)


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream, in its boxes or on its own."""
    if data.startswith(CODESTREAM):
        return data[2:64]
    at = 0
    while at + 16 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        begin = at + (16 if length == 1 else 8)
        length = int.from_bytes(data[at + 8 : at + 16], "big") if length == 1 else length
        if kind in (b"jxlc", b"jxlp"):
            begin += 4 if kind == b"jxlp" else 0
            return data[begin + 2 : begin + 64]
        if length < 8:
            break
        at += length
    return b""


def _header(name: object, bits: _Bits) -> Header:
    height, width = _size(bits)
    orientation, depth, floating, alpha = 1, 8, False, False
    if not bits.take(1):
        if bits.take(1):
            orientation = 1 + bits.take(3)
            if bits.take(1):
                _size(bits)
            if bits.take(2):
                raise UnreadableImage(
                    f"{name}: expected one picture, found an animation or a preview. Save one picture."
                )
        floating = bool(bits.take(1))
        if floating:
            depth = bits.one_of((32, 0), (16, 0), (24, 0), (1, 6))
            bits.take(4)
        else:
            depth = bits.one_of((8, 0), (10, 0), (12, 0), (1, 6))
        bits.take(1)
        alpha = bool(bits.one_of((0, 0), (1, 0), (2, 4), (1, 12)))
    if orientation >= 5:
        height, width = width, height
    return Header("JXL", "RGBA" if alpha else "RGB", depth, height, width, 1, orientation, floating, alpha)


def _size(bits: _Bits) -> tuple[int, int]:
    sides = ((1, 9), (1, 13), (1, 18), (1, 30))
    small = bits.take(1)
    height = 8 * (bits.take(5) + 1) if small else bits.one_of(*sides)
    ratio = bits.take(3)
    if ratio:
        across, down = RATIOS[ratio - 1]
        return height, height * across // down
    return height, 8 * (bits.take(5) + 1) if small else bits.one_of(*sides)
