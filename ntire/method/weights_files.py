"""Weights files: which a method needs, where they come from, whether they are here and whole, and strict filling.

A file is looked for in `weights/` beside the module that declares it (so do projects ship weights, and so do
submissions), then in the cache: `$NTIRE_WEIGHTS`, by default `~/.cache/ntire/weights`.
"""

import importlib
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_args

from ntire import UserError
from ntire.environment import own_cache, user_cache
from ntire.files import sha256_of

State = Literal["shipped", "here", "missing"]
Provenance = Literal["official", "retrained", "own"]
Home = Literal["ntire", "pyiqa", "torchvision", "clip", "huggingface"]
"""Whose cache a file is kept in: a library looks for its own files in its own place."""
Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here and the bytes in all, where the server says."""


@dataclass(frozen=True)
class Weights:
    """One released file and the part of a method that it fills."""

    file: str
    """Its name in the weights folder."""
    sha256: str | None = None
    """All 64 digits, or the first ones (at least 8) where only those are published, or None."""
    license: str = ""
    provenance: Provenance = "own"
    """`official`: the authors' own file. `retrained`: made with `ntire train`, never called the team's own. `own`: of a method
    that is nobody else's and was not published."""
    into: str = ""
    """Submodule path, such as "unet.encoder"; empty for the whole method."""
    prefix: str = ""
    """Keep only the tensors whose names begin with it, and cut it off: training checkpoints hold more than a network."""
    urls: tuple[str, ...] = ()
    """Address and mirrors, tried in this order; empty for a file that ships with the method's code."""
    size: int | None = None
    """Bytes."""
    by_hand: str = ""
    """What a person must do to get it, where a program cannot or may not: terms to accept, a page for browsers."""
    home: Home = "ntire"

    @property
    def mistakes(self) -> list[str]:
        """What is wrong with the declaration itself, in words."""
        found = []
        if self.provenance not in get_args(Provenance):
            found.append(f"provenance is one of {', '.join(get_args(Provenance))}, not {self.provenance!r}")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{8,64}", self.sha256):
            found.append(f"sha256 is 8 to 64 hexadecimal digits in small letters, or None, not {self.sha256!r}")
        if self.home not in get_args(Home):
            found.append(f"home is one of {', '.join(get_args(Home))}, not {self.home!r}")
        return [f"weights {self.file}: {one}" for one in found]


VGG19 = Weights(
    "vgg19-dcbb9e9d.pth",
    sha256="dcbb9e9d",
    license="BSD-3-Clause; ImageNet terms",
    provenance="official",
    urls=("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",),
    size=575_000_000,
    home="torchvision",
)
"""Of the training losses `perceptual` and `perceptual-l2`."""
ARCFACE = Weights(
    "recognition_arcface_ir_se50.pth",
    sha256=None,
    license="MIT (facexlib: Apache-2.0)",
    provenance="official",
    urls=("https://github.com/xinntao/facexlib/releases/download/v0.1.0/recognition_arcface_ir_se50.pth",),
    size=175_000_000,
)
"""Of the training loss `identity`."""


def cache_folder(home: Home = "ntire") -> Path:
    """Where fetched weights are kept."""
    if home == "ntire":
        return Path(os.environ.get("NTIRE_WEIGHTS") or own_cache() / "weights")
    if home == "huggingface":
        return Path(os.environ.get("HF_HOME") or user_cache() / "huggingface") / "hub"
    hub = Path(os.environ.get("TORCH_HOME") or user_cache() / "torch") / "hub"
    return hub / {"pyiqa": "pyiqa", "torchvision": "checkpoints", "clip": "clip"}[home]


def locate(weights: Weights, beside: Path | None) -> tuple[Path, State]:
    """The path of the file, and whether it ships in the folder `beside`, is in the cache, or is missing."""
    if beside is not None and (shipped := beside / "weights" / weights.file).is_file():
        return shipped, "shipped"
    cached = cache_folder(weights.home) / weights.file
    if weights.home == "huggingface":
        # A repository of many files: the snapshots' folder, complete once it has a configuration.
        cached = cache_folder("huggingface") / f"models--{weights.file.replace('/', '--')}"
        return cached, "here" if any(cached.glob("snapshots/*/config.json")) else "missing"
    return cached, "here" if cached.is_file() else "missing"


def require(wanted: Mapping[str, tuple[Weights, ...]], beside: Mapping[str, Path | None]) -> None:
    """Raise one UserError (exit code 3) that lists every missing file of all methods in `wanted` and how to get it."""
    missing: dict[Path, tuple[Weights, list[str]]] = {}
    for name, files in wanted.items():
        for weights in files:
            path, state = locate(weights, beside[name])
            if state == "missing":
                folder = beside[name]
                if not weights.urls and not weights.by_hand and folder is not None:
                    # Nobody can fetch it: it belongs where its method lies.
                    path = folder / "weights" / weights.file
                needed_by = missing.setdefault(path, (weights, []))[1]
                needed_by += [name] * (name not in needed_by)
    if not missing:
        return
    known = sum(weights.size or 0 for weights, _ in missing.values())
    more = " and more" * any(weights.size is None for weights, _ in missing.values())
    lines = [f"{len(missing)} weights file(s) missing{_megabytes(known)}{more if known else ''}:"]
    for path, (weights, needed_by) in missing.items():
        lines.append(f"  {', '.join(needed_by)}: {path} ({weights.license}{_megabytes(weights.size)})")
        lines += [f"      {way}" for way in ways_to_get(weights)]
    fetched = dict.fromkeys(name for weights, needed_by in missing.values() if weights.urls for name in needed_by)
    left = any(not weights.urls for weights, _ in missing.values())
    if fetched:
        lines.append(
            f"Get {'those that have an address' if left else 'them'} with:  ntire weights fetch {shlex.join(fetched)}"
        )
    if left:
        lines.append("What has no address here must be put at its path by hand.")
    raise UserError("\n".join(lines), exit_code=3)


def _megabytes(size: int | None) -> str:
    return f", {size / 1e6:.0f} MB" if size and size >= 500_000 else ", less than 1 MB" if size else ""


def ways_to_get(weights: Weights) -> list[str]:
    """A line for each address of a file, and one for what a person must do."""
    return [*(f"from {url}" for url in weights.urls), *([weights.by_hand] if weights.by_hand else [])]


def verify(weights: Weights, path: Path) -> None:
    """Raise UserError unless the file's sha256 is the declared one; a file without a declared one passes."""
    if weights.sha256 is None or path.is_dir():
        return
    found = digest_of(path)
    if not found.startswith(weights.sha256):
        from ntire.method.checkpoints import kind_of_file

        kind = kind_of_file(path)
        again = "delete it and get it again with `ntire weights fetch`."
        if not (weights.urls or weights.by_hand):
            again = "put the right file there, or declare this one's sha256 where its method declares it."
        raise UserError(
            f"{path}: expected sha256 {weights.sha256}, found {found}. It is {kind or 'damaged or another file'}: {again}",
            exit_code=3,
        )


def digest_of(path: Path) -> str:
    """The sha256 of a weights file: read once in a process as long as it does not change, as many methods share large files."""
    status = path.stat()
    return _digest(path, status.st_ino, status.st_size, status.st_mtime_ns)


@cache
def _digest(path: Path, *state: int) -> str:
    return sha256_of(path)


def fetch(weights: Weights, progress: Progress | None = None) -> Path:
    """Download the file into the cache, going on where an earlier try stopped, and check its hash.

    Raises UserError with every address tried and what each answered.
    """
    path, state = locate(weights, None)
    if state == "here":
        verify(weights, path)
        return path
    if weights.by_hand and not weights.urls:
        raise UserError(
            f"{weights.file} ({weights.license}): no program can fetch it. {weights.by_hand} Put it at {path}.",
            exit_code=3,
        )
    if not weights.urls:
        raise UserError(f"{weights.file}: it ships with its method's code and has no address. Restore that folder.")
    if weights.home == "huggingface":
        return _fetch_repository(weights, path)
    from ntire.method.downloads import download

    answers = download(weights.urls, path, weights.size, partial(verify, weights), progress)
    if not answers:
        return path
    raise UserError(
        f"{weights.file} ({weights.license}): none of its addresses gave the file.\n"
        + "\n".join([*answers, *([f"  {weights.by_hand}"] if weights.by_hand else [])])
        + "\n"
        f"Download it by other means to {path}, then run `ntire weights verify`.",
        exit_code=3,
    )


def _fetch_repository(weights: Weights, path: Path) -> Path:
    """Download a repository of many files with its hub's own client, which resumes where it stopped."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        snapshot_download(weights.file, cache_dir=path.parent)
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join([str(error).splitlines()[0], weights.by_hand]).strip()
        raise UserError(f"{weights.file}: cannot be fetched: {reason}", exit_code=3) from None
    return path


_MOVED = {"read_state_dict": "checkpoints", "TakesFile": "state_dict", "fill": "state_dict", "fill_from": "state_dict"}


def __getattr__(name: str) -> Any:
    """What this module offered in 0.1 and is now in others, which need PyTorch."""
    if name in _MOVED:
        return getattr(importlib.import_module(f"ntire.method.{_MOVED[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
