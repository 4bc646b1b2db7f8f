"""Python of strangers by its syntax tree, which takes a thousand times the memory of its text: made where that is bounded."""

import ast
from collections.abc import Iterator, Mapping, Sequence

MOST_CODE = 1 << 18
"""Bytes of one source file."""
MOST_SOURCES = 64
"""Files of an entry that are followed from one import to the next."""
Sources = Mapping[str, str | None]
"""Text by name, a character a byte; None for a file that is too long."""


def methods_in(sources: Sources, source: str) -> tuple[list[str], list[tuple[str, str | None]], str]:
    """Names of the subclasses of Method that a source offers; file and sha256 of the weights of the only one; what is wrong."""
    try:
        known = _methods_in(sources, source, {})
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return [], [], f"{type(error).__name__}: {error}"
    classes = [node for node in known.values() if node is not None and not _abstract(node)]
    return [node.name for node in classes], list(_weights_in(classes[0])) if len(classes) == 1 else [], ""


Known = dict[str, ast.ClassDef | None]


def _methods_in(sources: Sources, source: str, seen: dict[str, Known]) -> Known:
    """Names at the top of a module that stand for `Method` or a subclass; its definition, where that is in the module.

    `seen` has what is known of modules that were looked at: each is read once, however many import it.
    """
    if len(seen) >= MOST_SOURCES:
        raise ValueError(f"imports of more than {MOST_SOURCES} files")
    known: Known = {}
    seen[source] = known
    text = sources[source]
    if text is None:
        raise ValueError(f"{source}: expected at most {MOST_CODE:,} bytes")
    tree = ast.parse(text.encode("latin-1"))
    modules: set[str] = set()
    for node in _statements(tree.body):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "ntire.method":
                    modules.add(alias.asname or alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").replace(".", "/")
            inner = f"{source.rpartition('/')[0]}/{base}.py".lstrip("/")
            if node.module == "ntire":
                modules |= {alias.asname or alias.name for alias in node.names if alias.name == "method"}
            elif node.module == "ntire.method":
                names = [alias.asname or alias.name for alias in node.names if alias.name in ("Method", "*")]
                known |= {name.replace("*", "Method"): None for name in names}
            elif inner in sources:
                there = seen[inner] if inner in seen else _methods_in(sources, inner, seen)
                known |= {alias.asname or alias.name: None for alias in node.names if alias.name in there}
        elif isinstance(node, ast.ClassDef) and any(_stands_for(base, known, modules) for base in node.bases):
            known[node.name] = node
    return known


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements at the top of a module, those under `if`, `try` and `with` among them."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _statements(handler.body)


def _stands_for(base: ast.expr, known: dict[str, ast.ClassDef | None], modules: set[str]) -> bool:
    if isinstance(base, ast.Name):
        return base.id in known
    return isinstance(base, ast.Attribute) and base.attr == "Method" and _dotted(base.value) in modules


def _dotted(node: ast.expr) -> str:
    """`ntire.method` of the expression that says so, empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _abstract(node: ast.ClassDef) -> bool:
    return any(
        word.arg == "abstract" and isinstance(word.value, ast.Constant) and word.value.value is True
        for word in node.keywords
    )


def _weights_in(node: ast.ClassDef) -> Iterator[tuple[str, str | None]]:
    """File and sha256 of every `Weights(...)` in a class that has no address to fetch it from."""
    for call in ast.walk(node):
        if not isinstance(call, ast.Call) or _dotted(call.func).rpartition(".")[2] != "Weights":
            continue
        given = {word.arg: word.value for word in call.keywords}
        given |= dict(zip(("file", "sha256"), call.args, strict=False))
        file, sha256 = (
            value.value if isinstance(value := given.get(name), ast.Constant) else None for name in ("file", "sha256")
        )
        if isinstance(file, str) and "urls" not in given:
            yield file, sha256 if isinstance(sha256, str) else None
