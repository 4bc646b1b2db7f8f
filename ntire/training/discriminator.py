"""The opponent in GAN training: a U-Net that says of every pixel whether it is real."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ntire.method.recipe import Opponent


class UNetDiscriminator(Opponent):
    """Three steps down, three up with skips, spectral norm on the inner convolutions (Wang et al. 2021, Real-ESRGAN).

    4,376,897 parameters at the published width of 64. (B, 3, H, W) from 8 x 8 on to logits (B, 1, H, W).
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()

        def conv(width_in: int, width_out: int, stride: int = 1) -> nn.Module:
            side = 4 if stride == 2 else 3
            return spectral_norm(nn.Conv2d(width_in, width_out, side, stride, padding=1, bias=False))

        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList([conv(width * 2**level, width * 2 ** (level + 1), 2) for level in range(3)])
        self.up = nn.ModuleList([conv(width * 2 ** (level + 1), width * 2**level) for level in (2, 1, 0)])
        self.refine = nn.Sequential(
            conv(width, width),
            nn.LeakyReLU(0.2),
            conv(width, width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 1, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(image), 0.2)
        skips = []
        for down in self.down:
            skips.append(x)
            x = F.leaky_relu(down(x), 0.2)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = F.leaky_relu(up(x), 0.2) + skip
        logits: Tensor = self.refine(x)
        return logits

    def against(self, method: nn.Module, restored: Tensor) -> Tensor:
        """How far this is from taking `restored` (B, 3, H, W) for real."""
        logits = self(restored)
        return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))

    def own(self, method: nn.Module, restored: Tensor, gt: Tensor) -> Tensor:
        """How badly this tells `gt` from `restored`."""
        real, made = self(gt), self(restored)
        loss = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        return loss + F.binary_cross_entropy_with_logits(made, torch.zeros_like(made))
