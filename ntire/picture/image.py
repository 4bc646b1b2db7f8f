"""Pictures in and out: the only place where pixels are converted or rounded.

Inside the program an image is RGB, float32, [0, 1], (3, H, W). The policy for what comes from a file:

| in the file           | becomes                                                                            |
|-----------------------|------------------------------------------------------------------------------------|
| 8 or 16 bits a sample | value / 255 or value / 65535; other depths (float, 32 bit) are refused             |
| gray, bilevel         | three equal channels                                                               |
| alpha                 | dropped; the colours count as stored, also under transparent pixels                |
| palette, YCbCr        | the colours that they stand for                                                    |
| CMYK                  | RGB = (1 - ink)(1 - black), without a profile                                      |
| EXIF orientation      | applied: pixels are read upright, as a viewer shows them                           |
| ICC profile           | not applied: numbers are compared, not appearances                                 |
| several frames        | refused: which one is meant is not ours to guess                                   |
"""

import io
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ntire import UserError
from ntire.files import write_atomically
from ntire.picture.png import encode_png as encode_png

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
MAX_PIXELS = 2**28
"""Refuse larger pictures before decoding them; a 4K frame enlarged four times has half as many pixels."""

DAMAGED = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error, zlib.error)
"""What Pillow raises for files that are broken, or made to break it."""

Pixels = NDArray[np.uint8 | np.uint16]
"""RGB, (H, W, 3), as integers."""


class UnreadableImage(UserError):
    """The file is there, but no image can be read from it."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before any pixel is decoded."""

    format: str
    """One of FORMATS."""
    mode: str
    """Pillow's mode: "RGB", "RGBA", "L", "P", "CMYK", ..."""
    bits: int
    """Bits a sample; up to 8, and 16, can be read."""
    height: int
    """Pixels, after the EXIF orientation is applied."""
    width: int
    frames: int
    orientation: int
    """EXIF's: 1 for an upright picture, 2 to 8 for flips and quarter turns."""


def read_header(path: Path) -> Header:
    """Open `path` without decoding its pixels."""
    return header_of(path, read_bytes(path))


def read_pixels(path: Path) -> Pixels:
    """Decode `path` by the policy above to integers, RGB, (H, W, 3), uint8 or uint16 as in the file."""
    return decode(path, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """A file's bytes; raises UnreadableImage instead of OSError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"{path}: cannot be read: {error.strerror or error}.") from None


def header_of(path: Path, data: bytes) -> Header:
    """The header of a file whose bytes have been read; `path` is for messages."""
    return _header(path, _open(path, data), data)


def decode(path: Path, data: bytes) -> Pixels:
    """The pixels of a file whose bytes have been read; `path` is for messages."""
    image = _open(path, data)
    header = _header(path, image, data)
    if header.frames > 1:
        raise UnreadableImage(f"{path}: expected one picture, found {header.frames} frames. Save the one you mean.")
    if header.bits > 8 and header.bits != 16:
        raise UnreadableImage(
            f"{path}: expected 8 or 16 bits a sample, found mode {image.mode}. Save it as an 8- or 16-bit PNG."
        )
    try:
        image.load()
        if header.bits == 16:
            pixels = _sixteen_bit(image, data)
        else:
            # Pillow copies a picture that is RGB already.
            pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)
    except DAMAGED as error:
        raise UnreadableImage(f"{path}: not a whole {header.format} image: {error}. Copy the file again.") from None
    return _upright(pixels, header.orientation)


def read_image(path: Path) -> "Tensor":
    """The picture in `path`: RGB, float32, [0, 1], (3, H, W).

    Raises UnreadableImage for a file that is no image, is damaged, or is outside the policy above.
    """
    return as_image(read_pixels(path))


def read_integers(path: Path) -> "Tensor":
    """The picture in `path` as integers (3, H, W), uint8 or uint16 as in the file: what threads and devices hand over."""
    return as_tensor(read_pixels(path))


def as_tensor(pixels: Pixels) -> "Tensor":
    """Integers (H, W, 3) as a tensor (3, H, W) of the same numbers, which lie in memory as before."""
    # Processes that only look at files start without PyTorch.
    import torch

    # A decoder's own memory may be read-only or mirrored, which a tensor cannot be.
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)


def as_image(pixels: "Pixels | Tensor") -> "Tensor":
    """Integers, an array (H, W, 3) or a tensor (..., H, W), uint8 or uint16, to float32 [0, 1], a tensor (..., H, W) on the
    same device; a tensor of floats is an image already.
    """
    import torch

    integers = pixels if isinstance(pixels, torch.Tensor) else as_tensor(pixels)
    if integers.dtype.is_floating_point:
        return integers
    values = integers.to(torch.float32, memory_format=torch.contiguous_format)
    # A division by a number on the device, as a GPU would multiply by the inverse of one on the host: the two differ in the
    # last bit, and scores with them.
    top = {torch.uint8: 255.0, torch.uint16: 65535.0}[integers.dtype]
    return values.div_(torch.full((), top, device=values.device))


class Rounding:
    """Rounds pieces of an image where they are, and remembers on their device whether all values were numbers.

    So a device that rounds piece after piece need not be waited for until the end.
    """

    def __init__(self, bits: int) -> None:
        import torch

        self.bits = bits
        self.finite = torch.ones((), dtype=torch.bool)
        """Whether all values so far were numbers, on the device of the pieces."""

    def __call__(self, image: "Tensor") -> "Tensor":
        """Float (3, h, w) to integers (3, h, w) of 8 or 16 bits: clipped to [0, 1], rounded once, half to even."""
        import torch

        values = image.detach().float()
        if values.numel():
            low, high = values.aminmax()
            self.finite = self.finite.to(low.device, non_blocking=True) & torch.isfinite(low) & torch.isfinite(high)
        levels = values.clamp(0, 1).mul_(2**self.bits - 1).round_()
        if self.bits == 8:
            return levels.to(torch.uint8)
        return levels.to(torch.int32).to(torch.uint16)


def check_finite(finite: "Tensor") -> None:
    """Raises ValueError if a piece held NaN or infinity, which became some innocent colour; waits for the device."""
    if not bool(finite):
        raise ValueError("values of the image are NaN or infinite")


def as_pixels(image: "Tensor", bits: int = 8) -> Pixels:
    """Float (3, H, W) to integers (H, W, 3): clipped to [0, 1], rounded once, half to even.

    Raises ValueError for NaN or infinity, which would otherwise become some innocent colour.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"expected an image (3, H, W), found {tuple(image.shape)}")
    rounding = Rounding(bits)
    integers = rounding(image)
    check_finite(rounding.finite)
    pixels: Pixels = integers.permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


def write_image(path: Path, image: "Tensor", bits: int = 8) -> None:
    """Write an image (3, H, W), [0, 1], as an RGB PNG of 8 or 16 bits; the file appears whole or not at all."""
    write_atomically(path, encode_png(as_pixels(image, bits)))


def _open(path: Path, data: bytes) -> Image.Image:
    # Pillow's own limit only warns below twice its value; ours is checked in full right after the header is read.
    Image.MAX_IMAGE_PIXELS = None
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise UnreadableImage(
            f"{path}: expected a PNG, JPEG, TIFF, WebP or BMP image, found {_kind(data)}. Restore from a picture file."
        ) from None
    except DAMAGED as error:
        raise UnreadableImage(f"{path}: not a whole image: {error}. Copy the file again.") from None
    if math.prod(image.size) > MAX_PIXELS:
        raise UnreadableImage(
            f"{path}: expected at most {MAX_PIXELS / 1e6:.0f} megapixels, found {image.width} x {image.height}. "
            "Cut it into parts."
        )
    return image


def _header(path: Path, image: Image.Image, data: bytes) -> Header:
    bits = {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)
    if image.format == "PNG" and data[24] == 16:
        # The IHDR chunk is always first: 8 bytes signature, 8 head, 4 width, 4 height, then the depth.
        bits = 16
    if image.format == "TIFF":
        # Pillow says "RGB" of a TIFF with 16 bits a sample; tag 258 tells.
        depths = getattr(image, "tag_v2", {}).get(258, (bits,))
        bits = max(depths) if isinstance(depths, tuple) else int(depths)
    orientation = _orientation(path, image)
    height, width = (image.width, image.height) if orientation >= 5 else (image.height, image.width)
    frames = int(getattr(image, "n_frames", 1))
    return Header(image.format or "", image.mode, bits, height, width, frames, orientation)


def _orientation(path: Path, image: Image.Image) -> int:
    # Pillow's getexif decodes a whole PNG to look for a chunk behind the pixels; the one before them is enough.
    exif = Image.Exif()
    try:
        if image.format == "PNG":
            exif.load(image.info.get("exif", b""))
        else:
            exif = image.getexif()
        found = exif.get(0x0112, 1)
    except DAMAGED:
        raise UnreadableImage(f"{path}: its EXIF data is damaged. Save the picture without it.") from None
    return found if found in range(1, 9) else 1


def _sixteen_bit(image: Image.Image, data: bytes) -> NDArray[np.uint16]:
    if image.mode in ("I", "I;16", "I;16L", "I;16B"):
        gray = np.asarray(image).astype(np.uint16)
        return np.repeat(gray[..., None], 3, axis=2)
    # Pillow has no 16-bit colour: it has checked the file, OpenCV decodes it.
    import cv2

    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise ValueError("its 16-bit samples cannot be decoded")
    pixels = decoded.astype(np.uint16, copy=False)
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    colours = pixels[..., 2::-1] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    return np.ascontiguousarray(colours)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation (1 to 8) to (H, W, 3)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    vertical = orientation in (3, 4, 7, 8)
    horizontal = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if vertical else 1, :: -1 if horizontal else 1])


def _kind(data: bytes) -> str:
    if not data:
        return "an empty file"
    try:
        data[:512].decode()
    except UnicodeDecodeError:
        return f"a file that begins with {data[:8].hex(' ')}"
    return "text"
