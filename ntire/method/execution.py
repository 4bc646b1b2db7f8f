"""How a method is run: what a runner sets before each picture, and images going through `forward` piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ntire.picture.image import entering
from ntire.picture.tiling import tiled

if TYPE_CHECKING:
    from ntire.method.contract import Method


@dataclass
class Execution:
    """The state of a run, which is the runner's: a method by itself takes the whole image where its parameters are."""

    tile: int | None = None
    """Side of the tiles in pixels; None for the whole image. Smaller after memory ran out."""
    batch: int = 1
    """How many tiles of one size go through the networks together."""
    same_size: bool = False
    """Whether all tiles read equally large areas, as batches, compilers and CUDA graphs want it."""
    memory_format: torch.memory_format = torch.contiguous_format
    """How what enters the networks lies in memory."""
    network: Callable[[Tensor], Tensor] | None = None
    """Runs instead of calling the method, as a recorded CUDA graph does."""
    device: torch.device | None = None
    """Where it runs, if its parameters do not say so: they take turns there, or there are none."""
    advanced: Callable[[int, int], None] = lambda done, of: None
    """Hears the tiles of a picture that are done, and of how many."""
    making_room: Callable[[], AbstractContextManager[None]] = nullcontext
    """Leaves the device to others meanwhile, if there is a limit on the memory there."""
    around: Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]] | None = None
    """Put around `network` by who times it: a clock inside of what is compiled or recorded would be recorded, too."""

    def through(self, method: Method, lq: Tensor, finish: Callable[[Tensor], Tensor]) -> Tensor:
        """`forward` over (C, H, W), integers or an image, in tiles; `finish` is applied to every piece of the result."""
        network = self.network or method
        if self.around is not None:
            network = self.around(network)

        def pieces_through(pieces: Tensor) -> Tensor:
            # Always laid out alike, as compilers see another layout as another input.
            return network(entering(pieces, method.dtype, self.memory_format))

        return tiled(
            pieces_through,
            lq.to(method.device),
            tile=None if method.tiling == "method" else self.tile,
            halo=method.halo,
            stride=method.stride,
            border=method.border,
            scale=method.scale,
            blend=method.tiling == "global",
            batch=self.batch,
            same_size=self.same_size,
            finish=finish,
            shrunk=self._shrink,
            advanced=self.advanced,
        )

    def _shrink(self, side: int) -> None:
        self.tile = side
