"""The names of all methods, from the folders: `teams/<track>/<team>.py` is registered by being there."""

import difflib
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from ntire import UserError
from ntire.method import Method, Unpublished
from ntire.method.own_modules import load_file

ENTRY_POINTS = "ntire.methods"
"""Installed packages may offer `Method` classes in this entry-point group."""
SERVED_BY = {"general": ("general", "srgb")}
"""Folders whose methods can run on a kind of input, where it is not only the folder of that name."""


def module_name(team: str) -> str:
    """The module of a team: "TongJi-IPOE" -> "tongji_ipoe"."""
    return re.sub(r"[^0-9a-z]+", "_", team.lower()).strip("_")


def is_folder(team: str | Path) -> bool:
    """Whether `--team` means a folder with a method.py: only with a separator in it. A bare name is the catalogue's, whatever
    lies in the working directory.
    """
    return isinstance(team, Path) or "/" in team or team in (".", "..")


def folders() -> list[str]:
    """The tracks that have a folder of methods."""
    root = Path(next(iter(importlib.import_module("ntire.teams").__path__)))
    return sorted(path.parent.name for path in root.glob("*/__init__.py") if path.parent.name != "parts")


def methods(track: str | None = None) -> list[type[Method]]:
    """Every method, of one track or of all, in the order of track and team; imports only what it lists."""
    found = [
        method
        for folder in folders()
        if track in (None, folder)
        for name in _modules(folder)
        for method in _declared_in(importlib.import_module(f"ntire.teams.{folder}.{name}"))
    ]
    return found + [method for method in _installed() if track in (None, method.track)]


def serving(track: str) -> tuple[str, ...]:
    """The folders whose methods can run on a kind of input; raises UserError for an unknown one."""
    if track not in folders():
        raise UserError(_unknown("track", track, folders()))
    return SERVED_BY.get(track, (track,))


def find(team: str, track: str, variant: str | None = None) -> type[Method]:
    """The method of a team on a track; the first one in the team's file if no variant is asked for.

    Raises UserError with the nearest names for an unknown track, team or variant, and for a team of which nothing is public.
    """
    able = serving(track)
    of_team = [
        method
        for folder in able
        if module_name(team) in _modules(folder)
        for method in _declared_in(importlib.import_module(f"ntire.teams.{folder}.{module_name(team)}"))
    ] or [method for method in _installed() if method.track in able and method.team == team]
    if not of_team:
        for one in unpublished():
            if one.track in able and module_name(one.team) == module_name(team):
                raise UserError(f"{one.team} on track {one.track} cannot be run: {one.note}")
        names = [method.team for folder in able for method in methods(folder)]
        here = (Path(team) / "method.py").is_file()
        hint = f" There is a folder {team} with a method.py here: --team ./{team} runs its code." if here else ""
        raise UserError(_unknown(f"team on track {track}", team, names) + hint)
    if variant is None:
        return of_team[0]
    for method in of_team:
        if method.variant == variant:
            return method
    raise UserError(_unknown(f"variant of {of_team[0].team}", variant, [method.variant for method in of_team]))


def unpublished(track: str | None = None) -> list[Unpublished]:
    """The teams of one track or of all that are known, and of whose methods nothing is public."""
    return [
        value
        for folder in folders()
        if track in (None, folder)
        for name in _modules(folder)
        for value in vars(importlib.import_module(f"ntire.teams.{folder}.{name}")).values()
        if isinstance(value, Unpublished)
    ]


def load(folder: Path) -> type[Method]:
    """The one `Method` of a folder with a `method.py`, such as a submission's `method/`.

    This runs the code in it: code that is not your own belongs in a sandbox. Raises UserError if there is no such
    file, if it does not import, or if it declares no method or several.
    """
    file = folder / "method.py"
    if not file.is_file():
        raise UserError(f"{folder}: expected a folder with a method.py, found none.")
    try:
        declared = declared_in(file)
    except Exception as error:
        raise UserError(f"{file}: does not import: {type(error).__name__}: {error}") from error
    if len(declared) != 1:
        names = ", ".join(method.__name__ for method in declared) or "none"
        raise UserError(f"{file}: expected one Method class, found {names}.")
    return declared[0]


def declared_in(file: Path) -> list[type[Method]]:
    """Import a file, which runs it, and list the methods that it declares; raises whatever the code raises."""
    return _declared_in(load_file(file))


def folder_of(method: type[Method]) -> Path | None:
    """Where the method's module lies: `weights/` beside it holds the weights that ship with it."""
    file = sys.modules[method.__module__].__file__
    return Path(file).parent if file else None


def _modules(track: str) -> list[str]:
    package = importlib.import_module(f"ntire.teams.{track}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def _declared_in(module: ModuleType) -> list[type[Method]]:
    """Concrete methods of a module, in the order of the file; a team's folder declares them in its `__init__`."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Method)
        and f"{value.__module__}.".startswith(f"{module.__name__}.")
        and hasattr(value, "team")
    ]


def _installed() -> Iterator[type[Method]]:
    for entry in entry_points(group=ENTRY_POINTS):
        method = entry.load()
        if not (isinstance(method, type) and issubclass(method, Method)):
            raise UserError(
                f"entry point {entry.value} of group {ENTRY_POINTS}: expected a Method class, found {method!r}."
            )
        yield method


def _unknown(what: str, name: str, names: list[str]) -> str:
    known = list(dict.fromkeys(filter(None, names)))
    lowered = {one.lower(): one for one in known}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(known) or 'none'}."
    return f"unknown {what}: {name!r}. {hint} `ntire teams` lists all methods."
