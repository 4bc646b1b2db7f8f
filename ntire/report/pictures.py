"""The pictures of a report: a small one of each, and where the full one is."""

import base64
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ntire import UserError
from ntire.environment import usable_cores
from ntire.files import sha256_of, write_atomically

SHOWN_BY_BROWSERS = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".avif", ".bmp"})
Full = Literal["link", "copy", "none"]
"""What becomes of the full pictures: linked where they lie (copied out of archives), all copied, or left out."""
Reference = Literal["gt", "lq"]
Key = tuple[int, int | Reference, str]
"""A track's number, an entry's number or the kind of reference, and the image's name."""
Small = tuple[NDArray[np.uint8], tuple[int, int]]
"""Pixels, and the height and width of the whole."""


@dataclass(frozen=True)
class Original:
    """A picture that is to be shown."""

    key: Key
    path: Path
    name: str
    """Of its files in the report, without suffix: numbers only."""
    called: str
    """In remarks."""
    small: Callable[[Path, int], Small]
    """Reads it as one may read a picture of its origin. Raises UserError."""
    read: Callable[[Path], bytes]
    """Its bytes, read in the same way. Raises UserError or OSError."""
    whole: Callable[[Path], bytes] | None = None
    """A PNG of 8 bits for a browser; None where that shows the file as it is."""
    sha256: str = ""
    """Of the picture that was scored; empty where that is not known."""
    lasting: bool = True
    """Whether it stays where it is; not what was unpacked for the time being."""


@dataclass(frozen=True)
class ShownPicture:
    """A picture as a page shows it."""

    small: str
    """Its address relative to the pages, or a data URI."""
    full: str | None
    size: tuple[int, int]
    """Height and width of the whole."""


@dataclass(frozen=True)
class Making:
    """How pictures are made."""

    out: Path | None
    """The report's folder; None for one file, which holds its pictures itself."""
    side: int = 160
    """Pixels of a small picture's longer side."""
    quality: int = 35
    """Of WebP."""
    full: Full = "link"


def make_pictures(
    originals: Iterable[Original], making: Making, done: Callable[[], None] = lambda: None
) -> tuple[dict[Key, ShownPicture], list[str]]:
    """Small pictures, written or inlined, by key; and what could not be shown, in words."""
    found: dict[Key, ShownPicture] = {}
    problems: list[str] = []

    def one(original: Original) -> tuple[Original, ShownPicture | str]:
        try:
            return original, _shown(original, making)
        except UserError as error:
            return original, str(error)
        except OSError as error:
            return original, f"{original.called}: {error.strerror or error}"

    listed = list(originals)
    if making.out is not None:
        for folder in {f"{kind}/{one.name.rpartition('/')[0]}" for one in listed for kind in ("small", "full")}:
            (making.out / folder).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(usable_cores() + 2) as pool:
        for original, made in pool.map(one, listed):
            if isinstance(made, str):
                problems.append(made)
            else:
                found[original.key] = made
            done()
    return found, problems


def _shown(original: Original, making: Making) -> ShownPicture:
    if original.sha256 and sha256_of(original.read(original.path)) != original.sha256:
        raise UserError(f"{original.called}: has changed since it was scored, and is left out. Score again.")
    pixels, size = original.small(original.path, making.side)
    encoded = _webp(pixels, making.quality)
    if making.out is None:
        return ShownPicture(f"data:image/webp;base64,{base64.b64encode(encoded).decode()}", None, size)
    small = f"small/{original.name}.webp"
    # Thousands of them: one that is torn by a killed process is made again with the whole report.
    (making.out / small).write_bytes(encoded)
    return ShownPicture(small, _full(original, making, making.out), size)


def _full(original: Original, making: Making, out: Path) -> str | None:
    if making.full == "none":
        return None
    if original.whole is None and making.full == "link" and original.lasting:
        relative = Path(os.path.relpath(original.path.resolve(), out.resolve()))
        return quote(os.fsencode(relative.as_posix()))
    place = f"full/{original.name}{original.path.suffix.lower() if original.whole is None else '.png'}"
    write_atomically(out / place, (original.whole or original.read)(original.path))
    return place


def _webp(pixels: NDArray[np.uint8], quality: int) -> bytes:
    import imagecodecs

    # The second of seven efforts: a third of the time of the usual one, for a quarter more bytes.
    return bytes(imagecodecs.webp_encode(pixels, level=quality, method=1, lossless=False))
