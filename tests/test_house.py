"""How the code is kept: what holds over all files of ntire, scoring and teams."""

import ast
from collections import defaultdict
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from ntire.method import Method

ROOT = Path(__file__).parents[1]
FILES = [
    path
    for folder in ("ntire", "scoring", "teams")
    for path in sorted((ROOT / folder).rglob("*.py"))
    # scoring and teams are linked into ntire, which newer Pythons follow and older ones do not.
    if path.resolve() == ROOT.resolve() / path.relative_to(ROOT)
]
LONGEST = 60


@cache
def trees():
    return [(path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))) for path in FILES]


def is_method_of_a_team(path, node):
    """`teams/<track>/<team>.py` names its class after the team: the track tells two methods of one team apart."""
    entry = path.parts[0] == "teams" and path.parts[1] != "parts" and len(path.parts) == 3
    return entry and node.name.lower() == path.stem.replace("_", "")


def test_no_two_public_classes_have_one_name():
    places = defaultdict(list)
    for path, tree in trees():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not is_method_of_a_team(path, node):
                places[node.name].append(str(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_function_is_longer_than_a_page():
    long = [
        f"{path}: {node.name} has {lines} lines"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (lines := counted(node)) > LONGEST
    ]
    assert long == []


def counted(node):
    """All lines of a function; of a command those of its body, as each of its options takes a line to be explained."""
    command = any("app.command" in ast.unparse(decorator) for decorator in node.decorator_list)
    return node.end_lineno - (node.body[0].lineno if command else node.lineno) + 1


@pytest.mark.parametrize("module", ["unittest", "pytest", "hypothesis"])
def test_what_is_for_tests_stays_in_tests(module):
    assert FILES
    importing = {
        str(path)
        for path, tree in trees()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(one.name.partition(".")[0] == module for one in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == module)
    }
    assert importing == set()


def test_no_module_imports_itself_in_a_circle_not_even_inside_its_functions():
    names = {dotted(path): tree for path, tree in trees()}
    graph = {
        name: {found for found in imported(tree, names) if found in names and found not in (name, "ntire")}
        for name, tree in names.items()
    }
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which shows the circle


def dotted(path):
    parts = path.with_suffix("").parts
    return ".".join(parts if parts[0] == "ntire" else ("ntire", *parts)).removesuffix(".__init__")


def imported(node, names):
    """Modules of ours that code imports when it runs; what only the type checker sees is left out, and so is `ntire` itself,
    from which everybody takes UserError.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and child.module:
            for one in child.names:
                whole = f"{child.module}.{one.name}"
                yield whole if whole in names else child.module
        elif isinstance(child, ast.Import):
            yield from (one.name for one in child.names)
        else:
            yield from imported(child, names)


def test_a_method_is_its_facts_and_what_it_computes():
    """Another name on the contract is one that no submitted method can give to a part of its own."""
    offered = {name for name in {*vars(Method), *Method.__annotations__} if not name.startswith("_")}
    facts = {"team", "track", "variant", "cite", "code", "claimed", "weights", "tiling", "halo", "stride", "scale"}
    facts |= {"border", "channels", "channels_last", "bf16_psnr_db", "caveats", "notice", "recipe", "settable", "tiny"}
    computes = {"forward", "as_claimed", "in_tiles", "read", "enhance", "restore", "read_weights", "require", "deploy"}
    assert offered - facts - computes == {"lq_channels", "device", "dtype", "tile"}
