"""EFDN (Wang 2022): distilled edges, with every edge filter of its training folded into one convolution; the reference of 2025.

    LQ -> conv -> 4 cells, each fused with the second one's features -> + -> conv -> pixel shuffle
    cell: 1x1 -> conv -> conv, a quarter of each kept -> 1x1 -> spatial attention -> +

Written as it is deployed: the branches of edge filters are there in training only, and published weights are without them.
"""

import torch
from torch import Tensor, nn

from ntire.method.weights_files import Weights
from ntire.teams.parts.efficient_sr import REPOSITORIES, PooledNetwork, claim, recipe
from ntire.teams.parts.spatial_attention import SpatialAttention

COMMIT = "b69fb668c0362deb696eecbfdebfaa5c2fcdfcb4"


class _Pointwise(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(channels, channels, 1)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.act(self.conv1x1(x))
        return activated


class _Folded(nn.Module):
    """An edge-enhanced diverse branch block as one convolution (section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rep_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.act(self.rep_conv(x))
        return activated


class DistillationCell(nn.Module):
    """Edge-enhanced feature distillation block (figure 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _Pointwise(channels)
        self.conv2, self.conv3 = _Folded(channels), _Folded(channels)
        self.fuse = nn.Conv2d(2 * channels, channels, 1)
        self.att = SpatialAttention(channels, channels // 4, three=True)
        self.branch = nn.ModuleList(nn.Conv2d(channels, channels // 2, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        kept = [x, self.conv1(x)]
        kept.append(self.conv2(kept[-1]))
        kept.append(self.conv3(kept[-1]))
        distilled = [branch(features) for branch, features in zip(self.branch, kept, strict=True)]
        attended: Tensor = self.att(self.fuse(torch.cat(distilled, 1)))
        return attended + x


class Efdn(PooledNetwork):
    """The reference of the 2025 challenge."""

    team = "EFDN"
    cite = "wang2022efdn"
    code = "https://github.com/icandle/EFDN"
    claimed = claim(0.276, 16.70, "ESR-repository of 2025: 0.276 M, 16.70 G, 111.12 M activations")
    weights = (
        Weights(
            "team00_EFDN.pth", "71069f10ef234cd123f45ac8e69099f0a1fdc0c16afcfe2189e50071d47ce477", "MIT", "official",
            urls=(f"{REPOSITORIES}Amazingren/NTIRE2025_ESR/{COMMIT}/model_zoo/team00_EFDN.pth",), size=1_153_119,
        ),
    )  # fmt: skip
    caveats = ("It is trained here as it is deployed, without the branches that its paper folds after training.",)
    recipe = recipe("EFDN, section 4.1")
    tiny = {"channels": 16}

    def __init__(self, channels: int = 48) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.cells = nn.ModuleList(DistillationCell(channels) for _ in range(4))
        self.local_fuse = nn.ModuleList(nn.Conv2d(2 * channels, channels, 1) for _ in range(3))
        self.tail = nn.Sequential(nn.Conv2d(channels, 3 * self.scale**2, 3, padding=1), nn.PixelShuffle(self.scale))

    def network(self, lq: Tensor) -> Tensor:
        shallow = self.head(lq)
        first = self.cells[0](shallow)
        second = self.cells[1](first)
        third = self.cells[2](self.local_fuse[0](torch.cat([first, second], 1)))
        fourth = self.cells[3](self.local_fuse[1](torch.cat([second, third], 1)))
        deep = self.local_fuse[2](torch.cat([second, fourth], 1))
        restored: Tensor = self.tail(deep + shallow)
        return restored
