"""Pictures in and out: the only place where pixels are converted or rounded.

Inside the program an image is RGB, float32, [0, 1], (3, H, W). The policy for what comes from a file:

| in the file            | becomes                                                                            |
|------------------------|------------------------------------------------------------------------------------|
| 8 or 16 bits a sample  | value / 255 or value / 65535                                                       |
| 1 to 7, or 9 to 15     | scaled to the range of 8 or 16 bits: white stays white                             |
| floats (TIFF, NPY, JXL)| as they are, if all are in [0, 1]; else refused with the numbers                   |
| signed, 32-bit integers| refused with the numbers: which value is white is not said                         |
| gray, bilevel          | three equal channels                                                               |
| white is zero          | inverted                                                                           |
| alpha                  | dropped; the colours count as stored, also under transparent pixels                |
| palette, YCbCr         | the colours that they stand for                                                    |
| CMYK                   | RGB = (1 - ink)(1 - black), without a profile                                      |
| orientation            | applied once: pixels are read upright, as a viewer shows them                      |
| ICC profile            | not applied: numbers are compared, not appearances; one that is not sRGB is named  |
| several pictures       | TIFF, HEIC and cameras' JPEG: the first, or main one; animations are refused       |

What is dropped, chosen or left unapplied stands in `Header.notes`, and from there in the journal of a run.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from ntire.files import write_atomically
from ntire.picture import array_files, heif, jxl, pillow_formats, tiff, unclipped
from ntire.picture.header import MAX_PIXELS as MAX_PIXELS
from ntire.picture.header import Depth as Depth
from ntire.picture.header import Header as Header
from ntire.picture.header import Integers as Integers
from ntire.picture.header import Pixels as Pixels
from ntire.picture.header import UnreadableImage as UnreadableImage
from ntire.picture.header import depth_of as depth_of
from ntire.picture.pillow_formats import READ as READ
from ntire.picture.png import encode_png as encode_png
from ntire.picture.suffixes import PICTURES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ntire.picture.colours import Matrix

SUFFIXES = PICTURES
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def psnr_of(mean_square: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of values in [0, 1]; infinite for 0."""
    return -10 * math.log10(mean_square) if mean_square else math.inf


def read_header(path: Path) -> Header:
    """Open `path` without decoding its pixels."""
    return header_of(path, read_bytes(path))


def sides_at_a_glance(path: Path) -> tuple[int, int] | None:
    """Height and width by the head of a file, which may be no whole picture for that; None where they take more than a look."""
    return pillow_formats.sides_at_a_glance(path)


def read_pixels(path: Path) -> Pixels:
    """Decode `path` by the policy above: RGB, (H, W, 3), uint8, uint16, or float32 in [0, 1], as `depth_of` says."""
    return decode(path, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """A file's bytes; raises UnreadableImage instead of OSError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"{path}: cannot be read: {error.strerror or error}.") from None


def header_of(path: Path, data: bytes) -> Header:
    """The header of a file whose bytes have been read; `path` is for messages."""
    return _reader(data).header_of(path, data)


def decode(path: Path, data: bytes) -> Pixels:
    """The pixels of a file whose bytes have been read; `path` is for messages."""
    return _reader(data).decode(path, data)


def decode_integers(path: Path, data: bytes) -> Integers:
    """The same of a file that is to hold integers: raises UnreadableImage for floats."""
    pixels = decode(path, data)
    if depth_of(pixels).dtype == "float32":
        raise UnreadableImage(f"{path}: expected integers of 8 or 16 bits, found floats.")
    return cast("Integers", pixels)


class Reader(Protocol):
    """A module that reads some formats; `name` is for messages."""

    def header_of(self, name: object, data: bytes) -> Header:
        """Raises UnreadableImage."""

    def decode(self, name: object, data: bytes) -> Pixels:
        """Raises UnreadableImage."""


def _reader(data: bytes) -> Reader:
    """The module that reads a file, told by its first bytes."""
    if data.startswith(TIFF_MAGIC):
        return tiff
    if data.startswith(array_files.MAGIC):
        return array_files
    if data.startswith(unclipped.MAGIC):
        return unclipped
    if jxl.is_jxl(data):
        return jxl
    return heif if heif.is_heif(data) else pillow_formats


def cut_to_multiple(pixels: Pixels, multiple: int) -> Pixels:
    """Pixels (H, W, 3) cut about their centre to sides of a multiple, as evaluation programs do for networks that need it."""
    height, width = pixels.shape[:2]
    top, left = (height % multiple) // 2, (width % multiple) // 2
    return pixels[top : top + height - height % multiple, left : left + width - width % multiple]


def read_image(path: Path) -> "Tensor":
    """The picture in `path`: RGB, float32, [0, 1], (3, H, W).

    Raises UnreadableImage for a file that is no image, is damaged, or is outside the policy above.
    """
    return as_image(read_pixels(path))


def read_integers(path: Path) -> "Tensor":
    """The picture in `path` as in the file, (3, H, W): integers, uint8 or uint16, or floats in [0, 1], float32; what threads
    and devices hand over.
    """
    return as_tensor(read_pixels(path))


def as_tensor(pixels: Pixels) -> "Tensor":
    """Pixels (H, W, 3) as a tensor (3, H, W) of the same numbers, which lie in memory as before."""
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
        # An array's memory stays the caller's: what is done to the image must not show in it.
        return integers if integers is pixels else integers.clone(memory_format=torch.contiguous_format)
    from ntire.picture.levels import values_of

    return values_of(integers)


def entering(pieces: "Tensor", dtype: "torch.dtype", memory_format: "torch.memory_format") -> "Tensor":
    """Integers or an image (B, C, H, W) as a network takes them: `as_image` in the network's dtype and layout; on a GPU
    in one pass.
    """
    from ntire.picture.levels import entered

    if pieces.device.type != "cpu" and not pieces.dtype.is_floating_point:
        return entered(pieces, dtype, memory_format)
    return as_image(pieces).to(dtype).contiguous(memory_format=memory_format)


def clipped(image: "Tensor", ccm: "Matrix | None" = None) -> "Tensor":
    """An image of any floats as float32 in [0, 1]; with a matrix, one in a camera's colours."""
    from ntire.picture.colours import IDENTITY, correct_colours

    return correct_colours(image.float(), ccm or IDENTITY)


class Rounding:
    """Rounds pieces of an image where they are, and remembers on their device whether all values were numbers.

    So a device that rounds piece after piece need not be waited for until the end.
    """

    def __init__(self, bits: int) -> None:
        import torch

        self.bits = bits
        self.finite = torch.ones((), dtype=torch.bool)
        """Whether all values so far were numbers, on the device of the pieces."""

    def __call__(self, image: "Tensor", ccm: "Matrix | None" = None) -> "Tensor":
        """Float (3, h, w) to integers (3, h, w) of 8 or 16 bits: clipped to [0, 1], rounded once, half to even; on a GPU in
        one pass. With a matrix, the image is in a camera's colours. The integers lie as in a file.
        """
        from ntire.picture import levels
        from ntire.picture.colours import IDENTITY

        ccm = ccm or IDENTITY
        image = image.detach()
        if image.device.type == "cpu":
            self.finite = self.finite & levels.all_finite(image)
            return levels.levels_of(image, self.bits, ccm)
        if self.finite.device.type == "cpu":
            # A value of the host goes along with an operator; a copy of it would wait for the device.
            self.finite = self.finite.new_ones((), device=image.device) & self.finite
        return levels.left(image, self.bits, self.finite, ccm)


def check_finite(finite: "Tensor") -> None:
    """Raises ValueError if a piece held NaN or infinity, which became some innocent colour; waits for the device."""
    if not bool(finite):
        raise ValueError("values of the image are NaN or infinite")


def as_pixels(image: "Tensor", bits: int = 8) -> Integers:
    """Float (3, H, W) to integers (H, W, 3): clipped to [0, 1], rounded once, half to even.

    Raises ValueError for NaN or infinity, which would otherwise become some innocent colour.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"expected an image (3, H, W), found {tuple(image.shape)}")
    rounding = Rounding(bits)
    integers = rounding(image)
    check_finite(rounding.finite)
    pixels: Integers = integers.permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


def write_image(path: Path, image: "Tensor", bits: int = 8) -> None:
    """Write an image (3, H, W), [0, 1], as an RGB PNG of 8 or 16 bits; the file appears whole or not at all."""
    write_atomically(path, encode_png(as_pixels(image, bits)))
