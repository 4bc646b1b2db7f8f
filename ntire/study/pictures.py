"""The pictures of a study: cut from the entries, without names, metadata or lengths that tell them apart."""

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ntire import UserError
from ntire.files import write_together
from ntire.picture.image import Pixels, as_image, as_pixels, encode_png, read_pixels
from ntire.picture.suffixes import RAW, VENDOR_RAW
from ntire.study.design import PICTURES

Shown = NDArray[np.uint8]
FILLER = b"npAd"
"""A chunk that viewers pass over (ancillary, private): it makes the files of a region equally long."""
NOTHING = 12
"""Bytes of a chunk of nothing: length, name and checksum."""


def read_shown(path: Path, raw: bool = False) -> Shown:
    """A picture as a screen shows it: 8 bits, RGB; a raw frame with white balance, demosaicked, in its camera's colours."""
    suffix = path.suffix.lower()
    if raw and (suffix in VENDOR_RAW or suffix in RAW):
        return _developed(path)
    return in_8_bits(read_pixels(path))


def in_8_bits(pixels: Pixels) -> Shown:
    """Pixels of any depth, rounded once."""
    return (pixels if pixels.dtype == np.uint8 else as_pixels(as_image(pixels))).astype(np.uint8, copy=False)


def _developed(path: Path) -> Shown:
    from ntire.picture.raw import balanced_rggb, correct_colours, demosaic, read_raw, srgb_encode

    frame = read_raw(path)
    mosaic, (top, left) = balanced_rggb(frame)
    picture = correct_colours(srgb_encode(demosaic(mosaic)), frame.ccm)[:, top:, left:]
    return as_pixels(picture).astype(np.uint8, copy=False)


def fitted(picture: Shown, height: int, width: int, name: str) -> Shown:
    """An input in the size of its restorations: one of super-resolution is enlarged by a whole factor.

    Raises UserError where the sizes have no such relation.
    """
    if picture.shape[:2] == (height, width):
        return picture
    factor = height // picture.shape[0]
    if factor < 2 or (picture.shape[0] * factor, picture.shape[1] * factor) != (height, width):
        raise UserError(
            f"{name}: expected an input of {height} x {width} as its restorations, or a whole fraction of it, "
            f"found {picture.shape[0]} x {picture.shape[1]}."
        )
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def degraded(picture: Shown) -> Shown:
    """An anchor, which anybody sees is worse: the picture blurred (a Gaussian of 2.5 pixels), as JPEG of quality 15."""
    soft = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(2.5))
    kept = io.BytesIO()
    soft.save(kept, "JPEG", quality=15)
    return np.asarray(Image.open(kept).convert("RGB"))


def write_region(study: Path, files: Mapping[str, Shown]) -> None:
    """Write the pictures of one region, encoded anew, all files of one length."""
    encoded = {name: encode_png(np.ascontiguousarray(pixels)) for name, pixels in files.items()}
    length = max(map(len, encoded.values())) + NOTHING
    write_together({study / PICTURES / name: filled(data, length) for name, data in encoded.items()})


def filled(png: bytes, length: int) -> bytes:
    """The PNG with a chunk of zeros before its end, so that it has that many bytes; at least 12 more than it has."""
    end = png.rindex(b"IEND") - 4
    zeros = bytes(length - len(png) - NOTHING)
    chunk = struct.pack(">I", len(zeros)) + FILLER + zeros + struct.pack(">I", zlib.crc32(FILLER + zeros))
    return png[:end] + chunk + png[end:]
