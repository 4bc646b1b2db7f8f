"""The known answer for every track, and the line that a method must beat."""

from typing import ClassVar

from torch import Tensor

from ntire.method import Method
from ntire.picture.resize import Kernel, resized


class InputItself(Method, abstract=True):
    """Changes nothing; a track's `Copy` only names its track and its report."""

    team = "Copy"
    tiling = "exact"
    halo = 0
    stride = 1
    caveats = ("Not a team: the input itself, as a baseline.",)

    def forward(self, lq: Tensor) -> Tensor:
        return lq


class Enlarged(Method, abstract=True):
    """The input enlarged by a formula (see `ntire.picture.resize`)."""

    team = "Copy"
    tiling = "exact"
    halo = 2
    stride = 1
    scale = 4
    kernel: ClassVar[Kernel] = "bicubic"
    caveats = ("Not a team: the input enlarged by a formula, as a baseline.",)

    def forward(self, lq: Tensor) -> Tensor:
        return resized(lq.float(), self.scale, self.kernel).to(lq.dtype)
