"""Weights files: which a method needs, where they come from, whether they are here and whole, and strict filling.

A file is looked for in `weights/` beside the module that declares it (so do projects ship weights, and so do
submissions), then in the cache: `$NTIRE_WEIGHTS`, by default `~/.cache/ntire/weights`.
"""

import logging
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ntire import UserError
from ntire.files import sha256_of
from ntire.method.checkpoints import contents, fitted, kind_of_file
from ntire.method.checkpoints import read_state_dict as read_state_dict
from ntire.method.downloads import Progress, download

LOG = logging.getLogger("ntire.weights")
State = Literal["shipped", "here", "missing"]
Home = Literal["ntire", "pyiqa", "torchvision", "clip", "huggingface"]
"""Whose cache a file is kept in: a library looks for its own files in its own place."""


@dataclass(frozen=True)
class Weights:
    """One released file and the part of a method that it fills."""

    file: str
    """Its name in the weights folder."""
    sha256: str | None
    """All 64 digits, or the first ones (at least 8) where only those are published, or None."""
    license: str
    provenance: Literal["official", "retrained"]
    """`official`: the authors' own file. `retrained`: made with `ntire train`, never called the team's own."""
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


def cache_folder(home: Home = "ntire") -> Path:
    """Where fetched weights are kept."""
    if home == "ntire":
        return Path(os.environ.get("NTIRE_WEIGHTS") or Path.home() / ".cache" / "ntire" / "weights")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if home == "huggingface":
        return Path(os.environ.get("HF_HOME") or cache / "huggingface") / "hub"
    hub = Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub"
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
        kind = kind_of_file(path)
        raise UserError(
            f"{path}: expected sha256 {weights.sha256}, found {found}. It is {kind or 'damaged or another file'}: "
            "delete it and get it again with `ntire weights fetch`.",
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
    """Download a repository of many files with its hub's own client, which goes on where it stopped."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        snapshot_download(weights.file, cache_dir=path.parent)
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join([str(error).splitlines()[0], weights.by_hand]).strip()
        raise UserError(f"{weights.file}: cannot be fetched: {reason}", exit_code=3) from None
    return path


@runtime_checkable
class TakesFile(Protocol):
    """A part of a method that reads its published file itself: other names than ours, or no tensors at all."""

    def take(self, path: Path, prefix: str) -> None:
        """Fill from the file; `prefix` is `Weights.prefix`. Raises UserError for a file that does not fit."""


def fill_from(part: nn.Module, weights: Weights, path: Path) -> tuple[str, ...]:
    """Fill the part of a method that `weights.into` names from its file; returns what was chosen in it.

    Raises UserError for one that does not fit.
    """
    if isinstance(part, TakesFile):
        part.take(path, weights.prefix)
        return ()
    return fill(part, read_state_dict(path, weights.prefix), path)


def fill(module: nn.Module, given_tensors: Mapping[str, Tensor], source: Path) -> tuple[str, ...]:
    """Copy tensors into `module`: the same names (see `fitted`), the same shapes, nothing missing, nothing left over.

    Values are converted to the module's own dtypes; a value that is the module's own already stays, whatever it is.
    Returns what was chosen in the file, if there was a choice, and logs it. Raises UserError that lists all differences at
    once, and what is there.
    """
    own = module.state_dict()
    state_dict = fitted(given_tensors, own)
    # The meta device holds names and shapes only.
    given = {
        name: value
        for name, value in state_dict.items()
        if not value.is_meta and (name not in own or value.data_ptr() != own[name].data_ptr())
    }
    kinds = (
        [f"missing {name} {tuple(own[name].shape)}" for name in own if name not in state_dict],
        [f"unexpected {name} {tuple(state_dict[name].shape)}" for name in state_dict if name not in own],
        [
            f"{name}: expected {tuple(own[name].shape)}, found {tuple(state_dict[name].shape)}"
            for name in own
            if name in state_dict and own[name].shape != state_dict[name].shape
        ],
        [
            f"{name}: contains NaN or infinity"
            for name, value in given.items()
            if value.is_floating_point() and not bool(torch.isfinite(value).all())
        ],
    )
    found = sum(map(len, kinds))
    if found:
        shown = [
            line for kind in kinds for line in [*kind[:8], *([f"and {len(kind) - 8} more"] if len(kind) > 8 else [])]
        ]
        raise UserError(
            f"{source}: these are not the weights of this {type(module).__name__}, {found} difference(s):\n  "
            + "\n  ".join(shown)
            + f"\nThe file holds {contents(dict(given_tensors))}."
            + "".join(f"\nOf it: {note}." for note in state_dict.notes)
            + "\nUse the file that belongs to this team, track and variant."
        )
    module.load_state_dict(dict(state_dict), strict=True)
    for note in state_dict.notes:
        LOG.warning("%s: %s", source, note)
    return state_dict.notes
