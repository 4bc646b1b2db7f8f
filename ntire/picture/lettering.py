"""Text drawn into pictures in any script: by a font of this machine that has its letters, else as codes, which is said."""

import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ntire.text import printable

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font = FreeTypeFont | ImageFont

PLACES = (
    "~/.fonts", "~/.local/share/fonts", "/usr/share/fonts", "/usr/local/share/fonts", "/System/Library/Fonts", "/Library/Fonts",
    "~/Library/Fonts", "C:/Windows/Fonts",
)  # fmt: skip
PLAIN = (
    "notosans-regular",
    "notosans[",
    "dejavusans.",
    "arial.",
    "helvetica.",
    "segoeui.",
    "notosanscjk-regular",
    "liberationsans-regular",
)
"""What plain fonts of many letters are called, in small letters; they are tried first."""
NOTHING = "\U0010fffe"
"""A letter that no font has: what is drawn for it is drawn for every letter that is missing."""


class Lettering:
    """Fonts of one size for texts that are drawn; remembers which letters none of them has."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.lacking: set[str] = set()

    def of(self, text: str) -> tuple["Font", str]:
        """A font, and the text as it can be drawn with it: letters that no font has are written as their codes."""
        shown = printable(text).replace("\n", " ")
        fonts = [_default(self.size), *(_font(path, self.size) for path in _files())]
        # One font for the whole text; where there is none, the one with the most of its letters.
        best, missing = None, set(shown)
        for font in fonts:
            if font is None:
                continue
            own = {letter for letter in set(shown) if not _has(font, letter)}
            if best is None or len(own) < len(missing):
                best, missing = font, own
            if not missing:
                break
        assert best is not None
        self.lacking |= missing
        return best, "".join(f"U+{ord(letter):04X} " if letter in missing else letter for letter in shown).strip()

    def remark(self) -> str | None:
        """What to say where letters were missing."""
        if not self.lacking:
            return None
        letters = "".join(sorted(self.lacking))
        return f"no font of this machine has {letters}: they are written as codes. Install one, such as fonts-noto-cjk."


@cache
def _default(size: int) -> "Font":
    from PIL import ImageFont

    return ImageFont.load_default(size)


@cache
def _files() -> tuple[Path, ...]:
    """Font files of this machine, plain ones first."""

    def order(path: Path) -> tuple[int, int, str]:
        name = path.name.lower()
        plain = next((at for at, one in enumerate(PLAIN) if name.startswith(one)), len(PLAIN))
        styled = any(
            word in name for word in ("bold", "italic", "oblique", "serif", "mono", "light", "thin", "condensed")
        )
        return plain, int(styled), str(path)

    return tuple(sorted(_found(), key=order))


def _found() -> Iterator[Path]:
    plots = find_spec("matplotlib")
    # It brings DejaVu Sans, which has the letters of most alphabets.
    own = [str(Path(plots.origin).parent / "mpl-data/fonts/ttf")] if plots and plots.origin else []
    for place in (*PLACES, *own):
        for where, _, names in os.walk(Path(place).expanduser()):
            yield from (Path(where, name) for name in names if name.lower().endswith((".ttf", ".otf", ".ttc")))


@cache
def _font(path: Path, size: int) -> "FreeTypeFont | None":
    from PIL import ImageFont

    try:
        return ImageFont.truetype(str(path), size)
    except OSError:
        return None  # a file of that name that is no font


@cache
def _has(font: "Font", letter: str) -> bool:
    """Whether a font draws a letter, and not what it draws for those that it lacks."""
    if letter.isspace():
        return True
    return _drawn(font, letter) != _drawn(font, NOTHING)


@cache
def _drawn(font: "Font", letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
