"""Where what is found in an entry is kept: beside the folder of the entries, never in one of them."""

import os
from pathlib import Path

SUFFIX = "-results"
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
TABLES = "leaderboard."
"""What our own files beside the folders of the entries begin with."""


def results_folder(entries: Path) -> Path:
    """`<folder>-results`, beside a folder of entries."""
    folder = _named(entries)
    return folder.with_name(f"{folder.name}{SUFFIX}")


def results_of_entry(entry: Path) -> Path:
    """The same for a folder or archive that is an entry: beside the folder that it lies in, or beside itself where nothing
    can be written there.
    """
    entry = _named(entry)
    for place in (entry.parent, entry.with_name(entry_name(entry))):
        found = results_folder(place)
        if place.name and os.access(found if found.is_dir() else found.parent, os.W_OK):
            return found
    return results_folder(entry)


def entry_name(entry: Path) -> str:
    """What an entry is called: its folder, or its archive without the suffix."""
    name = _named(entry).name
    suffix = next((one for one in ARCHIVES if name.lower().endswith(one) and not entry.is_dir()), "")
    return name.removesuffix(name[len(name) - len(suffix) :]) if suffix else name


def place_of(results: Path, entry: str) -> Path:
    """The folder of one entry among the results; no name of an entry is one of our own files."""
    return results / (f"{entry}_" if entry.startswith(TABLES) else entry)


def _named(path: Path) -> Path:
    """An absolute path without `.` and `..`; a link stays a link, as an entry belongs to the folder that its name is in."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow it
