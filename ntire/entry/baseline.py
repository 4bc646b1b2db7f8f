"""Entries whose results may equal their inputs: those that ntire's own Copy made on this machine, or that a track's rules name.

An entry's own word for it, such as its team, is a stranger's. Known is what it holds: manifest, images and code, to the byte.
"""

import contextlib
from pathlib import Path

from ntire.entry.manifest import content_of
from ntire.environment import own_cache

TEAM = "Copy"
"""The method of the catalogue that hands its inputs on."""


def remember_baseline(root: Path) -> str:
    """Note the content of an entry that ntire's own Copy has made, and return it; without a cache nothing is noted."""
    content = content_of(root)
    with contextlib.suppress(OSError):
        _notes().mkdir(parents=True, exist_ok=True)
        (_notes() / content).touch()
    return content


def is_baseline(root: Path, named: str = "") -> bool:
    """Whether an entry is one that Copy made here, or the one whose content the rules have `named`."""
    try:
        content = content_of(root)
        return content == named or (_notes() / content).is_file()
    except OSError:
        return False


def _notes() -> Path:
    return own_cache() / "baselines"
