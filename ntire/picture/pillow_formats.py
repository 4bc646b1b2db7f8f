"""PNG, JPEG, WebP, BMP and AVIF files, by Pillow; deeper than 8 bits, which Pillow has not in colour, by imagecodecs.

Plain RGB PNGs, which entries are made of, have a faster reader; what it does not take is read as before.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ntire.picture.header import (
    DAMAGED,
    Header,
    Pixels,
    UnreadableImage,
    check_size,
    three_channels,
    to_full_range,
    upright,
)
from ntire.picture.orientation import exif_in_text, orientation_in
from ntire.picture.png_reader import decode_rgb
from ntire.picture.repairs import ended_jpeg, only_pixels, png_chunk

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "AVIF")
READ = "PNG, JPEG, TIFF, WebP, BMP, AVIF, JPEG XL, HEIC or .npy"
"""All that is read, here and elsewhere, in words."""
LONGEST_EXIF = 1 << 16
"""Where EXIF data behind a PNG's pixels is looked for: it begins in the last bytes of the file."""
BAND_PIXELS = 1 << 20
TRANSPARENT = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})


def header_of(name: object, data: bytes) -> Header:
    """The header of a file's bytes. Raises UnreadableImage, naming `name`."""
    return _header(name, _open(name, data), data)


def decode(name: object, data: bytes) -> Pixels:
    """The upright pixels of a file's bytes. Raises UnreadableImage, naming `name`."""
    image = _open(name, data)
    header = _header(name, image, data)
    if header.frames > 1 and header.format != "JPEG":
        raise UnreadableImage(
            f"{name}: expected one picture, found an animation of {header.frames} frames. Save the one you mean."
        )
    try:
        pixels = decode_rgb(data) if header.format == "PNG" else None
        if pixels is None:
            pixels = _deep(image, data, header.bits) if header.bits > 8 else _eight_bit(image, data)
    except DAMAGED as error:
        raise UnreadableImage(f"{name}: not a whole {header.format} image: {error}. Copy the file again.") from None
    return upright(pixels, header.orientation)


def sides_at_a_glance(path: Path) -> tuple[int, int] | None:
    """Height and width by the head of a file, or None."""
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.height, image.width
    except DAMAGED:
        return None


def _open(name: object, data: bytes) -> Image.Image:
    # Pillow's own limit only warns below twice its value; ours is checked in full right after the header is read.
    Image.MAX_IMAGE_PIXELS = None
    try:
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except (ValueError, UnidentifiedImageError):
            if not data.startswith(b"\x89PNG"):
                raise
            # Large or damaged metadata says nothing of the pixels.
            image = Image.open(io.BytesIO(only_pixels(data)), formats=FORMATS)
    except UnidentifiedImageError:
        raise UnreadableImage(
            f"{name}: expected a {READ} image, found {kind_of(data)}. Restore from a picture file."
        ) from None
    except DAMAGED as error:
        raise UnreadableImage(f"{name}: not a whole image: {error}. Copy the file again.") from None
    check_size(name, image.height, image.width)
    return image


def _header(name: object, image: Image.Image, data: bytes) -> Header:
    # A camera's JPEG with more pictures behind the first, and a bitmap without a file header, are of the same kind.
    kind = {"MPO": "JPEG", "DIB": "BMP"}.get(image.format or "", image.format or "")
    bits = 1 if image.mode == "1" else 8
    if kind == "PNG":
        # The IHDR chunk is always first: 8 bytes signature, 8 head, 4 width, 4 height, then the depth.
        bits = 16 if data[24] == 16 else bits
    elif kind == "AVIF":
        bits = _avif_bits(data)
    orientation = orientation_in(_exif(image, data), image.info.get("xmp"))
    height, width = (image.width, image.height) if orientation >= 5 else (image.height, image.width)
    return Header(
        kind,
        image.mode,
        bits,
        height,
        width,
        int(getattr(image, "n_frames", 1)),
        orientation,
        alpha=image.mode in TRANSPARENT or "transparency" in image.info,
        profile=image.info.get("icc_profile"),
    )


def _exif(image: Image.Image, data: bytes) -> bytes:
    """The EXIF data, also where a PNG has it behind its pixels, or as text."""
    found: Any = image.info.get("exif")
    if found or image.format != "PNG":
        return found or b""
    text = image.info.get("Raw profile type exif") or image.info.get("Raw profile type APP1")
    if text:
        return exif_in_text(text)
    behind = data.find(b"eXIf", max(len(data) - LONGEST_EXIF, 0)) >= 0
    return png_chunk(data, b"eXIf") if behind else b""


def _eight_bit(image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    try:
        image.load()
    except OSError:
        versions = ended_jpeg(data) if image.format in ("JPEG", "MPO") else None
        if versions is None:
            raise
        image, other = (Image.open(io.BytesIO(version), formats=("JPEG",)) for version in versions)
        if not np.array_equal(np.asarray(image), np.asarray(other)):
            raise
    if image.mode == "P" and "transparency" in image.info:
        return three_channels(np.asarray(image.convert("RGBA"), dtype=np.uint8))
    # Pillow copies a picture that is RGB already.
    return _array_of(image if image.mode == "RGB" else image.convert("RGB"))


def _array_of(image: Image.Image) -> NDArray[np.uint8]:
    """An RGB picture as an array, a large one band by band: the bytes that Pillow makes of it are there twice meanwhile."""
    if image.width * image.height <= BAND_PIXELS:
        return np.asarray(image, dtype=np.uint8)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    high = max(BAND_PIXELS // image.width, 1)
    for top in range(0, image.height, high):
        bottom = min(top + high, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _deep(image: Image.Image, data: bytes, bits: int) -> NDArray[np.uint16]:
    import imagecodecs

    if image.format == "AVIF":
        samples = to_full_range(imagecodecs.avif_decode(data, index=0), bits)
    else:
        samples = imagecodecs.png_decode(only_pixels(data))
    if samples.dtype != np.uint16:
        raise ValueError(f"its samples of {bits} bits are decoded to {samples.dtype}")
    return three_channels(samples)


def _avif_bits(data: bytes) -> int:
    """The depth in the first `av1C` box (AV1 in ISOBMFF, 2.3.3)."""
    at = data.find(b"av1C") + 4
    if at < 4 or at + 3 > len(data):
        return 8
    flags = data[at + 2]
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


def kind_of(data: bytes) -> str:
    """What a file is by its first bytes, in words."""
    if not data:
        return "an empty file"
    for at, magic, words in KINDS:
        if data[at : at + len(magic)] == magic:
            return words
    try:
        data[:512].decode()
    except UnicodeDecodeError:
        return f"a file that begins with {data[:8].hex(' ')}"
    return "text"


KINDS = (
    (0, b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    (0, b"GIF8", "a GIF"),
    (4, b"jP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (0, b"#?RADIANCE", "a Radiance HDR image"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\x03\x04", "a zip"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<!DOCTYPE html", "a web page"),
    (0, b"<html", "a web page"),
    (4, b"ftypavif", "an AVIF image that ends early or is damaged"),
    (4, b"ftyp", "an ISO media file of a kind that is not read"),
)
"""Where a magic number stands, the number, and what it is."""
