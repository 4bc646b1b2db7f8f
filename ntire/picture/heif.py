"""HEIC files, as phones write them, by libheif: the picture that the file says is the main one, turned upright by libheif."""

import io
from typing import Any

import numpy as np

from ntire import UserError
from ntire.picture.header import DAMAGED, Header, Pixels, UnreadableImage, check_size, three_channels, to_full_range
from ntire.picture.suffixes import NEEDS_PHOTOS

BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def is_heif(data: bytes) -> bool:
    """Whether a file's brands are those of HEIC and not of AVIF, which shares the container."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    return bool(brands & BRANDS) and not brands & {b"avif", b"avis"}


def header_of(name: object, data: bytes) -> Header:
    """The header of a HEIC file's bytes. Raises UnreadableImage, and UserError (exit code 3) without pillow-heif."""
    return _header(name, _open(name, data))


def _header(name: object, file: Any) -> Header:
    width, height = file.size
    check_size(name, height, width)
    mode = file.mode.partition(";")[0]
    profile = file.info.get("icc_profile")
    bits = int(file.info.get("bit_depth", 8))
    return Header("HEIF", mode, bits, height, width, len(file), alpha=mode in ("RGBA", "LA"), profile=profile)


def decode(name: object, data: bytes) -> Pixels:
    """The upright pixels of a HEIC file's bytes. Raises as `header_of`."""
    file = _open(name, data)
    header = _header(name, file)
    try:
        samples = np.asarray(file)
        if samples.shape[:2] != (header.height, header.width):
            raise ValueError(f"of {header.height} x {header.width} pixels, {samples.shape[:2]} are there")
    except DAMAGED as error:
        raise UnreadableImage(f"{name}: not a whole HEIC image: {str(error).strip()}. Copy the file again.") from None
    return three_channels(to_full_range(samples, header.bits) if header.bits > 8 else samples)


def _open(name: object, data: bytes) -> Any:
    try:
        import pillow_heif
    except ImportError:
        raise UserError(f"{name}: {NEEDS_PHOTOS}.", exit_code=3) from None
    try:
        file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
        if not len(file):
            raise ValueError("there is no picture in it")
        return file
    except DAMAGED as error:
        raise UnreadableImage(f"{name}: not a whole HEIC image: {str(error).strip()}. Copy the file again.") from None
