"""Contact sheets: the same pictures from several folders side by side, to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ntire.files import write_atomically
from ntire.picture.folder import walk
from ntire.picture.image import as_image, as_pixels, encode_png, read_pixels

CELL = 320
"""Side of the crop of each picture, in its own pixels: nothing is resized, so noise and detail stay as they are."""
LABEL = 22
GAP = 4


@dataclass(frozen=True)
class Column:
    """A folder of pictures and what is written above it."""

    title: str
    folder: Path


def contact_sheet(path: Path, parts: Sequence[Sequence[Column]]) -> Path:
    """Write a PNG with one block a part: a row for each picture of the part's last column, a cell for each column.

    Shown is the central crop of at most CELL pixels; a picture that is missing leaves its cell empty.
    """
    blocks = [_block(columns) for columns in parts]
    width = max(block.width for block in blocks)
    sheet = Image.new("RGB", (width, sum(block.height for block in blocks)), "white")
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    write_atomically(path, encode_png(np.asarray(sheet)))
    return path


def _block(columns: Sequence[Column]) -> Image.Image:
    named = sorted({one.name for one in walk(columns[-1].folder).pictures})
    block = Image.new("RGB", (len(columns) * (CELL + GAP) + GAP, LABEL + len(named) * (CELL + GAP) + GAP), "white")
    draw = ImageDraw.Draw(block)
    for across, column in enumerate(columns):
        left = GAP + across * (CELL + GAP)
        draw.text((left, 3), column.title, fill="black", font=ImageFont.load_default(15))
        for down, name in enumerate(named):
            file = column.folder / f"{name}.png"
            if file.is_file():
                block.paste(_centre(file), (left, LABEL + down * (CELL + GAP)))
    return block


def _centre(file: Path) -> Image.Image:
    pixels = read_pixels(file)
    picture = Image.fromarray(pixels if pixels.dtype == np.uint8 else as_pixels(as_image(pixels)))
    left, top = (max(size - CELL, 0) // 2 for size in picture.size)
    return picture.crop((left, top, min(left + CELL, picture.width), min(top + CELL, picture.height)))
