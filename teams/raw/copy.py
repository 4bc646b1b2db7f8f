"""Copy: a plain rendering of the raw frame. A known answer for every track, and the line that a method must beat."""

import torch
from torch import Tensor

from ntire.method import Method
from ntire.picture.raw import demosaic, srgb_encode


class Copy(Method):
    """White balance, bilinear demosaicing, colour matrix, sRGB curve; no denoising."""

    team = "Copy"
    track = "raw"
    cite = "raim2025"
    tiling = "exact"
    halo = 2
    stride = 2
    caveats = ("Not a team: the frame itself, demosaiced, as a baseline.",)

    def forward(self, lq: Tensor) -> Tensor:
        return torch.stack([srgb_encode(demosaic(mosaic)) for mosaic in lq])
