"""Weights files read safely, and networks filled from them strictly."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ntire import UserError
from ntire.method.weights_files import Weights


def read_state_dict(path: Path, prefix: str = "", under: str = "") -> dict[str, Tensor]:
    """Tensors by name from a safetensors file or a PyTorch checkpoint: bare, or under a name that training programs use.

    A file of several networks keeps each `under` a name of its own.

    A pickle can run code, so one is never opened as such: first as tensors only; where a training framework has left
    objects of its own in it, with all classes but tensors replaced by inert ones. Raises UserError for anything else.
    """
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        loaded: Any = load_file(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such weights file.") from None
    except (SafetensorError, UnpicklingError, OSError, RuntimeError, EOFError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: not a whole weights file (safetensors, or tensors saved by torch): {reason}"
        ) from None
    if under and not (isinstance(loaded, dict) and isinstance(loaded.get(under), dict)):
        raise UserError(f"{path}: expected tensors under {under}, found none.")
    for key in (under,) if under else ("params_ema", "params", "state_dict", "state_dict_unet", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: expected tensors by name, found {type(loaded).__name__}.")
    tensors = {name.removeprefix(prefix): value for name, value in loaded.items() if str(name).startswith(prefix)}
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(
            f"{path}: expected tensors by name{f' with the prefix {prefix}' if prefix else ''}, found none."
        )
    return tensors


def _read_checkpoint(path: Path) -> Any:
    with warnings.catch_warnings():
        # PyTorch warns of unusual pickle protocols; whatever it cannot read safely raises below.
        warnings.simplefilter("ignore", UserWarning)
        try:
            # Read where it is used: checkpoints hold optimisers and averages that nobody asks for.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError:
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_Inert)


class _Ignored:
    """Stands for an object of a class that has no business in a weights file; takes anything, does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> "_Ignored":
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None: ...
    def __setstate__(self, state: object) -> None: ...
    def __setitem__(self, key: object, value: object) -> None: ...
    def append(self, value: object) -> None: ...
    def extend(self, values: object) -> None: ...


class _InertUnpickler(pickle.Unpickler):
    """Knows tensors, parameters and ordered dicts; every other name, callable or not, is `_Ignored`."""

    KNOWN = frozenset(
        {
            ("collections", "OrderedDict"),
            ("torch._utils", "_rebuild_tensor_v2"),
            ("torch._utils", "_rebuild_parameter"),
            ("torch", "Size"),
            ("torch", "device"),
        }
    )

    def find_class(self, module: str, name: str, /) -> Any:
        return super().find_class(module, name) if (module, name) in self.KNOWN else _Ignored


class _Inert:
    """What `torch.load` takes for a pickle module."""

    __name__ = "inert"
    Unpickler = _InertUnpickler
    load = staticmethod(lambda file, **options: _InertUnpickler(file, **options).load())


@runtime_checkable
class TakesFile(Protocol):
    """A part of a method that reads its published file itself: other names than ours, or no tensors at all."""

    def take(self, path: Path, prefix: str) -> None:
        """Fill from the file; `prefix` is `Weights.prefix`. Raises UserError for a file that does not fit."""


def fill_from(part: nn.Module, weights: Weights, path: Path) -> None:
    """Fill the part of a method that `weights.into` names from its file. Raises UserError for one that does not fit."""
    if isinstance(part, TakesFile):
        part.take(path, weights.prefix)
    else:
        fill(part, read_state_dict(path, weights.prefix), path)


def fill(module: nn.Module, state_dict: Mapping[str, Tensor], source: Path) -> None:
    """Copy `state_dict` into `module`: the same names, the same shapes, nothing missing, nothing left over.

    Values are converted to the module's own dtypes; a value that is the module's own already stays, whatever it is. Raises
    UserError that lists all differences at once.
    """
    own = module.state_dict()
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
            + "\nUse the file that belongs to this team, track and variant."
        )
    module.load_state_dict(dict(state_dict), strict=True)
