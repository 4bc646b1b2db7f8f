"""Networks that run in float32 whatever the method around them does, as in the programs that they come from."""

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class FullPrecision(nn.Module):
    """Moves to another device, but stays in float32: for networks that decide something, or that half a type overflows."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved: Self = super()._apply(  # type: ignore[no-untyped-call]
            lambda value: value.to(fn(value.flatten()[:0]).device), recurse
        )
        return moved
