"""The names of all methods, from the folders: `teams/<track>/<team>.py` is registered by being there."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ntire import UserError
from ntire.method.facts import Facts, Unpublished
from ntire.method.own_modules import load_file
from ntire.method.release import known
from ntire.text import meant

if TYPE_CHECKING:
    from ntire.method.contract import Method

    Listed = Facts | type[Method]
    """A method of the release, or one that it does not know in this form."""

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
        for name in modules(folder)
        for method in declared_by(importlib.import_module(f"ntire.teams.{folder}.{name}"))
    ]
    return found + [method for method in _installed() if track in (None, method.track)]


def listed(track: str | None = None) -> list[Listed]:
    """The same without importing them: as the release knows them; a method whose source has changed since, or that lies
    elsewhere, as its class.
    """
    found = [
        one for folder in folders() if track in (None, folder) for name in modules(folder) for one in _of(folder, name)
    ]
    return found + [method for method in _installed() if track in (None, method.track)]


def class_of(method: Listed) -> type[Method]:
    """The class itself, which is imported."""
    if not isinstance(method, Facts):
        return method
    declared = declared_by(importlib.import_module(f"ntire.teams.{method.module}"))
    return next(one for one in declared if one.__qualname__ == method.name)


def facts_in_release(method: Listed) -> Facts | None:
    """What the release knows of a method; None for one from elsewhere, or whose source has changed since."""
    if isinstance(method, Facts):
        return method
    top, _, rest = method.__module__.partition("ntire.teams.")
    module = None if top else known(".".join(rest.split(".")[:2]))
    return next((one for one in module.methods if one.name == method.__qualname__), None) if module else None


def serving(track: str) -> tuple[str, ...]:
    """The folders whose methods can run on a kind of input; raises UserError for an unknown one."""
    if track not in folders():
        raise UserError(_unknown("track", track, folders()))
    return SERVED_BY.get(track, (track,))


def find(team: str, track: str, variant: str | None = None) -> type[Method]:
    """The method of a team on a track; see `look_up`."""
    return class_of(look_up(team, track, variant))


def look_up(team: str, track: str, variant: str | None = None) -> Listed:
    """The method of a team on a track, not imported; the first one in the team's file if no variant is asked for.

    Raises UserError with the nearest names for an unknown track, team or variant, and for a team of which nothing is public.
    """
    able = serving(track)
    of_team: list[Listed] = [
        method for folder in able if module_name(team) in modules(folder) for method in _of(folder, module_name(team))
    ] or [method for method in _installed() if method.track in able and method.team == team]
    if not of_team:
        for one in unpublished():
            if one.track in able and module_name(one.team) == module_name(team):
                raise UserError(f"{one.team} on track {one.track} cannot be run: {one.note}")
        names = [method.team for folder in able for method in listed(folder)]
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
        one
        for folder in folders()
        if track in (None, folder)
        for name in modules(folder)
        for one in _unpublished(folder, name)
    ]


def unpublished_by(module: ModuleType) -> tuple[Unpublished, ...]:
    """The same of one module."""
    return tuple(value for value in vars(module).values() if isinstance(value, Unpublished))


def load(folder: Path) -> type[Method]:
    """The one `Method` of a folder with a `method.py`, such as a submission's `method/`, or of a file of another name.

    This runs the code in it: code that is not your own belongs in a sandbox. Raises UserError if there is no such
    file, if it does not import, or if it declares no method or several.
    """
    file = folder if folder.is_file() else folder / "method.py"
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
    return declared_by(load_file(file))


def folder_of(method: Listed) -> Path | None:
    """Where the method's module lies: `weights/` beside it holds the weights that ship with it."""
    if isinstance(method, Facts):
        return method.folder
    file = sys.modules[method.__module__].__file__
    return Path(file).parent if file else None


def modules(track: str) -> list[str]:
    """The modules of a folder of methods, by name."""
    package = importlib.import_module(f"ntire.teams.{track}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def _unpublished(folder: str, name: str) -> tuple[Unpublished, ...]:
    in_release = known(f"{folder}.{name}")
    return (
        in_release.unpublished
        if in_release
        else unpublished_by(importlib.import_module(f"ntire.teams.{folder}.{name}"))
    )


def _of(folder: str, name: str) -> Sequence[Listed]:
    in_release = known(f"{folder}.{name}")
    return in_release.methods if in_release else declared_by(importlib.import_module(f"ntire.teams.{folder}.{name}"))


def declared_by(module: ModuleType) -> list[type[Method]]:
    """Concrete methods of a module, in the order of the file; a team's folder declares them in its `__init__`."""
    from ntire.method.contract import Method

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
        from ntire.method.contract import Method

        method = entry.load()
        if not (isinstance(method, type) and issubclass(method, Method)):
            raise UserError(
                f"entry point {entry.value} of group {ENTRY_POINTS}: expected a Method class, found {method!r}."
            )
        yield method


def _unknown(what: str, name: str, names: list[str]) -> str:
    return f"unknown {what}: {name!r}. {meant(name, names)} `ntire teams` lists all methods."
