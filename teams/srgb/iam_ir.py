"""iAM-IR, fifth of RAIM 2025 track 2: NAFNet whose gates look both ways.

    LQ -> NAFNet of width 16, one block a level, CrossGate instead of SimpleGate -> + LQ

Report: RAIM 2025 report, supplement, iAM-IR, of which the figure of CrossGate and no number survives; network: NAFNet (Chen et
al. 2022) through spandrel.
"""

import torch
from spandrel.architectures.NAFNet import NAFNet
from torch import Tensor, nn

from ntire.method import Method
from ntire.picture.degradations import SrgbDegradation
from ntire.training import Recipe, Stage


class CrossGate(nn.Module):
    """Each half of the channels gates the other: a sigmoid(b) + b sigmoid(a), in place of SimpleGate's a b."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        return a * torch.sigmoid(b) + b * torch.sigmoid(a)


class IamIr(Method):
    """NAFNet with CrossGate."""

    team = "iAM-IR"
    track = "srgb"
    cite = "raim2025"
    tiling = "global"
    halo = 64
    stride = 16
    caveats = (
        "The report's numbers are lost and CrossGate is known from a figure only: width, depth and formula are our reading.",
        "Its channel attention pools over the whole image: tiles change the result slightly.",
        "The report's text begins in the middle: optimiser, rates, patch, batch and the numbers of its degradation are "
        "lost, and ours.",
        "The report's phase 2 learns from all of the challenge's metrics that compare with a reference: here PSNR, SSIM, "
        "LPIPS and DISTS with the weights of the score of 2024 over 100. Its phase 3 learns from pictures that FeMaSR (x2) "
        "made of the challenge's: make them with its program and give them with `--pairs pseudo=DIR`. Lengths of both are "
        "ours.",
    )
    recipe = Recipe(
        degradation=SrgbDegradation(blur_sigma=(0.3, 1.0), noise_sigma=(1.0, 15.0)),
        stages=(
            Stage("l1", iterations=20_000, patch=128, batch=16, lr=1e-3, lr_end=1e-4, losses={"l1": 1.0}),
            Stage(
                "gan",
                iterations=150_000,
                patch=128,
                batch=16,
                lr=1e-4,
                lr_end=1e-6,
                losses={"l1": 1.0, "perceptual": 1.0, "gan": 0.1},
            ),
            Stage(
                "metrics",
                iterations=20_000,
                patch=128,
                batch=16,
                lr=1e-5,
                lr_end=1e-6,
                losses={"psnr": 0.004, "ssim": 0.3, "lpips": 0.5, "dists": 4 / 3},
                paired=True,
            ),
            Stage(
                "pseudo",
                iterations=20_000,
                patch=128,
                batch=16,
                lr=1e-5,
                lr_end=1e-6,
                losses={"l1": 1.0, "perceptual": 1.5, "gan": 0.2},
                paired=True,
            ),
        ),
        source=(
            "RAIM 2025 supplement, iAM-IR: lengths of l1 and gan, losses of all but metrics, mild first-order degradation, "
            "pairs of the challenge, then targets by FeMaSR; the rest is ours"
        ),
    )
    tiny = {"width": 8}

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.net = NAFNet(width=width, enc_blk_nums=[1, 1, 1], middle_blk_num=1, dec_blk_nums=[1, 1, 1])
        for module in self.net.modules():
            if hasattr(module, "sg"):
                module.sg = CrossGate()

    def forward(self, lq: Tensor) -> Tensor:
        restored: Tensor = self.net(lq)
        return restored
