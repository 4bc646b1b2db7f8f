"""The wavelet U-Net of NJUST-KMG's raw entry and of NulltoZero, which differ in their groups and their ends."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ntire.teams.parts.wavelet import HaarDown, HaarUp


class WaveletUNet(nn.Module):
    """Three levels of widths w, 2w, 4w; Haar bands are fused by 1 x 1 convolutions on the way down and up, skips are joined.

    `group` makes the blocks of a level from its width. Sizes are multiples of 4.
    """

    def __init__(self, inputs: int, outputs: int, width: int, group: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.encoder1 = group(width)
        self.down1 = HaarDown(width, 2 * width, 1)
        self.encoder2 = group(2 * width)
        self.down2 = HaarDown(2 * width, 4 * width, 1)
        self.encoder3 = group(4 * width)
        self.bottleneck = group(4 * width)
        self.up2 = HaarUp(4 * width, 2 * width, 1)
        self.fuse2 = nn.Conv2d(4 * width, 2 * width, 1)
        self.decoder2 = group(2 * width)
        self.up1 = HaarUp(2 * width, width, 1)
        self.fuse1 = nn.Conv2d(2 * width, width, 1)
        self.decoder1 = group(width)
        self.tail = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        level1 = self.encoder1(self.head(x))
        level2 = self.encoder2(self.down1(level1))
        level3 = self.bottleneck(self.encoder3(self.down2(level2)))
        level2 = self.decoder2(self.fuse2(torch.cat([self.up2(level3), level2], dim=1)))
        level1 = self.decoder1(self.fuse1(torch.cat([self.up1(level2), level1], dim=1)))
        return self.tail(level1)
