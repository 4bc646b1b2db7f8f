"""Residual channel attention (RCAN, Zhang et al. 2018) and residual guided feature modulation."""

import torch.nn.functional as F
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """Scales each channel by what all channels are on average over the whole image."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        hidden = max(width // reduction, 1)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x)


class RCAB(nn.Module):
    """x + attention(conv(ReLU(conv(x))))."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            ChannelAttention(width, reduction),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class RCAGroup(nn.Module):
    """x + conv(several RCAB(x))."""

    def __init__(self, width: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *[RCAB(width, reduction) for _ in range(blocks)], nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ResGFM(nn.Module):
    """Residual guided feature modulation: a condition network scales and shifts the features between two convolutions, as a
    spatial feature transform does.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        hidden = width // reduction
        self.condition = nn.Sequential(
            nn.Conv2d(width, hidden, 3, padding=1), nn.LeakyReLU(0.1, inplace=True), nn.Conv2d(hidden, 2 * width, 1)
        )
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.condition(x).chunk(2, dim=1)
        return x + self.conv2(F.relu(self.conv1(x) * (scale + 1) + shift))
