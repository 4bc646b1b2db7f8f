"""What a method costs, counted on the meta device: no memory is needed, so full-size frames can be counted anywhere."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ntire.method import Cost, Method
from ntire.method.counters import look


def on_meta(method: type[Method], *, deployed: bool = True) -> Method:
    """The method at full size as it runs, or as it is trained, with parameters that have shapes but no values."""
    try:
        with torch.device("meta"):
            built = method()
    except (RuntimeError, NotImplementedError):
        # Some constructors compute with values: those are built for real, then lose them.
        built = method().to("meta")
    built.eval()
    if deployed:
        built.deploy()
    return built


def count(method: type[Method], at: tuple[int, int], *, as_claimed: bool = False, built: Method | None = None) -> Cost:
    """Parameters and multiply-adds of `forward` for one image of `at` (height, width), or of what the report counts.

    Counted is what PyTorch dispatches: convolutions, matrix products and attention; pointwise work, norms and FFTs
    count as nothing. The size is padded to the method's stride, as it is when it runs. A report that counts only what is
    trained is met by the parameters that a new method would train. `built` is what `on_meta` gave, where it
    is there already.
    """
    built = on_meta(method) if built is None else built
    lq = lq_on_meta(method, at)
    trained_only = as_claimed and method.claimed is not None and method.claimed.trained_only
    seen = look(built, lq, call=built.as_claimed if as_claimed else None)
    return Cost(
        source="counted by dispatch",
        params_m=sum(
            parameter.numel() for parameter in built.parameters() if parameter.requires_grad or not trained_only
        )
        / 1e6,
        macs_g=seen.dispatch.total() / 1e9,
        at=at,
    )


def lq_on_meta(method: type[Method], at: tuple[int, int]) -> Tensor:
    """An input (1, C, H, W) of `at` (height, width), padded to the method's stride, without values."""
    height, width = (size + -size % method.stride for size in at)
    return torch.empty(1, method.lq_channels(), height, width, device="meta")


def peak_bytes(network: Callable[[Tensor], Tensor], lq: Tensor) -> int:
    """Bytes of the tensors that live at once while `network` works on `lq`, input and output included."""
    with _LiveBytes() as live:
        live.see(lq)
        network(lq)
    return live.peak


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive after each operator; parameters were there before and do not count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._seen: set[int] = set()

    def see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, key, storage.nbytes())

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given:
                self.see(leaf)
        return result
