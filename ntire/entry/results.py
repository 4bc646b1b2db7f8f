"""Where what is found in an entry is kept: beside the folder of the entries, never in one of them."""

import os
from pathlib import Path

SUFFIX = "-results"
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
TABLES, OWN = "leaderboard.", ("leaderboard.", "sources.")
"""What our own tables, and all our own files, beside the folders of the entries begin with."""


def results_folder(entries: Path) -> Path:
    """`<folder>-results`, beside a folder of entries."""
    folder = _named(entries)
    return folder.with_name(f"{folder.name}{SUFFIX}")


def results_of_entry(entry: Path) -> Path:
    """The same for a folder or archive that is an entry: beside the folder that it lies in with others.

    Beside itself where that would be outside of the working directory that a user looks at, or cannot be written to.
    """
    beside, own = places_of_entry(entry)
    parent, here = _named(entry).parent, Path.cwd()
    writable = os.access(beside if beside.is_dir() else beside.parent, os.W_OK)
    return beside if parent.name and writable and not here.is_relative_to(parent) else own


def places_of_entry(entry: Path) -> tuple[Path, Path]:
    """Where results of an entry may have gone: beside the folder that it lies in, and beside itself."""
    entry = _named(entry)
    own = results_folder(entry.with_name(entry_name(entry)))
    return (results_folder(entry.parent) if entry.parent.name else own), own


def is_results(folder: Path) -> bool:
    """Whether a folder is such a one, and no entry."""
    tables = all((folder / f"{TABLES}{suffix}").is_file() for suffix in ("csv", "md", "json"))
    return tables or (folder.name.endswith(SUFFIX) and any(folder.glob("*/verification.json")))


def entry_name(entry: Path) -> str:
    """What an entry is called: its folder, or its archive without the suffix."""
    name = _named(entry).name
    suffix = next((one for one in ARCHIVES if name.lower().endswith(one) and not entry.is_dir()), "")
    return name.removesuffix(name[len(name) - len(suffix) :]) if suffix else name


def place_of(results: Path, entry: str) -> Path:
    """The folder of one entry among the results; no name of an entry is one of our own files."""
    return results / (f"{entry}_" if entry.startswith(OWN) else entry)


def place_of_verdict(entry: Path, out: Path | None) -> Path:
    """The folder that the `verification.json` of an entry goes into: below `out`, or among its results."""
    return place_of(out if out is not None else results_of_entry(entry), entry_name(entry))


def _named(path: Path) -> Path:
    """An absolute path without `.` and `..`; a link stays a link, as an entry belongs to the folder that its name is in."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow it
