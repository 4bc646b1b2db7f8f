"""Copy: the input itself. A known answer for every track, and the line that a method must beat."""

from torch import Tensor

from ntire.method import Method


class Copy(Method):
    """Changes nothing."""

    team = "Copy"
    track = "srgb"
    cite = "raim2025"
    tiling = "exact"
    halo = 0
    stride = 1
    caveats = ("Not a team: the input itself, as a baseline.",)

    def forward(self, lq: Tensor) -> Tensor:
        return lq
