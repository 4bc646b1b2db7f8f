"""Bytes that operators move, counted on the meta device, where tensors have sizes and no memory."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ntire.method import Frame, Method
from ntire.method.contract import enhanced
from ntire.picture.image import Rounding
from ntire.picture.raw import Levels, RawFrame

TOUCHES_MEMORY = ("convolution", "mm", "bmm", "addmm", "baddbmm", "pool", "scaled_dot_product", "pixel_shuffle")
"""Operators that a compiler cannot fold into their neighbours."""
CCM = ((1.6, -0.4, -0.2), (-0.2, 1.5, -0.3), (0.0, -0.5, 1.5))
BLACK: Levels = (64.0, 64.0, 64.0, 64.0)


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes that operators read and write; a view moves none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.eager = 0
        """As if every operator read its inputs and wrote its outputs."""
        self.fused = 0
        """As if only those of TOUCHES_MEMORY did."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        if not (func.is_view or func.namespace == "prim" or name == "_unsafe_view" or name.startswith("empty")):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            moved = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            self.eager += moved
            self.fused += moved if any(word in name for word in TOUCHES_MEMORY) else 0
        return result


@torch.no_grad()
def of_network(method: nn.Module, lq: Tensor) -> Traffic:
    """Of one run of the networks."""
    with Traffic() as seen:
        method(lq)
    return seen


@torch.no_grad()
def of_picture(method: Method, frame: Frame, bits: int = 8) -> Traffic:
    """Of all between the integers of a picture and those of its result."""
    with Traffic() as seen:
        enhanced(method, frame, Rounding(bits))
    return seen


def picture_on_meta(method: type[Method], height: int, width: int) -> Frame:
    """What a file of that size holds: 8 bits a sample, or a mosaic of 10 bits with colours to correct."""
    if method.track == "raw":
        samples = torch.empty(1, height, width, dtype=torch.uint16, device="meta")
        return RawFrame(samples, "RGGB", (2.0, 1.0, 1.6), CCM, None, None, (), BLACK, 1023.0)
    return torch.empty(height, width, 3, dtype=torch.uint8, device="meta").permute(2, 0, 1)
