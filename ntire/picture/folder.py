"""One walk through a folder of pictures, for all that take one: what is there by its name, and what is not read and why.

Hidden files and what systems leave behind are passed over. A linked folder is followed once: what has been walked through
already, above or beside, is not walked through again. Names are told apart by their NFC form, whatever the disk has.
Results of a run among the pictures are no pictures to begin from: they are read where their own folder is named.
"""

import os
import stat
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ntire.files import kind_of
from ntire.picture.suffixes import PICTURES, why_not

SYSTEM = frozenset(
    (
        "#recycle", "$recycle.bin", "@eadir", "@recycle", "__macosx", "__pycache__", "desktop.ini", "ehthumbs.db",
        "icon\r", "lost+found", "picasa.ini", "system volume information", "thumbs.db",
    )
)  # fmt: skip
"""Names in small letters of files and folders that systems and their programs leave behind."""
MANIFEST, IMAGES = "submission.toml", "images"
"""What tells the folder of an entry, and what is in it: names of `ntire.entry.manifest`, which stands beside this module."""
RESULTS = "results of a run, beside their submission.toml; name that folder to have them read"
SHOWN = 5
"""Names in one line of what is not read."""


@dataclass(frozen=True)
class Found:
    """One picture."""

    path: Path
    name: str
    """Relative to the folder, without the suffix; NFC, parts joined by "/"."""


@dataclass(frozen=True)
class NotRead:
    """A file, link or folder that looks as if it were meant, or that a user may miss."""

    name: str
    """Relative to the folder; what is no UTF-8 is escaped."""
    reason: str


@dataclass
class Walk:
    """What a walk came by, each in the order of the names."""

    pictures: list[Found] = field(default_factory=list)
    not_read: list[NotRead] = field(default_factory=list)


def walk(root: Path, suffixes: Collection[str] = PICTURES, *, links: bool = True, quiet: Collection[str] = ()) -> Walk:
    """Everything below `root`: files with one of the suffixes, whatever their case, and with reasons all the rest.

    Without `links`, as for what strangers hand in, no link is followed, and nothing is passed over as results. Files with a
    suffix of `quiet` are used otherwise, and not mentioned.
    """
    found = Walk()
    for name, path, problem in _entries(root, links):
        suffix = path.suffix.lower()
        problem = problem or why_not(suffix, suffixes)
        if problem is None:
            found.pictures.append(Found(path, unicodedata.normalize("NFC", name.removesuffix(path.suffix))))
        elif suffix not in quiet:
            found.not_read.append(NotRead(name.encode("utf-8", "backslashreplace").decode(), problem))
    found.pictures.sort(key=lambda one: one.path)
    return _without_own_results(root, found) if links else found


def _without_own_results(root: Path, found: Walk) -> Walk:
    """Without the images of an entry that was made in the very folder of its inputs; one that has nothing else is read."""
    inputs = [one for one in found.pictures if not one.name.startswith(f"{IMAGES}/")]
    if not inputs or len(inputs) == len(found.pictures) or not (root / MANIFEST).is_file():
        return found
    return Walk(inputs, [*found.not_read, NotRead(IMAGES, RESULTS)])


def passed_over(name: str) -> bool:
    """Whether a file or folder of that name is nobody's picture: hidden, or left behind by a system."""
    return name.startswith(".") or name.casefold() in SYSTEM


def in_lines(not_read: Iterable[NotRead]) -> list[str]:
    """What is not read, a line a reason."""
    by_reason: dict[str, list[str]] = {}
    for one in not_read:
        by_reason.setdefault(one.reason, []).append(one.name)
    lines = []
    for reason, names in by_reason.items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"not read: {', '.join(names[:SHOWN])}{more} ({reason})")
    return lines


def _entries(root: Path, links: bool) -> Iterator[tuple[str, Path, str | None]]:
    """Name, path and what is wrong with every file below `root`: real folders first, so that a link to one adds nothing."""
    seen: dict[tuple[int, int], str] = {}
    waiting = [("", root)]
    while waiting:
        prefix, folder = waiting.pop(0)
        linked: list[tuple[str, Path]] = []
        yield from _below(prefix, folder, seen, linked, links)
        waiting += linked


def _below(
    prefix: str, folder: Path, seen: dict[tuple[int, int], str], linked: list[tuple[str, Path]], links: bool
) -> Iterator[tuple[str, Path, str | None]]:
    """The entries of a folder and of real folders in it; folders that are links are added to `linked`."""
    try:
        known = folder.stat()
        place = known.st_dev, known.st_ino
        if place in seen:
            yield prefix.rstrip("/"), folder, f"a link to a folder that is read already as {seen[place] or '.'}"
            return
        seen[place] = prefix.rstrip("/")
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield prefix.rstrip("/"), folder, f"cannot be opened: {error.strerror or error}"
        return
    if links and prefix and any(entry.name == MANIFEST for entry in entries):
        yield prefix.rstrip("/"), folder, RESULTS
        return
    for entry in entries:
        if passed_over(entry.name):
            continue
        name, path = f"{prefix}{entry.name}", folder / entry.name
        if entry.is_symlink() and not links:
            yield name, path, "a symbolic link"
        elif entry.is_dir():
            if path.suffix.lower() in PICTURES:
                yield name, path, "a folder, whatever its name; what is in it is read"
            if entry.is_symlink():
                linked.append((f"{name}/", path))
            else:
                yield from _below(f"{name}/", path, seen, linked, links)
        else:
            yield name, path, _wrong_kind(path)


def _wrong_kind(path: Path) -> str | None:
    """Why a path that is no folder is no file either; None for a regular file, or a link to one."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"a link to {path.readlink()}, which is not there" if path.is_symlink() else f"{error.strerror or error}"
    return None if stat.S_ISREG(mode) else kind_of(mode)
