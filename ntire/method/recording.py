"""Making what a release knows of its methods: each is imported, built on the meta device and counted."""

import importlib
from collections.abc import Callable
from pathlib import Path

from ntire.method import Method, release
from ntire.method.catalogue import declared_by, folders, modules, unpublished_by
from ntire.method.facts import Facts
from ntire.method.footprint import to_record
from ntire.method.kept_counts import count_both
from ntire.method.method_table import usual_size


def record(say: Callable[[str], None]) -> Path:
    """Count every method whose source has changed since it was recorded, and write the release's data; `say` gets a line for
    each. Without the file, all are counted: after a change in how methods are counted, or in the libraries.
    """
    found = {}
    for folder in folders():
        for name in modules(folder):
            unchanged = release.known(f"{folder}.{name}")
            if unchanged is not None:
                found[f"{folder}.{name}"] = unchanged
                continue
            module = importlib.import_module(f"ntire.teams.{folder}.{name}")
            methods = []
            for method in declared_by(module):
                methods.append(facts_from(method, f"{folder}.{name}"))
                say(f"{method.team} {method.track} {method.variant}: {methods[-1].counts}")
            found[f"{folder}.{name}"] = release.KnownModule(tuple(methods), unpublished_by(module))
    release.write(found)
    return release.data_file()


def facts_from(method: type[Method], module: str) -> Facts:
    """What a class declares and is counted to cost, without a look at what is recorded or kept."""
    at = usual_size(method)
    return Facts(
        name=method.__qualname__,
        module=module,
        team=method.team,
        track=method.track,
        variant=method.variant,
        cite=method.cite,
        claimed=method.claimed,
        at=at,
        counts=count_both(method, at),
        weights=method.weights,
        settable=dict(method.settable),
        caveats=method.caveats,
        scale=method.scale,
        folder=release.file_of(module).parent,
        footprints=to_record(method),
    )
