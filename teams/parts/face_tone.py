"""FaceToneNet, which MiPortrait ends with: a pix2pix U-Net (Isola et al. 2017) whose result is averaged with its input.

39.15 M parameters. The tensors' names are those of the team's checkpoint.
"""

import itertools

import torch
from torch import Tensor, nn

from ntire.method.weights_files import Weights

WEIGHTS = (
    Weights(
        "ftn.pth", None, "none stated", "official", size=157_000_000,
        by_hand="Get it from https://drive.google.com/drive/folders/1hQ3xqaUaDn8TwnfnecLLtqQAXwn6tZgd with a browser.",
    ),
)  # fmt: skip


class FaceTone(nn.Module):
    """`downs` times to half the size and back; sides divisible by 2^downs."""

    def __init__(self, downs: int = 8, width: int = 64) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(downs)]
        block: ToneLevel | None = None
        for outer, inner in reversed(list(itertools.pairwise(widths))):
            block = ToneLevel(outer, inner, block)
        self.model = Outermost(width, block)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W), RGB in [0, 1], to the same."""
        x = image * 2 - 1
        toned: Tensor = (self.model(x) + x) / 2
        return ((toned + 1) / 2).clamp(0, 1)


class Outermost(nn.Module):
    """Down, what is inside, up to a picture in [-1, 1]."""

    def __init__(self, width: int, inside: nn.Module | None) -> None:
        super().__init__()
        deep = width if inside is None else 2 * width
        self.model = nn.Sequential(_halve(3, width), inside or nn.Identity(), nn.ReLU(), _double(deep, 3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        drawn: Tensor = self.model(x)
        return drawn


class ToneLevel(nn.Module):
    """Down, what is inside, up, and what came in beside it: (B, outer, H, W) to (B, 2 outer, H, W)."""

    def __init__(self, outer: int, inner: int, inside: nn.Module | None) -> None:
        super().__init__()
        up = [nn.ReLU(), _double(2 * inner if inside else inner, outer), nn.InstanceNorm2d(outer)]
        down = [nn.LeakyReLU(0.2), _halve(outer, inner)]
        self.model = nn.Sequential(*down, *([nn.InstanceNorm2d(inner), inside] if inside else []), *up)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.model(x)], dim=1)


def _halve(width_in: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(width_in, width, 4, stride=2, padding=1)


def _double(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(width_in, width, 3, padding=1)
    )
