"""What methods cost: as the release recorded it, else counted once and kept in the cache under what it follows from."""

import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ntire.environment import own_cache
from ntire.files import sha256_of, write_atomically
from ntire.method.catalogue import class_of, facts_in_release
from ntire.method.facts import Counts
from ntire.method.source import closure, counting, fingerprint

if TYPE_CHECKING:
    from ntire.method.catalogue import Listed
    from ntire.method.contract import Method

LIBRARIES = ("torch", "torchvision", "spandrel", "diffusers", "peft", "transformers", "timm")
"""Whose networks methods are made of."""


def counts_of(method: "Listed", at: tuple[int, int], built: "Method | None" = None) -> Counts:
    """What a method costs at a size (height, width). `built` is what `on_meta` gave, where it is there already."""
    known = facts_in_release(method)
    if known is not None and known.at == at:
        return known.counts
    wanted = class_of(method)

    def numbers() -> list[int]:
        counted = count_both(wanted, at, built)
        return [counted.params, counted.macs, counted.claimed_params, counted.claimed_macs]

    return Counts(*kept("counts", wanted, (at,), 4, numbers))


def kept(
    what: str, method: "type[Method]", of: tuple[object, ...], count: int, make: Callable[[], list[int]]
) -> list[int]:
    """`count` whole numbers of a method and of what they are counted for: from the cache, else made and kept there."""
    path = own_cache() / what / f"{_key(method, of)[:32]}.json"
    try:
        found = [_whole(value) for value in json.loads(path.read_text())]
        if len(found) == count:
            return found
    except (OSError, ValueError, TypeError):
        pass  # never counted, or another program's file: it is written anew
    made = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(made))
    except OSError:
        pass  # nowhere to keep them: they are counted again next time
    return made


def count_both(method: "type[Method]", at: tuple[int, int], built: "Method | None" = None) -> Counts:
    """What runs, and what the report counts, which is counted only where it is not the same."""
    from ntire.method.contract import Method
    from ntire.method.count import count, on_meta

    built = built or on_meta(method)
    counted = as_claimed = count(method, at, built=built)
    claimed = method.claimed
    if claimed is not None and (claimed.trained_only or method.as_claimed is not Method.as_claimed):
        as_claimed = count(method, at, as_claimed=True, built=built)
    return Counts(
        params=round((counted.params_m or 0) * 1e6),
        macs=round((counted.macs_g or 0) * 1e9),
        claimed_params=round((as_claimed.params_m or 0) * 1e6),
        claimed_macs=round((as_claimed.macs_g or 0) * 1e9),
    )


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a whole number, found {value!r}")
    return value


def _key(method: "type[Method]", of: tuple[object, ...]) -> str:
    """The hash of all that counts follow from: the method's own source, our way to count, and the libraries."""
    source = sys.modules[method.__module__].__file__
    files = closure(Path(source)) if source else ()
    versions = [f"{name} {_version(name)}" for name in LIBRARIES]
    return sha256_of(repr((fingerprint(files), fingerprint(counting()), versions, method.__qualname__, *of)).encode())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
