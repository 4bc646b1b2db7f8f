"""The small U-Net that TongJi-IPOE stacks on both RAIM tracks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TwoConvs(nn.Sequential):
    """Two 3 x 3 convolutions, each with a LeakyReLU of 0.2."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(width_in, width, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        )


class Encoder(nn.Module):
    """Three levels of widths w, 2w, 4w, with max-pooling between them."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.level1 = TwoConvs(channels, width)
        self.level2 = TwoConvs(width, 2 * width)
        self.level3 = TwoConvs(2 * width, 4 * width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        level1 = self.level1(x)
        level2 = self.level2(F.max_pool2d(level1, 2))
        return level1, level2, self.level3(F.max_pool2d(level2, 2))


class Decoder(nn.Module):
    """Transposed convolutions up, each joined with the features of its level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up2, self.level2 = doubling(4 * width, 2 * width), TwoConvs(4 * width, 2 * width)
        self.up1, self.level1 = doubling(2 * width, width), TwoConvs(2 * width, width)

    def forward(self, level1: Tensor, level2: Tensor, level3: Tensor) -> Tensor:
        level2 = self.level2(torch.cat([self.up2(level3), level2], dim=1))
        decoded: Tensor = self.level1(torch.cat([self.up1(level2), level1], dim=1))
        return decoded


def doubling(width_in: int, width: int) -> nn.ConvTranspose2d:
    """A transposed 3 x 3 convolution to twice the size."""
    return nn.ConvTranspose2d(width_in, width, 3, stride=2, padding=1, output_padding=1)


class UNet(nn.Module):
    """Encoder, decoder, and a 3 x 3 convolution; sizes are multiples of 4."""

    def __init__(self, inputs: int, outputs: int, width: int = 16) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, width)
        self.decoder = Decoder(width)
        self.output = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.decoder(*self.encoder(x)))
