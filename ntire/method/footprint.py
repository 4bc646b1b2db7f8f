"""How much memory a network needs for one input, by a run on the meta device, where tensors have sizes and no memory."""

import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ntire.method import Method
from ntire.method.catalogue import facts_in_release
from ntire.method.count import on_meta, peak_bytes
from ntire.method.kept_counts import kept

SMALL, LARGE = 256, 1024
"""Sides of pieces that show whether memory grows as the number of pixels does. Where it grows faster, as attention over pixels
makes it, every size is run on the meta device for itself."""


@dataclass(frozen=True)
class Footprint:
    """What a network needs for an input of one size."""

    bytes: int
    """At its peak, input and output included, parameters not."""
    elements: int
    """Of its largest tensor."""


@cache
def footprint(method: type[Method], dtype: torch.dtype, height: int, width: int) -> Footprint:
    """What `forward` needs for one input of (height, width): as the release recorded it, else measured once and kept in the
    cache, as counts are.

    The first run on the meta device makes PyTorch import its compiler, which takes longer than restoring a small picture.
    Raises NotImplementedError or RuntimeError for a network that cannot run there.
    """
    known = facts_in_release(method) if dtype == torch.float32 else None
    for one in known.footprints if known else ():
        if one[:2] == (height, width):
            return Footprint(*one[2:])

    def numbers() -> list[int]:
        found = measured(method, dtype, height, width)
        return [found.bytes, found.elements]

    if "<locals>" in method.__qualname__ or not getattr(sys.modules.get(method.__module__), "__file__", None):
        return Footprint(*numbers())  # one of several classes of that name, or one without a file
    return Footprint(*kept("footprints", method, (str(dtype), height, width), 2, numbers))


def measured(method: type[Method], dtype: torch.dtype, height: int, width: int) -> Footprint:
    """The same, by a run whatever is known."""
    lq = torch.empty(1, method.lq_channels(), height, width, device="meta", dtype=dtype)
    with torch.no_grad(), _LargestTensor() as largest:
        built = _built(method, dtype)  # type: ignore[arg-type]  # mypy: a Module's hash
        return Footprint(peak_bytes(built, lq), largest.elements)


def to_record(method: type[Method]) -> tuple[tuple[int, int, int, int], ...]:
    """Height, width, bytes and elements of the pieces that plans are made from; none for a method that is not planned."""
    if method.enhance is not Method.enhance or method.tiling == "method":
        return ()
    found = []
    for side in (SMALL, LARGE):
        padded = side + -side % method.stride
        try:
            one = measured(method, torch.float32, padded, padded)
        except (NotImplementedError, RuntimeError):
            return ()  # the plan says so when the method runs
        found.append((padded, padded, one.bytes, one.elements))
    return tuple(found)


@cache
def _built(method: type[Method], dtype: torch.dtype) -> Method:
    return on_meta(method).to(dtype)


class _LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result
