"""What a release knows of its methods without importing one: `teams/methods.json`, which `ntire teams --record` writes."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from ntire.files import write_atomically
from ntire.method.facts import Cost, Counts, Facts, Unpublished
from ntire.method.source import closure, counting, fingerprint, teams_folder
from ntire.method.weights_files import Weights


@dataclass(frozen=True)
class KnownModule:
    """What one module of `teams/` declares."""

    methods: tuple[Facts, ...]
    unpublished: tuple[Unpublished, ...]


def data_file() -> Path:
    """Where the data is."""
    return teams_folder() / "methods.json"


@cache
def known(module: str) -> KnownModule | None:
    """What the release knows of a module, "raw.mialgo"; None if it does not, or if its source or the counting changed since."""
    data = _data().get(module)
    if data is None or not _is_of(data):
        return None
    return KnownModule(
        tuple(_facts(one, module) for one in data["methods"]),
        tuple(Unpublished(**one) for one in data["unpublished"]),
    )


def file_of(module: str) -> Path:
    """The file of "raw.mialgo", whose methods may have a folder of their own."""
    path = teams_folder().joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def write(modules: Mapping[str, KnownModule]) -> None:
    """Write what is declared in all modules and was counted of it, with the hash of the source that it follows from."""
    data = {}
    for name, module in sorted(modules.items()):
        files = [file.relative_to(teams_folder()).as_posix() for file in closure(file_of(name))]
        data[name] = {
            "source": files,
            "sha256": _fingerprint(files),
            "methods": [_plain(one) for one in module.methods],
            "unpublished": [asdict(one) for one in module.unpublished],
        }
    write_atomically(data_file(), json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    _data.cache_clear()
    known.cache_clear()


@cache
def _data() -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(data_file().read_bytes())
    except FileNotFoundError:
        return {}  # a checkout that has not recorded yet: everything is imported and counted
    return data


def _is_of(data: Mapping[str, Any]) -> bool:
    """Whether the source is the one that was recorded; only a change in it could add a file to it."""
    try:
        return _fingerprint(data["source"]) == str(data["sha256"])
    except OSError:
        return False


def _fingerprint(files: Iterable[str]) -> str:
    """Of these files below `teams/`, and of what counts them."""
    return fingerprint([*(teams_folder() / file for file in files), *counting()])


def _plain(facts: Facts) -> dict[str, Any]:
    """As JSON has it, without what is as usual."""
    plain = _without_usual(facts) | {"counts": asdict(facts.counts)}
    del plain["folder"], plain["module"]
    if facts.claimed is not None:
        plain["claimed"] = _without_usual(facts.claimed)
    return plain | {"weights": [_without_usual(one) for one in facts.weights], "settable": dict(facts.settable)}


def _without_usual(value: Any) -> dict[str, Any]:
    return {one.name: own for one in fields(value) if (own := getattr(value, one.name)) != one.default}


def _facts(plain: Mapping[str, Any], module: str) -> Facts:
    own = dict(plain)
    own["claimed"] = _cost(own["claimed"]) if own["claimed"] is not None else None
    own["at"] = tuple(own["at"])
    own["counts"] = Counts(**own["counts"])
    own["weights"] = tuple(Weights(**one | {"urls": tuple(one.get("urls", ()))}) for one in own["weights"])
    own["caveats"] = tuple(own["caveats"])
    own["footprints"] = tuple(tuple(one) for one in own.get("footprints", ()))
    return Facts(**own, module=module, folder=file_of(module).parent)


def _cost(plain: Mapping[str, Any]) -> Cost:
    pairs = {name: tuple(plain[name]) for name in ("at", "runtime_at", "unmatched") if name in plain}
    return Cost(**{**plain, **pairs})
