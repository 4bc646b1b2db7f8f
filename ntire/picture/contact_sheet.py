"""Contact sheets: the same pictures from several places side by side, to look at before and after.

Each picture is shown whole, scaled, and below that as a crop of its own pixels, where there is most to see; the frame in the
whole one says where. Nothing is scaled in a crop but an input that is smaller than its result, whose pixels are repeated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ntire import UserError
from ntire.files import write_atomically
from ntire.picture.image import encode_png
from ntire.picture.lettering import Lettering
from ntire.picture.preview import Preview, preview

CELL = 280
"""Side of a crop, and the longer side of a whole picture."""
GAP = 6
LINE = 19
WIDEST = 2600
"""Pixels that a sheet may be wide where it holds several pictures a row."""
PAPER, INK, SOFT, FRAME = (255, 255, 255), (25, 25, 25), (105, 105, 105), (215, 60, 20)

Score = Callable[[Preview, Preview], str]
"""A picture and its truth to a few words."""


@dataclass(frozen=True)
class Column:
    """Pictures of one origin."""

    title: str
    pictures: Mapping[str, Path]
    """By name."""
    read: Callable[[Path], Preview] = preview
    """Raises UserError."""


@dataclass(frozen=True)
class SheetPart:
    """Columns that show the same pictures."""

    columns: Sequence[Column]
    names: Sequence[str]
    truth: Column | None = None
    """The column that the others are scored against."""
    title: str = ""


def contact_sheet(
    path: Path,
    parts: Sequence[SheetPart],
    score: Score | None = None,
    told: Callable[[str, str, str], None] = lambda picture, column, words: None,
) -> list[str]:
    """Write a PNG with a block for each picture: its name, then a cell for each column; several blocks a row where they fit.

    A picture that is missing, unreadable or of another size says so in its cell. `told` gets the words of every cell. Returns
    what the reader should know.
    """
    lettering = Lettering(14)
    rows: list[Image.Image] = []
    for part in parts:
        across = max(1, WIDEST // _width(part))
        if part.title:
            rows.append(_line(part.title, _width(part), Lettering(18)))
        for start in range(0, len(part.names), across):
            names = part.names[start : start + across]
            rows.append(_beside([_block(part, name, lettering, score, told) for name in names]))
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    write_atomically(path, encode_png(np.asarray(sheet)))
    remark = lettering.remark()
    return [remark] if remark else []


def _width(part: SheetPart) -> int:
    return len(part.columns) * (CELL + GAP) + 3 * GAP


def _beside(blocks: Sequence[Image.Image]) -> Image.Image:
    row = Image.new("RGB", (sum(block.width for block in blocks), max(block.height for block in blocks)), PAPER)
    left = 0
    for block in blocks:
        row.paste(block, (left, 0))
        left += block.width
    return row


def _block(
    part: SheetPart, name: str, lettering: Lettering, score: Score | None, told: Callable[[str, str, str], None]
) -> Image.Image:
    """One picture in all columns."""
    seen = [_read(column, name) for column in part.columns]
    pictures = [one for one in seen if not isinstance(one, str)]
    truth = next((one for one, column in zip(seen, part.columns, strict=True) if column is part.truth), None)
    size = max(
        (one.shape[:2] for one in ([truth] if isinstance(truth, np.ndarray) else pictures)), default=(CELL, CELL)
    )
    shrink = min(1.0, CELL / max(size))
    whole = max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))
    window = None if shrink == 1 else _window(truth if isinstance(truth, np.ndarray) else pictures[-1], size)
    tall = LINE + GAP // 2 + 2 * LINE + whole[0] + (GAP + window[2] if window else 0) + 2 * GAP
    block = Image.new("RGB", (_width(part), tall), PAPER)
    draw = ImageDraw.Draw(block)
    _write(draw, (GAP, 2), name, SOFT, lettering, block.width - 2 * GAP)
    for number, (column, one) in enumerate(zip(part.columns, seen, strict=True)):
        left, top = GAP + number * (CELL + GAP), LINE + GAP // 2
        words = one if isinstance(one, str) else _words(one, truth, size, column is part.truth, score)
        told(name, column.title, words)
        _write(draw, (left, top), column.title, INK, lettering, CELL)
        _write(draw, (left, top + LINE), words, SOFT, lettering, CELL)
        top += 2 * LINE
        if isinstance(one, str):
            draw.rectangle((left, top, left + whole[1] - 1, top + whole[0] - 1), outline=SOFT)
            continue
        block.paste(Image.fromarray(one).resize((whole[1], whole[0]), Image.Resampling.LANCZOS), (left, top))
        if window is not None:
            y, x, height, width = window
            frame = [
                left + x * shrink,
                top + y * shrink,
                left + (x + width) * shrink - 1,
                top + (y + height) * shrink - 1,
            ]
            draw.rectangle(frame, outline=FRAME, width=2)
            block.paste(_crop(one, window, size), (left, top + whole[0] + GAP))
    return block


def _read(column: Column, name: str) -> Preview | str:
    path = column.pictures.get(name)
    if path is None:
        return "missing"
    try:
        return column.read(path)
    except UserError:
        return "cannot be read"


def _words(
    one: Preview, truth: Preview | str | None, size: tuple[int, ...], is_truth: bool, score: Score | None
) -> str:
    if one.shape[:2] != tuple(size):
        return f"{one.shape[0]} x {one.shape[1]}, shown at {size[0]} x {size[1]}"
    return "" if is_truth or score is None or not isinstance(truth, np.ndarray) else score(one, truth)


def _window(picture: Preview, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the crop with most detail."""
    import cv2

    height, width = min(CELL, size[0]), min(CELL, size[1])
    gray = cv2.cvtColor(cv2.resize(picture, (size[1], size[0])), cv2.COLOR_RGB2GRAY)
    sums = cv2.integral(np.abs(cv2.Laplacian(gray, cv2.CV_32F)))
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left), height, width


def _crop(picture: Preview, window: tuple[int, int, int, int], size: tuple[int, ...]) -> Image.Image:
    """The part of a picture that a window of a picture of `size` shows."""
    y, x, height, width = window
    down, across = picture.shape[0] / size[0], picture.shape[1] / size[1]
    box = (x * across, y * down, (x + width) * across, (y + height) * down)
    return Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST, box=box)


def _line(text: str, width: int, lettering: Lettering) -> Image.Image:
    made = Image.new("RGB", (width, 2 * LINE), PAPER)
    _write(ImageDraw.Draw(made), (GAP, GAP), text, INK, lettering, width - 2 * GAP)
    return made


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    ink: tuple[int, int, int],
    lettering: Lettering,
    room: int,
) -> None:
    """A line of text, cut at its end where it is longer than there is room."""
    font, shown = lettering.of(text)
    while shown and draw.textlength(shown, font=font) > room:
        shown = shown[:-2].rstrip() + "…" if len(shown) > 2 else ""
    draw.text(at, shown, fill=ink, font=font)
