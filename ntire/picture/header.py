"""What a picture's file says of itself before any pixel is decoded, and how its samples are counted."""

import struct
import tokenize
import zlib
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ntire import UserError

MAX_PIXELS = 2**28
"""Refuse larger pictures before decoding them; a 4K frame enlarged four times has half as many pixels."""

DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
    tokenize.TokenError,
)
"""What decoders raise for files that are broken, or made to break them."""

Pixels = NDArray[np.uint8 | np.uint16 | np.float32]
"""RGB, (H, W, 3): integers of 8 or 16 bits, or floats in [0, 1]; `depth_of` tells which."""
Integers = NDArray[np.uint8 | np.uint16]
"""The same, of integers alone."""


class UnreadableImage(UserError):
    """The file is there, but no image can be read from it."""


@dataclass(frozen=True)
class Depth:
    """How samples are stored, and so which value stands for full intensity; black is 0."""

    dtype: Literal["uint8", "uint16", "float32"]

    @property
    def bits(self) -> int:
        """Bits a sample."""
        return {"uint8": 8, "uint16": 16, "float32": 32}[self.dtype]

    @property
    def white(self) -> float:
        """The value of full intensity: 255, 65535 or 1."""
        return {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}[self.dtype]

    def __str__(self) -> str:
        return "floats in [0, 1]" if self.dtype == "float32" else f"{self.bits} bits"


EIGHT_BITS, SIXTEEN_BITS, FLOATS = Depth("uint8"), Depth("uint16"), Depth("float32")


def depth_of(pixels: NDArray[Any]) -> Depth:
    """The depth of decoded pixels."""
    return {"u1": EIGHT_BITS, "u2": SIXTEEN_BITS, "f4": FLOATS}[pixels.dtype.str[1:]]


@dataclass(frozen=True)
class Header:
    """What a file says of itself before any pixel is decoded."""

    format: str
    """PNG, JPEG, TIFF, WEBP, BMP, AVIF, HEIF, JXL or NPY."""
    mode: str
    """In Pillow's words: "RGB", "RGBA", "L", "P", "CMYK", ..."""
    bits: int
    """Bits a sample in the file: 1 to 16, or of a float."""
    height: int
    """Pixels, after the orientation is applied."""
    width: int
    frames: int = 1
    orientation: int = 1
    """EXIF's: 1 for an upright picture, 2 to 8 for flips and quarter turns."""
    floating: bool = False
    """Whether samples are floats."""
    alpha: bool = False
    """Whether there is a channel, or a colour, of transparency."""
    profile: bytes | None = field(default=None, repr=False)
    """The ICC profile."""

    @property
    def depth(self) -> Depth:
        """Of the pixels that are read from it."""
        if self.floating:
            return FLOATS
        return EIGHT_BITS if self.bits <= 8 else SIXTEEN_BITS

    @property
    def notes(self) -> tuple[str, ...]:
        """What reading it leaves out or decides, for the record of a run; nothing for most pictures."""
        found = []
        if self.frames > 1:
            found.append(f"the first of {self.frames} pictures in the file")
        if self.alpha:
            found.append("transparency dropped")
        if 8 < self.bits < 16 and not self.floating:
            found.append(f"{self.bits} bits scaled to 16")
        name = profile_name(self.profile) if self.profile else "sRGB"
        if "srgb" not in name.lower():
            found.append(f"colour profile {name} not applied")
        return tuple(found)


def profile_name(profile: bytes) -> str:
    """What an ICC profile calls itself, in quotes, or that it is damaged."""
    import io

    from PIL import ImageCms

    try:
        described = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, *DAMAGED):
        return "(damaged)"
    return repr(" ".join(described.split()))


def check_size(name: object, height: int, width: int) -> None:
    """Raises UnreadableImage for a picture without pixels or with more than MAX_PIXELS."""
    if height < 1 or width < 1:
        raise UnreadableImage(f"{name}: expected a picture of at least 1 x 1, found {height} x {width}.")
    if height * width > MAX_PIXELS:
        raise UnreadableImage(
            f"{name}: expected at most {MAX_PIXELS / 1e6:.0f} megapixels, found {width} x {height}. Cut it into parts."
        )


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation (1 to 8) to (H, W, 3)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    vertical = orientation in (3, 4, 7, 8)
    horizontal = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if vertical else 1, :: -1 if horizontal else 1])


def three_channels(samples: NDArray[Any]) -> NDArray[Any]:
    """Gray (H, W) or (H, W, 1 or 2), or colours (H, W, 3 or more), to (H, W, 3); whatever comes after them is dropped."""
    if samples.ndim == 2:
        samples = samples[..., None]
    if samples.shape[2] < 3:
        return np.repeat(samples[..., :1], 3, axis=2)
    return np.ascontiguousarray(samples[..., :3])


def to_full_range(levels: NDArray[Any], bits: int) -> NDArray[Any]:
    """Levels of `bits` bits (1 to 16) to those of 8 or 16 bits: black stays 0, white becomes white, rounded to the nearest."""
    full = 8 if bits <= 8 else 16
    dtype = np.uint8 if full == 8 else np.uint16
    if bits == full:
        return levels.astype(dtype, copy=False)
    top, white = 2**bits - 1, 2**full - 1
    table = ((np.arange(top + 1, dtype=np.uint64) * (2 * white) + top) // (2 * top)).astype(dtype)
    return table[levels]


def as_unit_floats(name: object, values: NDArray[Any]) -> NDArray[np.float32]:
    """Floats of any precision to float32; UnreadableImage with the numbers where they are not all in [0, 1]."""
    if not np.isfinite(values).all():
        raise UnreadableImage(f"{name}: expected floats in [0, 1], found NaN or infinity.")
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if low < 0 or high > 1:
        raise UnreadableImage(
            f"{name}: expected floats in [0, 1], 1 being white, found {low:.6g} to {high:.6g}. "
            "Divide by the value of white and clip, or save integers."
        )
    return values.astype(np.float32, copy=False)


def result_of(header: Header) -> str:
    """What a file is in the words of a track's `results`."""
    if header.format == "NPY":
        return "npy"
    return f"{header.format.lower()}{'-float' if header.floating else header.bits}"
