"""The known answer for every track, and the line that a method must beat."""

from torch import Tensor

from ntire.method import Method


class InputItself(Method, abstract=True):
    """Changes nothing; a track's `Copy` only names its track and its report."""

    team = "Copy"
    tiling = "exact"
    halo = 0
    stride = 1
    caveats = ("Not a team: the input itself, as a baseline.",)

    def forward(self, lq: Tensor) -> Tensor:
        return lq
