"""Tensors out of a weights file: what the file is, which of its parts are the network's, and by which names.

One rule for all files. A file is what its content says, not its suffix. Of several sets of weights the averaged one (EMA)
is taken, as papers report it, and that is said. Names that a wrapper made (`module.`, `_orig_mod.`) or that a training
program put before its network (`net_g.`, `model.`) are cut until they are the network's own.
"""

import pickle
import warnings
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntire import UserError

AVERAGED = (
    "params_ema", "state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "net_g_ema", "g_ema", "ema_params", "ema",
)  # fmt: skip
"""What training programs call averaged weights, in the order of preference."""
RAW = (
    "params", "state_dict", "state_dict_unet", "model_state_dict", "model_state", "model", "net", "net_g", "generator",
    "network", "weights", "module",
)  # fmt: skip
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that PyTorch's wrappers put in: data parallel, compiled, sharded, checkpointed."""
LFS = b"version https://git-lfs.github.com/spec/"
MAGIC = (
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"\x89HDF", "an HDF5 file, as TensorFlow writes them"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
)


class StateDict(dict[str, Tensor]):
    """Tensors by name, and what was chosen to get them."""

    def __init__(self, tensors: Mapping[str, Tensor], notes: Iterable[str] = ()) -> None:
        super().__init__(tensors)
        self.notes = tuple(notes)
        """A line for each choice that was made; empty if there was none."""


def read_state_dict(path: Path, prefix: str = "", under: str = "") -> StateDict:
    """Tensors by name from a safetensors file or a PyTorch checkpoint, bare or in the wrapping of a training program.

    A file of several networks keeps each `under` a name of its own; of the names only those that begin with `prefix` are
    kept, without it. Raises UserError that says what the file is or holds if no tensors are found.
    """
    loaded = _load(path)
    notes: list[str] = []
    if under:
        if not (isinstance(loaded, Mapping) and isinstance(loaded.get(under), Mapping)):
            raise UserError(f"{path}: expected tensors under {under}, found none. It holds {contents(loaded)}.")
        found: Mapping[Any, Any] = loaded[under]
    else:
        found, notes = _unwrapped(loaded)
    named = {str(name): value for name, value in found.items() if str(name).startswith(prefix)}
    tensors = {name.removeprefix(prefix): value for name, value in named.items() if isinstance(value, Tensor)}
    nested = [name for name, value in named.items() if isinstance(value, Mapping) and _holds_tensors(value)]
    if not tensors or nested:
        wanted = f"tensors by name{f' with the prefix {prefix}' if prefix else ''}"
        raise UserError(f"{path}: expected {wanted}, found none. It holds {contents(loaded)}.")
    others = [name for name, value in named.items() if not isinstance(value, Tensor)]
    notes += [f"left out, as they are not tensors: {_first(others)}"] if others else []
    return StateDict(tensors, notes)


def contents(loaded: object) -> str:
    """What a loaded file holds, in words: its keys, and the first names and shapes below each."""
    if not isinstance(loaded, Mapping):
        return f"one {type(loaded).__name__}"
    words = []
    for name, value in list(loaded.items())[:8]:
        if isinstance(value, Tensor):
            words.append(f"{name} {tuple(value.shape)}")
        elif isinstance(value, Mapping):
            inner = ", ".join(f"{key} {_shape(one)}" for key, one in list(value.items())[:3])
            words.append(f"{name} ({len(value)}: {inner}{', ...' if len(value) > 3 else ''})")
        else:
            words.append(f"{name} ({type(value).__name__})")
    return ("; ".join(words) if words else "nothing") + (f"; and {len(loaded) - 8} more" if len(loaded) > 8 else "")


def kind_of_file(path: Path) -> str:
    """What a file is by its first bytes, in words; empty for one that may hold weights."""
    with path.open("rb") as file:
        head = file.read(512)
    size = path.stat().st_size
    if not head:
        return "an empty file"
    if head.startswith(LFS):
        whole = next((line.split()[1].decode() for line in head.splitlines() if line.startswith(b"size ")), "unknown")
        return (
            f"a Git LFS pointer of {size} bytes, which stands for the weights ({whole} bytes); "
            "run `git lfs pull` in the repository that it comes from, or download the file itself"
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page: the server answered with one instead of the file. Download it with a browser"
    for magic, words in MAGIC:
        if head.startswith(magic):
            return words
    if (
        head[:1] not in b"\x80P"
        and not _is_safetensors(head)
        and all(31 < one < 127 or one in b"\t\r\n" for one in head)
    ):
        return f"text that begins with {head[:40].decode()!r}"
    return ""


def fitted(given: Mapping[str, Tensor], own: Collection[str]) -> StateDict:
    """The tensors by the names that a network has (`own`), where a wrapper's or a training program's prefix is all that
    tells them apart; unchanged where it is not.

    What a file holds outside of the prefix, such as a discriminator, is left out; a note says so.
    """
    notes = list(given.notes) if isinstance(given, StateDict) else []
    if given.keys() == set(own) or not own:
        return StateDict(given, notes)
    plain = _without_wrappers(given, own)
    if plain is not given:
        wrappers = sorted({part for name in given for part in name.split(".") if part in WRAPPERS})
        notes.append(f"{', '.join(wrappers)} cut from the names")
    prefix, rivals = _prefix(plain, own)
    if prefix:
        inside = {name.removeprefix(prefix): value for name, value in plain.items() if name.startswith(prefix)}
        left = sorted({name.partition(".")[0] for name in plain if not name.startswith(prefix)})
        also = f" rather than {', '.join(rivals)}" if rivals else ""
        notes.append(f"{prefix} taken{also}" + (f"; left out: {_first(left)}" if left else ""))
        return StateDict(inside, notes)
    outer = {name.partition(".")[0] for name in own}
    if len(outer) == 1 and {f"{min(outer)}.{name}" for name in plain} == set(own):
        return StateDict({f"{min(outer)}.{name}": value for name, value in plain.items()}, notes)
    return StateDict(plain, notes)


def _without_wrappers(given: Mapping[str, Tensor], own: Collection[str]) -> Mapping[str, Tensor]:
    """The same without the parts of names that only wrappers put in, unless the network itself has such parts."""
    foreign = WRAPPERS - {part for name in own for part in name.split(".")}
    renamed = {".".join(part for part in name.split(".") if part not in foreign): name for name in given}
    if len(renamed) < len(given) or "" in renamed or renamed.keys() == given.keys():
        return given
    # PyTorch's averaged model counts its updates beside the network.
    return {new: given[name] for new, name in renamed.items() if name != "n_averaged"}


def _prefix(given: Mapping[str, Tensor], own: Collection[str]) -> tuple[str, list[str]]:
    """What stands before most of the network's names, and what else could stand there; empty if nothing does."""
    prefixes = {
        ".".join(name.split(".")[:depth]) + "." for name in given for depth in (1, 2, 3) if name.count(".") >= depth
    }
    found = {prefix: sum(prefix + name in given for name in own) for prefix in prefixes}
    most = max(found.values(), default=0)
    if 2 * most <= len(own) or most <= sum(name in given for name in own):
        return "", []
    best = sorted(prefix for prefix, count in found.items() if count == most)
    averaged = [prefix for prefix in best if "ema" in prefix.lower()]
    chosen = averaged or best
    return (chosen[0], [prefix for prefix in best if prefix != chosen[0]]) if len(chosen) == 1 else ("", [])


def _unwrapped(loaded: object) -> tuple[Mapping[Any, Any], list[str]]:
    """The innermost tensors by name, and what was chosen on the way."""
    notes: list[str] = []
    for _ in range(4):
        if not isinstance(loaded, Mapping):
            break
        holders = [key for key, value in loaded.items() if isinstance(value, Mapping) and _holds_tensors(value)]
        known = [key for key in (*AVERAGED, *RAW) if key in holders]
        bare = any(isinstance(value, Tensor) for value in loaded.values())
        only = [key for key in holders if key not in ("optimizer", "optimizer_state_dict")]
        if not known and (bare or len(only) != 1):
            break
        chosen = (known or only)[0]
        lost = [key for key in AVERAGED if key in loaded and key not in holders]
        if len(known) > 1:
            kind = "averaged weights" if chosen in AVERAGED else "the first of them"
            notes.append(f"{chosen} taken ({kind}), not {', '.join(map(str, known[1:]))}")
        elif lost:
            notes.append(f"{chosen} taken: {', '.join(lost)} holds no tensors by name")
        loaded = loaded[chosen]
    return (loaded if isinstance(loaded, Mapping) else {}), notes


def _holds_tensors(value: object, depth: int = 3) -> bool:
    """Whether tensors stand below names, at this level or one further down."""
    if not isinstance(value, Mapping) or not depth:
        return False
    # An optimizer numbers its tensors.
    named = [one for key, one in value.items() if isinstance(key, str)]
    return any(isinstance(one, Tensor) or _holds_tensors(one, depth - 1) for one in named)


def _load(path: Path) -> Any:
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        kind = kind_of_file(path)
        if kind:
            raise UserError(f"{path}: expected a weights file (safetensors, or tensors saved by torch), found {kind}.")
        with path.open("rb") as file:
            as_safetensors = _is_safetensors(file.read(16))
        return load_file(path) if as_safetensors else _read_checkpoint(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such weights file.") from None
    except (
        SafetensorError,
        UnpicklingError,
        OSError,
        RuntimeError,
        EOFError,
        LookupError,
        ValueError,
        TypeError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: not a whole weights file (safetensors, or tensors saved by torch): {_archive(path) or reason}"
        ) from None


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of length, then JSON."""
    return len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 2**30


def _archive(path: Path) -> str:
    """What a ZIP that PyTorch does not take holds, in words."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        return "it is a TorchScript program, which could run code; save its state_dict() instead"
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return ""
    return f"it is a ZIP archive of {_first(names)}: unpack it"


def _read_checkpoint(path: Path) -> Any:
    """A pickle can run code, so one is never opened as such: first as tensors only; where a training framework has left
    objects of its own in it, with all classes but tensors replaced by inert ones.
    """
    with warnings.catch_warnings():
        # PyTorch warns of unusual pickle protocols; whatever it cannot read safely raises below.
        warnings.simplefilter("ignore", UserWarning)
        try:
            if path.suffix == ".safetensors":  # which PyTorch, too, goes by
                with path.open("rb") as file:
                    return torch.load(file, map_location="cpu", weights_only=True)
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


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"({type(value).__name__})"


def _first(names: Collection[str], most: int = 5) -> str:
    shown = list(names)[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
