"""A method made ready to run: built, filled with its weights, put on its device."""

import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path, PurePath
from typing import Any, Literal, get_args

import torch
from torch.overrides import TorchFunctionMode

from ntire import UserError
from ntire.entry.manifest import MANIFEST, WeightsUsed
from ntire.environment import keep_freed_memory
from ntire.files import sha256_of
from ntire.method import DTYPES, Method, Precision
from ntire.method.catalogue import folder_of
from ntire.method.own_modules import is_private
from ntire.method.settings import configured, set_attributes
from ntire.method.state_dict import fill, fill_from
from ntire.method.weights_files import digest_of, locate, require, verify
from ntire.picture.suffixes import PICTURES
from ntire.runner.backends import Backend
from ntire.runner.weight_offload import take_turns

NOT_OF_CODE = PICTURES - {".npy"} | frozenset((".md", ".rst", ".log", ".zip", ".tar", ".gz", ".tgz", ".7z"))
DRAWN = ("uniform_", "normal_", "kaiming_uniform_")
"""PyTorch's ways to draw parameters that its layers use and that can be told not to; transformers wraps them."""


@dataclass(frozen=True)
class Options:
    """How to run, apart from what."""

    device: str = "cpu"
    """Or several, separated by commas."""
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
    channels_last: bool = False
    """Whether the networks keep the channels of a pixel together in memory."""
    compiled: bool = False
    """Whether PyTorch compiles the networks."""
    settings: tuple[tuple[str, str], ...] = ()
    """Names and values of the method's own settings."""
    cuda_graphs: bool = False
    """Whether a GPU replays the networks' kernels as one, for each size of tile."""

    backend: Backend = "torch"
    """The program that runs the networks."""

    def __post_init__(self) -> None:
        """Raise UserError for what a type checker would refuse: other bits than 8 and 16 would make other pictures."""
        whole = type(self.tile) is int and self.tile > 0
        expected = {
            "tile": (whole or self.tile in ("auto", None), "a number of pixels, auto, or None for the whole image"),
            "bits": (self.bits in (8, 16), "8 or 16"),
            "precision": (self.precision in DTYPES, ", ".join(DTYPES)),
            "backend": (self.backend in get_args(Backend), ", ".join(get_args(Backend))),
        }
        wrong = [
            f"{name}: expected {words}, found {getattr(self, name)!r}."
            for name, (right, words) in expected.items()
            if not right
        ]
        if wrong:
            raise UserError("\n".join(wrong))

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(self.device.split(","))

    @property
    def fixed_shapes(self) -> bool:
        """Whether every new size of input costs time of its own."""
        return self.compiled or self.cuda_graphs or self.backend != "torch"

    @property
    def inexact(self) -> tuple[str, ...]:
        """What is asked for that may change pixels, in words."""
        asked = {
            self.precision: self.precision != "fp32",
            "channels-last": self.channels_last,
            "compile": self.compiled,
            "cuda-graphs": self.cuda_graphs,
            self.backend: self.backend != "torch",
        }
        return tuple(word for word, yes in asked.items() if yes)

    @property
    def inexact_options(self) -> dict[str, str]:
        """The same words, and how the command line has them."""
        names: dict[str, str] = {
            self.precision: f"--precision {self.precision}",
            self.backend: f"--backend {self.backend}",
        }
        return {word: names.get(word, f"--{word}") for word in self.inexact}


@dataclass(frozen=True)
class Prepared:
    """A method made ready, and what a manifest and a journal say of it."""

    method: Method
    options: Options
    folder: Path | None
    """Where the method's module lies."""
    paths: tuple[Path, ...]
    """The files of its declared weights, in their order; empty where one file was named for all."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What was chosen in each weights file that offered a choice, by file name."""
    sandbox: str = ""
    """What it runs in, where its code is a stranger's, and who limits it there."""

    @cached_property
    def weights_used(self) -> tuple[WeightsUsed, ...]:
        """The weights files that the method was filled from."""
        one = self.options.weights
        if one is not None:
            return (WeightsUsed(file=one.name, sha256=sha256_of(one), note=self.notes.get(one.name)),)
        return tuple(
            WeightsUsed(
                file=weights.file,
                sha256=digest_of(path),
                license=weights.license,
                provenance=weights.provenance,
                note=self.notes.get(weights.file),
            )
            for weights, path in zip(self.method.weights, self.paths, strict=True)
        )

    @cached_property
    def code_sha256(self) -> str | None:
        """The sha256 of the method's source."""
        return _sha256_of_code(type(self.method), self.folder)


def _built(method_class: type[Method]) -> Method:
    """A method; raises UserError where a part of its network has a name that `Method` needs, such as `scale`, and where the
    code of a folder fails.
    """
    own = folder_of(method_class) if is_private(method_class.__module__) else None
    try:
        method = method_class()
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, KeyError) and "already exists" in str(error):
            raise UserError(
                f"{method_class.team}: {error.args[0]} in every Method. Give this part of the network another name, or put the "
                "network into a module of its own (self.net = Network())."
            ) from error
        if own is None:
            raise
        raise UserError(
            f"{own}: {method_class.__name__}() fails{_line_of(own, error)}: {type(error).__name__}: {error}"
        ) from error
    if own is not None and getattr(method, "execution", None) is None:
        raise UserError(f"{own}: {method_class.__name__}.__init__ must call super().__init__() before all else.")
    return method


def _line_of(folder: Path, error: Exception) -> str:
    """The last place in a folder's code that an exception came by, in words."""
    places = [(Path(frame.filename).resolve(), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(file.name, line) for file, line in places if file.is_relative_to(folder.resolve())]
    return f" ({own[-1][0]}, line {own[-1][1]})" if own else ""


def prepare(method_class: type[Method], options: Options) -> Prepared:
    """Build a method, fill its networks strictly and put it on its device, the first of several.

    Raises UserError if its weights are missing, damaged or another network's, if nobody has published any, or if they do
    not go under the limit on memory.
    """
    device = torch.device(options.devices[0])
    if device.type == "cpu":
        keep_freed_memory()
    if options.max_memory_gb is not None and (device.type == "cpu" or len(options.devices) > 1):
        raise UserError("--max-memory limits what is on one GPU: leave it out, or name one with --device.")
    if options.max_memory_gb is not None and (options.compiled or options.cuda_graphs):
        asked = " and ".join(f"--{word}" for word in options.inexact if word in ("compile", "cuda-graphs"))
        raise UserError(f"--max-memory moves weights about, which {asked} cannot follow: leave one of them out.")
    settings = dict(options.settings)
    method_class = configured(method_class, settings)
    folder = folder_of(method_class)
    _require(method_class, folder, options)
    with _Undrawn():
        method = _built(method_class)
    ready = described(method, options)
    notes = _fill(method, options, ready.paths)
    values = (*method.parameters(), *method.buffers())
    if any(bool(value[(0,) * value.ndim].isnan()) for value in values if value.numel()):
        # What no file fills keeps what it is built with.
        method = _built(method_class)
        _fill(method, options, ready.paths)
    ready = replace(ready, method=method, notes=notes)
    set_attributes(method, settings)
    method.eval().deploy()
    # PyTorch's defaults let convolutions round to 10 bits on a GPU, and choose kernels by timing them.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    method.requires_grad_(False)
    if options.max_memory_gb is None:
        method.to(device, DTYPES[options.precision])
        if next(method.parameters(), None) is None:
            method.execution.device = device
    else:
        take_turns(method, device, options.precision, options.max_memory_gb)
    if method.channels_last and device.type == "cpu":
        method.to(memory_format=torch.channels_last)
        method.execution.memory_format = torch.channels_last
    return ready


def described(method: Method, options: Options, sandbox: str = "") -> Prepared:
    """A method that was made ready elsewhere, such as one in a sandbox, with its weights where they are."""
    folder = folder_of(type(method))
    declared = () if options.weights is not None else method.weights
    return Prepared(method, options, folder, tuple(locate(weights, folder)[0] for weights in declared), sandbox=sandbox)


class _Undrawn(TorchFunctionMode):
    """Meanwhile parameters stay as they come where they would be drawn at random, which takes longer than filling them, but
    for their first value, which is NaN.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        module = getattr(func, "__module__", None)
        if module in ("torch.nn.init", "transformers.initialization") and func.__name__ in DRAWN:
            parameter = kwargs["tensor"] if "tensor" in kwargs else args[0]
            if parameter.numel():
                parameter.detach()[(0,) * parameter.ndim] = math.nan
            return parameter
        return func(*args, **kwargs)


def _fill(method: Method, options: Options, paths: Sequence[Path]) -> dict[str, str]:
    """Fill the networks strictly; returns what was chosen in each weights file that offered a choice, by file name."""
    notes = {}
    if options.weights is not None:
        notes[options.weights.name] = fill(method, method.read_weights(options.weights), options.weights)
    elif method.weights:
        for weights, path in zip(method.weights, paths, strict=True):
            verify(weights, path)
            notes[weights.file] = fill_from(method.get_submodule(weights.into), weights, path)
    elif any(True for _ in method.parameters()) and is_private(type(method).__module__):
        folder = folder_of(type(method))
        raise UserError(
            f"{folder}: its networks have parameters, and its class declares no file for them. Put one into "
            f'{folder}/weights/ and declare it, `weights = (Weights("NAME.safetensors"),)`, or name one with --weights.',
            exit_code=3,
        )
    elif any(True for _ in method.parameters()):
        raise UserError(
            f"{method.team} on track {method.track}: no weights are public and none ship with ntire. Train them "
            f"(`ntire train --team {method.team} --track {method.track} --data DIR`) or name a file with --weights.",
            exit_code=3,
        )
    return {file: "; ".join(lines) for file, lines in notes.items() if lines}


def _require(method_class: type[Method], folder: Path | None, options: Options) -> None:
    """Tell all that is missing at once, before networks of gigabytes are built in vain."""
    files = {} if options.weights is not None else {method_class.team: method_class.weights}
    answers = []
    for needed in (partial(require, files, {method_class.team: folder}), method_class.require):
        try:
            needed()
        except UserError as error:
            answers.append(str(error))
    if answers:
        raise UserError("\n".join(answers), exit_code=3)


def code_sha256(method: type[Method]) -> str | None:
    """The sha256 of a method's source: of its file, or of all Python files of a folder of its own."""
    return _sha256_of_code(method, folder_of(method))


def weights_sha256(method: type[Method], options: Options) -> list[str]:
    """The sha256 of each weights file that a method would be filled from, before it is built: of a file that is not here, as it
    is declared. Raises UserError where that is not whole.
    """
    if options.weights is not None:
        return [sha256_of(options.weights)]
    folder = folder_of(method)
    found = []
    for weights in method.weights:
        path, state = locate(weights, folder)
        if state == "missing" and len(weights.sha256 or "") != 64:
            require({method.team: (weights,)}, {method.team: folder})
        found.append(weights.sha256 or "" if state == "missing" else digest_of(path))
    return found


def _sha256_of_code(method: type[Method], folder: Path | None) -> str | None:
    if folder is None:
        return None
    own = folder / f"{method.__module__.rpartition('.')[2]}.py"
    alone = own.is_file() and not is_private(method.__module__)
    return sha256_of(sha256_of(own).encode()) if alone else sha256_of_folder(folder)


def sha256_of_folder(folder: Path) -> str:
    """The sha256 of a method in a folder of its own, as the journal of its runs has it: of all that its code may read there.

    Settings, and weights that no class declares, change results as modules do.
    """
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    runs = [name.removesuffix(f"/{MANIFEST}") for name in files if name.endswith(f"/{MANIFEST}")]
    # A run of the method, and what is made of it under its name: its zip, sheet and scores. Modules are always read.
    made = tuple(f"{run}{sign}" for run in runs for sign in "/.-")
    read = sorted(name for name in files if _is_of_code(name) and (name.endswith(".py") or not name.startswith(made)))
    # A module may be changed twice within the clock that `digest_of` trusts.
    digests = [sha256_of(files[name]) if name.endswith(".py") else digest_of(files[name]) for name in read]
    return sha256_of(" ".join(f"{name} {digest}" for name, digest in zip(read, digests, strict=True)).encode())


def _is_of_code(name: str) -> bool:
    """Whether code may read a file of its folder to compute with: no hidden file, cache, picture, archive or prose."""
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
    return not hidden and PurePath(name).suffix.lower() not in NOT_OF_CODE
