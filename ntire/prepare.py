"""A method made ready to run: built, filled with its weights, put on its device, cut into tiles that fit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ntire import UserError
from ntire.catalogue import folder_of
from ntire.cost import bytes_per_pixel
from ntire.environment import memory_to_use
from ntire.files import sha256_of
from ntire.method import DTYPES, Frame, Method, Precision
from ntire.raw import RawFrame
from ntire.submission import WeightsUsed
from ntire.turns import take_turns
from ntire.weights import fill, fill_from, locate, require, verify

CACHE_TILE = 512
"""On a CPU, tiles of this side keep a light network's activations in the cache."""
WORKSPACE = 1.25
"""Memory that convolutions take beyond the activations that are counted."""


@dataclass(frozen=True)
class Options:
    """How to run, apart from what."""

    device: str = "cpu"
    precision: Precision = "fp32"
    tile: int | Literal["auto"] | None = "auto"
    bits: Literal[8, 16] = 8
    """Of the PNGs that are written."""
    weights: Path | None = None
    """A file with all weights of the method, instead of those that it declares."""
    fresh: bool = False
    """Whether to forget what an earlier run finished."""
    max_memory_gb: float | None = None
    """10^9 bytes of weights that may be on the device at once; parts of a larger method take turns."""


def prepare(method_class: type[Method], options: Options) -> Method:
    """Build a method, fill its networks strictly and put it on its device.

    Raises UserError if its weights are missing, damaged or another network's, if nobody has published any, or if they do
    not go under the limit on memory.
    """
    folder = folder_of(method_class)
    if options.weights is None:
        # Before networks of gigabytes are built in vain.
        require({method_class.team: method_class.weights}, {method_class.team: folder})
    method = method_class()
    if options.weights is not None:
        fill(method, method.read_weights(options.weights), options.weights)
    elif method.weights:
        for weights in method.weights:
            path, _ = locate(weights, folder)
            verify(weights, path)
            fill_from(method.get_submodule(weights.into), weights, path)
    elif any(True for _ in method.parameters()):
        raise UserError(
            f"{method.team} on track {method.track}: no weights are public and none ship with ntire. Train them "
            f"(`ntire train --team {method.team} --track {method.track} --data DIR`) or name a file with --weights.",
            exit_code=3,
        )
    method.eval().deploy()
    # PyTorch's defaults let convolutions round to 10 bits on a GPU, and choose kernels by timing them.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    method.requires_grad_(False)
    device = torch.device(options.device)
    if options.max_memory_gb is None:
        return method.to(device, DTYPES[options.precision])
    if device.type == "cpu":
        raise UserError("--max-memory limits what is on a GPU; on the CPU, weights stay in main memory. Leave it out.")
    take_turns(method, device, options.precision, options.max_memory_gb)
    return method


def plan_tile(method: Method, frame: Frame | None, options: Options) -> tuple[int | None, tuple[str, ...]]:
    """The side of the tiles for one frame (None: the whole image), and what the user should know about it.

    With `auto`, the whole image where it fits into the memory to use; otherwise the largest tile that does. On a CPU a
    local network takes tiles of CACHE_TILE, which give the same pixels sooner.
    """
    if options.tile != "auto":
        return options.tile, ()
    if frame is None or type(method).enhance is not Method.enhance or method.tiling == "method":
        return None, ()
    height, width = (frame.mosaic if isinstance(frame, RawFrame) else frame).shape[-2:]
    try:
        each = WORKSPACE * bytes_per_pixel(type(method), method.dtype)  # type: ignore[arg-type]  # mypy: a Module's hash
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        return 1024, (f"its memory cannot be planned ({reason}): tiles of 1024",)
    side = int((memory_to_use(options.device) / max(each, 1.0)) ** 0.5) - 2 * method.halo
    if method.tiling == "exact" and method.device.type == "cpu":
        side = min(side, CACHE_TILE)
    side = max(side // method.stride * method.stride, 8 * method.stride)
    if max(height, width) <= side:
        return None, ()
    if method.tiling == "global":
        return side, (f"tiles of {side} change the result slightly, as this network sees the whole image",)
    return side, ()


def weights_used(method: Method, options: Options) -> tuple[WeightsUsed, ...]:
    """The weights files that a prepared method was filled from."""
    if options.weights is not None:
        return (WeightsUsed(file=options.weights.name, sha256=sha256_of(options.weights)),)
    folder = folder_of(type(method))
    return tuple(
        WeightsUsed(
            file=weights.file,
            sha256=sha256_of(locate(weights, folder)[0]),
            license=weights.license,
            provenance=weights.provenance,
        )
        for weights in method.weights
    )


def code_sha256(method: type[Method]) -> str | None:
    """The sha256 of a method's source: of its file, or of all Python files of a folder of its own."""
    folder = folder_of(method)
    if folder is None:
        return None
    own = folder / f"{method.__module__.rpartition('.')[2]}.py"
    files = [own] if own.is_file() else sorted(folder.rglob("*.py"))
    return sha256_of(" ".join(sha256_of(path) for path in files).encode())
