"""Enhanced spatial attention (Liu et al. 2020, RFANet): a mask from a coarse view of the features.

    x -> 1x1 -> conv, stride 2 -> max pool 7, stride 3 -> convs -> enlarged, + skip of the 1x1 -> 1x1 -> sigmoid -> times x

Where the coarse cells lie depends on the size of the picture, so no tile gives quite what the whole does.
"""

import torch.nn.functional as F
from torch import Tensor, nn

LEAST_SIDE = 15
"""Pixels: a stride of 2 over 3 pixels, then a pool of 7, need so many."""


class SpatialAttention(nn.Module):
    """Layers between pooling and enlarging: one, or three with ReLU between them. Names are the checkpoints'."""

    def __init__(self, channels: int, few: int, *, three: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, few, 1)
        self.conv_f = nn.Conv2d(few, few, 1)
        self.conv2 = nn.Conv2d(few, few, 3, stride=2)
        if three:
            self.conv_max = nn.Conv2d(few, few, 3, padding=1)
        self.conv3 = nn.Conv2d(few, few, 3, padding=1)
        if three:
            self.conv3_ = nn.Conv2d(few, few, 3, padding=1)
        self.conv4 = nn.Conv2d(few, channels, 1)
        self.three = three

    def forward(self, x: Tensor) -> Tensor:
        few = self.conv1(x)
        coarse = F.max_pool2d(self.conv2(few), kernel_size=7, stride=3)
        coarse = self.conv3_(F.relu(self.conv3(F.relu(self.conv_max(coarse))))) if self.three else self.conv3(coarse)
        fine = F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)
        mask: Tensor = self.conv4(fine + self.conv_f(few)).sigmoid()
        return x * mask
