"""The source that a method's figures follow from: its file and what it imports of methods, found without running it."""

import ast
import importlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from ntire.files import sha256_of

COUNTING = ("count.py", "counters.py", "face_alignment.py", "footprint.py", "pyiqa_networks.py")


@cache
def teams_folder() -> Path:
    """Where the methods of the release lie."""
    return Path(next(iter(importlib.import_module("ntire.teams").__path__))).resolve()


def counting() -> tuple[Path, ...]:
    """What of ntire itself counts and is counted beside a method's source: after a change there, all figures are made anew."""
    return tuple(Path(__file__).with_name(name) for name in COUNTING)


def closure(file: Path) -> tuple[Path, ...]:
    """`file` and every module of methods that it imports, at any remove: of ntire's own, of its package, or beside it."""
    file = file.resolve()
    root = _root_of(file)
    found: set[Path] = set()
    left = [file]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += _imported_by(one, root, _own_names(file, root))
    return tuple(sorted(found))


def fingerprint(files: Iterable[Path]) -> str:
    """One sha256 for the content of files in this order; raises OSError where one is not there."""
    return sha256_of(" ".join(map(sha256_of, files)).encode())


def _root_of(file: Path) -> Path:
    """The folder in which absolute imports of a method's own modules begin."""
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _own_names(file: Path, root: Path) -> set[str] | None:
    """With which absolute imports of its own begin; None for all, in a folder that holds nothing but the method."""
    if file.parent == root and not {"site-packages", "dist-packages"} & set(root.parts):
        return None
    return {file.relative_to(root).parts[0]}


def _imported_by(file: Path, root: Path, own: set[str] | None) -> Iterator[Path]:
    for level, name in _names_in(file):
        if level:
            yield from _below(file.parents[level - 1], name)
        elif name.startswith(("ntire.teams.", "teams.")):
            yield from _below(teams_folder(), name.partition("teams.")[2])
        elif not name.startswith("ntire.") and (own is None or name.partition(".")[0] in own):
            yield from _below(root, name)


def _names_in(file: Path) -> Iterator[tuple[int, str]]:
    """Dots and dotted name of all that a file imports; what is imported from a package may be a module of it."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:
        return  # never imported, so nothing follows from it
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, ".".join(filter(None, (node.module, alias.name)))) for alias in node.names)


def _below(folder: Path, name: str) -> Iterator[Path]:
    """The file of the longest part of a dotted name that is a module below `folder`, and of the packages on the way."""
    for part in name.split("."):
        module, folder = folder / f"{part}.py", folder / part
        if module.is_file():
            yield module.resolve()
            return
        if (folder / "__init__.py").is_file():
            yield (folder / "__init__.py").resolve()
