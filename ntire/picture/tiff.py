"""TIFF files, by tifffile: the first picture in one, whatever its layout, compression and byte order.

Samples are taken to the depths of `Pixels`: integers of up to 16 bits by `to_full_range`, floats in [0, 1] as they are.
White is zero, palette and CMYK become the RGB that they stand for; colours that were multiplied by their alpha are divided
by it again. Signed samples, integers of 32 bits and CIELAB have no stated white, and are refused with their numbers.
"""

import io
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ntire.picture.header import (
    DAMAGED,
    Header,
    Pixels,
    UnreadableImage,
    as_unit_floats,
    check_size,
    three_channels,
    to_full_range,
    upright,
)

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
MODES = {WHITE_IS_ZERO: "L", BLACK_IS_ZERO: "L", RGB: "RGB", PALETTE: "P", SEPARATED: "CMYK", YCBCR: "RGB"}
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, SEPARATED: 4, YCBCR: 3}
"""Samples a pixel, without what is extra, by photometric interpretation."""
OTHERS = {
    4: "a mask",
    8: "CIELAB",
    9: "ICCLAB",
    10: "ITULAB",
    32803: "a raw mosaic, which --track raw takes",
    34892: "linear raw",
}
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
ASSOCIATED = 1
"""Of an extra sample: alpha that the colours have been multiplied by."""
JPEGS = (7, 34892, 33007)
"""Compressions whose decoder returns RGB where the file has YCbCr."""
MOST_SAMPLES = 16
"""A pixel; more are no picture."""
FAILURES = (*DAMAGED, ImportError, MemoryError)
"""What tifffile and its codecs raise for files that are broken or beyond them."""


def header_of(name: object, data: bytes) -> Header:
    """The header of a TIFF file's bytes. Raises UnreadableImage, naming `name`."""
    with _picture(name, data) as (page, frames):
        return _header(name, page, frames)


def decode(name: object, data: bytes) -> Pixels:
    """The upright pixels of a TIFF file's bytes. Raises UnreadableImage, naming `name`."""
    with _picture(name, data) as (page, frames):
        header = _header(name, page, frames)
        if header.mode == "RGB" and page.photometric == YCBCR and page.compression not in JPEGS:
            return _by_libtiff(name, data)
        _check_whole(name, page, len(data))
        try:
            samples = page.asarray(squeeze=False, maxworkers=1)
        except FAILURES as error:
            raise UnreadableImage(f"{name}: not a whole TIFF image: {error}. Copy the file again.") from None
        colours = _colours(name, page, header, _channels_last(samples))
    return upright(three_channels(colours), header.orientation)


def opened(data: bytes) -> "TiffFile":
    """A TIFF-like file's bytes, for tifffile to look into; raises one of FAILURES."""
    import tifffile

    # It tells of every odd tag on stderr, which is no place for it.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    return tifffile.TiffFile(io.BytesIO(data))


@contextmanager
def _picture(name: object, data: bytes) -> "Iterator[tuple[TiffPage, int]]":
    """The first page that is no reduced version of another, and how many pages there are."""
    import tifffile

    try:
        file = opened(data)
        with file:
            first = file.pages.first
            pages = (page for page in file.pages if isinstance(page, tifffile.TiffPage))
            page = next((page for page in pages if not page.is_reduced), first) if first.is_reduced else first
            frames = len(file.pages)
            yield page, frames
    except UnreadableImage:
        raise
    except FAILURES as error:
        raise UnreadableImage(f"{name}: not a whole TIFF image: {error}. Copy the file again.") from None


def _header(name: object, page: "TiffPage", frames: int) -> Header:
    kind, bits = int(page.photometric), page.bitspersample
    colours = COLOURS.get(kind)
    if colours is None or page.samplesperpixel < colours or page.samplesperpixel > MOST_SAMPLES:
        found = OTHERS.get(kind, f"photometric interpretation {kind} with {page.samplesperpixel} samples a pixel")
        raise UnreadableImage(f"{name}: expected gray, RGB, palette, CMYK or YCbCr, found {found}. Save it as RGB.")
    if not isinstance(bits, int) or page.imagedepth != 1:
        raise UnreadableImage(f"{name}: expected samples of one depth, found {bits} bits. Save it as an RGB TIFF.")
    check_size(name, page.imagelength, page.imagewidth)
    check_size(name, max(page.tilelength, 1), max(page.tilewidth, 1))
    turned = page.tags.valueof(274, 1)
    orientation = int(turned) if isinstance(turned, int) and 1 <= turned <= 8 else 1
    height, width = page.imagelength, page.imagewidth
    if orientation >= 5:
        height, width = width, height
    profile = page.tags.valueof(34675)
    alpha = page.samplesperpixel > colours
    mode = {"L": "LA", "RGB": "RGBA"}.get(MODES[kind], MODES[kind]) if alpha else MODES[kind]
    return Header(
        "TIFF",
        "1" if mode == "L" and bits == 1 else mode,
        8 if kind == PALETTE else bits,
        height,
        width,
        frames,
        orientation,
        page.sampleformat == FLOAT,
        alpha,
        profile if isinstance(profile, bytes) else None,
    )


def _check_whole(name: object, page: "TiffPage", length: int) -> None:
    """Whether all strips or tiles lie within the file: the decoder takes what is there and fills up with black."""
    placed = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    there = sum(bool(offset and count) and offset + count <= length for offset, count in placed)
    # Uncompressed strips that follow each other count as one.
    wanted = len(placed) if page.is_contiguous else math.prod(page.chunked)
    short = page.compression == 1 and sum(page.databytecounts) * 8 < page.size * page.bitspersample
    if there < max(wanted, 1) or short:
        raise UnreadableImage(
            f"{name}: not a whole TIFF image: {there} of {max(wanted, 1)} strips or tiles are there and whole in its "
            f"{length:,} bytes. Copy the file again."
        )


def _channels_last(samples: NDArray[Any]) -> NDArray[Any]:
    """(planes, 1, H, W, samples) to (H, W, planes x samples)."""
    planes, _, height, width, contiguous = samples.shape
    stored = samples[:, 0].transpose(1, 2, 0, 3) if planes > 1 else samples[0, 0]
    return stored.reshape(height, width, planes * contiguous)


def _colours(name: object, page: "TiffPage", header: Header, samples: NDArray[Any]) -> NDArray[Any]:
    """Gray or RGB, and what comes after it, as integers of 8 or 16 bits or floats in [0, 1]; (H, W, C)."""
    kind = int(page.photometric)
    if kind == PALETTE:
        return _palette(name, page, samples[..., 0])
    values = _in_range(name, page, samples)
    white = header.depth.white
    if kind == WHITE_IS_ZERO:
        values[..., :1] = values.dtype.type(white) - values[..., :1]
    if kind == SEPARATED:
        ink = values.astype(np.float64)
        return _rounded((white - ink[..., :3]) * (white - ink[..., 3:4]) / white, values)
    if page.extrasamples and page.extrasamples[0] == ASSOCIATED:
        count = COLOURS[kind]
        alpha = values[..., count : count + 1].astype(np.float64)
        plain = values[..., :count] * (white / np.where(alpha > 0, alpha, white))
        return _rounded(np.minimum(plain, white), values)
    return values


def _rounded(values: NDArray[np.float64], like: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.float32) if like.dtype.kind == "f" else np.rint(values).astype(like.dtype)


def _in_range(name: object, page: "TiffPage", samples: NDArray[Any]) -> NDArray[Any]:
    """Samples as they come from the decoder, to a depth whose white is stated."""
    if page.sampleformat == FLOAT and samples.dtype.kind == "f":
        return as_unit_floats(name, samples).copy()
    bits = page.bitspersample
    if page.sampleformat not in (UNSIGNED, UNDEFINED) or samples.dtype.kind not in "bu" or bits > 16:
        kind = "signed integers" if page.sampleformat == SIGNED else "integers"
        raise UnreadableImage(
            f"{name}: expected unsigned integers of up to 16 bits or floats in [0, 1], found {kind} of {bits} bits from "
            f"{samples.min()} to {samples.max()}, of which none is said to be white. Save it as a 16-bit TIFF or PNG."
        )
    return to_full_range(samples.astype(np.uint8 if bits <= 8 else np.uint16), bits)


def _palette(name: object, page: "TiffPage", indices: NDArray[Any]) -> NDArray[np.uint8]:
    table = page.colormap
    if table is None or table.shape[0] != 3 or table.shape[1] <= int(indices.max(initial=0)):
        raise UnreadableImage(f"{name}: its palette is missing or too short. Save it as an RGB TIFF.")
    # 16 bits by the standard; some programs write 8.
    shift = 8 if table.max() > 255 else 0
    return (table >> shift).astype(np.uint8).T[indices.astype(np.intp)]


def _by_libtiff(name: object, data: bytes) -> Pixels:
    """Subsampled YCbCr of 8 bits outside of JPEG, which only libtiff reads; Pillow turns it upright."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except FAILURES as error:
        raise UnreadableImage(f"{name}: not a whole TIFF image: {error}. Copy the file again.") from None
