"""A submitted folder's modules are its own: two methods may each have a `models.py`, and neither hides a module of ntire.

The folder becomes a package under a private name, and an absolute import of one of its modules becomes a relative one when
its source is compiled: `from models import Net` at the top of the folder is run as `from .models import Net`. The folder is
never on `sys.path`. Names of 0.1 that the folder does not have itself (`teams.parts`, `scoring.metrics`) are ntire's.
"""

import ast
import hashlib
import importlib
import re
import sys
from collections.abc import Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

PREFIX = "ntire_method_"
OLD = ("teams", "scoring")
NAMED = "__ntire_own_name__"
"""What a folder's modules call to turn the argument of `import_module` into a private name."""
LOADED_TOO = "__ntire_loaded__"
"""What `import models.net` binds besides `models`."""
_FOLDERS: dict[str, frozenset[str]] = {}
"""The private package of every folder that was loaded, and the names of the modules in it."""


def load_file(file: Path) -> ModuleType:
    """Import a file afresh, and with it what it imports from its own folder; raises whatever the code raises."""
    folder = file.parent.resolve()
    root = f"{PREFIX}{hashlib.sha256(bytes(folder)).hexdigest()[:16]}"
    _forget(root)
    importlib.invalidate_caches()
    _FOLDERS[root] = _names(folder)
    package = sys.modules[root] = ModuleType(root)
    package.__path__ = [str(folder)]
    name = f"{root}.{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}"
    spec = spec_from_file_location(name, file, loader=_Loader(name, str(file)))
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python module")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        _forget(root)
        raise
    return module


def _forget(root: str) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == root]:
        del sys.modules[name]


def is_private(module: str) -> bool:
    """Whether a module was loaded by `load_file`, or by what that has loaded."""
    return module.startswith(PREFIX)


def _names(folder: Path) -> frozenset[str]:
    """What can be imported from a folder; what is built into Python cannot be replaced, nor can ntire."""
    files = {path.name.partition(".")[0] for path in folder.iterdir() if path.suffix in (".py", ".so")}
    folders = {path.name for path in folder.iterdir() if path.is_dir() and _is_package(path)}
    return frozenset(files | folders) - {"ntire", *sys.builtin_module_names}


def _is_package(folder: Path) -> bool:
    """A folder without `__init__.py` gives way to an installed module of its name, as on `sys.path`."""
    if (folder / "__init__.py").is_file():
        return True
    if not folder.name.isidentifier() or not any(folder.rglob("*.py")):
        return False
    elsewhere = PathFinder.find_spec(folder.name)
    return elsewhere is None or elsewhere.loader is None


def _is_ours(name: str) -> bool:
    """Whether `teams.parts.unet` or `scoring.metrics` is a module of ntire by its name of 0.1."""
    top, _, rest = name.partition(".")
    path = Path(__file__).parents[1] / top / rest.partition(".")[0]
    return top in OLD and bool(rest) and (path.is_dir() or path.with_suffix(".py").is_file())


def _own_name(root: str, name: str) -> str:
    if name.partition(".")[0] in _FOLDERS[root]:
        return f"{root}.{name}"
    return f"ntire.{name}" if _is_ours(name) else name


class _Finder(MetaPathFinder):
    """Modules below a private package are loaded by `_Loader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not is_private(fullname) or path is None:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


sys.meta_path.insert(0, _Finder())


class _Loader(SourceFileLoader):
    """Compiles a module of a folder so that it imports what lies there. Nothing is cached: a new file changes it."""

    def get_code(self, fullname: str) -> CodeType:
        package = fullname if self.is_package(fullname) else fullname.rpartition(".")[0]
        tree = ast.parse(self.get_data(self.path), self.path)
        tree = ast.fix_missing_locations(
            _Relative(_FOLDERS[fullname.partition(".")[0]], package.count(".") + 1).visit(tree)
        )
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        root = module.__name__.partition(".")[0]
        vars(module)[NAMED] = partial(_own_name, root)
        vars(module)["__import__"] = partial(_import, root)
        super().exec_module(module)


def _import(
    root: str,
    name: str,
    globals: Any = None,  # noqa: A002 - as the built-in function calls it
    locals: Any = None,  # noqa: A002
    fromlist: Sequence[str] = (),
    level: int = 0,
) -> ModuleType:
    """`__import__` where a folder's module calls it by that name."""
    own = _own_name(root, name)
    if level or own == name:
        return __import__(name, globals, locals, fromlist, level)
    module = importlib.import_module(own)
    return module if fromlist else sys.modules[own.removesuffix(name) + name.partition(".")[0]]


class _Relative(ast.NodeTransformer):
    """Turns imports of a folder's own modules into relative ones; `level` dots lead to the folder."""

    def __init__(self, names: frozenset[str], level: int) -> None:
        self.names, self.level = names, level

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.level == 0 and node.module is not None:
            if node.module.partition(".")[0] in self.names:
                node.level = self.level
            elif _is_ours(node.module):
                node.module = f"ntire.{node.module}"
        return node

    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        return [ast.copy_location(one, node) for alias in node.names for one in self._one(alias)]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        named = [word for word in node.keywords if word.arg == "name"]
        if called == "import_module" and node.args:
            node.args[0] = _named(node.args[0])
        elif called == "import_module" and named:
            named[0].value = _named(named[0].value)
        return node

    def _one(self, alias: ast.alias) -> list[ast.stmt]:
        top, _, rest = alias.name.partition(".")
        parent, _, last = alias.name.rpartition(".")
        if top not in self.names:
            ours = alias.asname is not None and _is_ours(alias.name)
            return [ast.Import([ast.alias(f"ntire.{alias.name}", alias.asname) if ours else alias])]
        if alias.asname is not None or not rest:
            return [ast.ImportFrom(parent or None, [ast.alias(last, alias.asname)], self.level)]
        bound = ast.ImportFrom(None, [ast.alias(top)], self.level)
        return [bound, ast.ImportFrom(parent, [ast.alias(last, LOADED_TOO)], self.level)]


def _named(expression: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(NAMED, ast.Load()), [expression], [])
