"""FFA-Net (Qin et al. 2020): takes haze out with attention to channels and to pixels; 4.46 M parameters.

    x -> conv -> group -> group -> group -> weights of the groups -> attention to pixels -> conv -> conv -> + x
                   └────────┴────────┴──────────── (channels of all three) ┘                      (figure 2)

Written from the paper; the released code has no licence. The names are the released checkpoint's.
"""

import torch
from torch import Tensor, nn

from ntire.method.weights_files import Weights

MEAN, DEVIATION = (0.64, 0.6, 0.58), (0.14, 0.15, 0.152)
"""Of the hazy pictures that it was trained on; what it gives back is a plain picture."""
WEIGHTS = (
    Weights(
        "ots_train_ffa_3_19.pk", None, "none stated", "official", prefix="module.",
        by_hand="Get it with a browser from https://pan.baidu.com/s/1-pgSXN6-NXLzmTp21L_qIg (code 4gat), or from MiPortrait's "
        "https://drive.google.com/drive/folders/1hQ3xqaUaDn8TwnfnecLLtqQAXwn6tZgd.",
    ),
)  # fmt: skip
"""Trained outdoors."""


class FfaNet(nn.Module):
    """Three groups of `blocks` blocks."""

    def __init__(self, blocks: int = 19, width: int = 64) -> None:
        super().__init__()
        self.pre = nn.Sequential(nn.Conv2d(3, width, 3, padding=1))
        self.g1, self.g2, self.g3 = (FfaGroup(width, blocks) for _ in range(3))
        narrow = max(width // 16, 1)
        self.ca = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(3 * width, narrow, 1),
            nn.ReLU(),
            nn.Conv2d(narrow, 3 * width, 1),
            nn.Sigmoid(),
        )
        self.palayer = PixelAttention(width)
        self.post = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W), RGB in [0, 1], to the same."""
        mean, deviation = (image.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
        hazy = (image - mean) / deviation
        first = self.g1(self.pre(hazy))
        second = self.g2(first)
        third = self.g3(second)
        shares = self.ca(torch.cat([first, second, third], dim=1)).chunk(3, dim=1)
        mixed = shares[0] * first + shares[1] * second + shares[2] * third
        restored: Tensor = self.post(self.palayer(mixed)) + hazy
        return restored.clamp(0, 1)


class FfaGroup(nn.Module):
    """Blocks and a convolution, added to what came in."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.gp = nn.Sequential(*(FfaBlock(width) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.gp(x)
        return x + added


class FfaBlock(nn.Module):
    """Two convolutions with local residuals, then attention to channels and to pixels (figure 4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.calayer, self.palayer = ChannelGate(width), PixelAttention(width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(x).relu() + x
        added: Tensor = self.palayer(self.calayer(self.conv2(inner)))
        return x + added


class ChannelGate(nn.Module):
    """A share for each channel from its mean (eq. 2 to 4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = max(width // 8, 1)
        self.ca = nn.Sequential(nn.Conv2d(width, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        share: Tensor = self.ca(x.mean((2, 3), keepdim=True))
        return x * share


class PixelAttention(nn.Module):
    """A share for each pixel (eq. 5 and 6)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = max(width // 8, 1)
        self.pa = nn.Sequential(nn.Conv2d(width, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        share: Tensor = self.pa(x)
        return x * share
