"""TeleAI-Vision, second of RAIM 2025 track 2: HAT-S in phase 2, SPAN in phase 3.

    LQ -> HAT-S (distilled from HAT) -> RGB              LQ -> SPAN with 52 channels -> + LQ

Report: RAIM 2025 report, supplement, TeleAI-Vision. Networks: HAT (Chen et al. 2023) and SPAN (Wan et al. 2024) at scale 1,
through spandrel.
"""

import warnings
from typing import Any

from spandrel.architectures.HAT import HAT
from spandrel.architectures.SPAN import SPAN
from torch import Tensor

from ntire.degradations import SrgbDegradation
from ntire.method import Method
from ntire.training import Recipe, Stage

# Real-ESRGAN's kind of degradation, milder: the track's inputs are good already.
DEGRADATION = SrgbDegradation(
    blur_probability=0.7, noise_sigma=(1.0, 30.0), jpeg_probability=0.7, jpeg_quality=(30, 95)
)


class Span(Method):
    """Phase 3: six parameter-free attention blocks, whose threefold convolutions are merged into one after training."""

    team = "TeleAI-Vision"
    track = "srgb"
    variant = "phase3"
    cite = "raim2025"
    tiling = "exact"
    halo = 22
    stride = 1
    caveats = (
        "The report gives neither parameters nor GFLOPs: 52 channels and scale 1 are its words.",
        "SPAN has no residual around it; one is added here, so that the network need not learn the identity.",
        "The report's perceptual, LPIPS and GAN terms and its last fine-tuning on the challenge's pairs are left out.",
    )
    recipe = Recipe(
        degradation=DEGRADATION,
        stages=(Stage("l1", iterations=330_000, patch=128, batch=16, lr=1e-4, lr_end=1e-4, losses={"l1": 1.0}),),
        source="RAIM 2025 supplement, TeleAI-Vision: 330 K iterations of L1 at 1e-4, patch 128; batch is ours",
    )
    tiny = {"width": 8}

    def __init__(self, width: int = 52) -> None:
        super().__init__()
        self.net = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=width, upscale=1, img_range=1.0)

    def forward(self, lq: Tensor) -> Tensor:
        restored: Tensor = lq + self.net(lq)
        return restored

    def deploy(self) -> None:
        """Replace every threefold convolution by the one that it amounts to."""
        merged: list[tuple[Any, str, Any]] = [
            (parent, name, child)
            for parent in self.net.modules()
            for name, child in parent.named_children()
            if hasattr(child, "eval_conv")
        ]
        for parent, name, child in merged:
            child.update_params()
            setattr(parent, name, child.eval_conv)


class HatS(Method):
    """Phase 2: HAT-S."""

    team = "TeleAI-Vision"
    track = "srgb"
    variant = "phase2"
    cite = "raim2025"
    tiling = "global"
    halo = 64
    stride = 16
    caveats = (
        "The report gives neither parameters nor GFLOPs: HAT-S is its word, the numbers are those of HAT's option files.",
        "Its channel attention pools over the whole image: tiles change the result slightly.",
        "The report distils it from HAT-GAN; the recipe here trains it directly.",
    )
    recipe = Recipe(
        degradation=DEGRADATION,
        stages=(Stage("l1", iterations=330_000, patch=128, batch=16, lr=1e-4, lr_end=1e-4, losses={"l1": 1.0}),),
        source="RAIM 2025 supplement, TeleAI-Vision: stage of L1; batch is ours",
    )
    tiny = {"width": 12, "depth": 1}

    def __init__(self, width: int = 144, depth: int = 6) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # spandrel calls torch.meshgrid without its indexing
            self.net = HAT(
                embed_dim=width,
                depths=(depth,) * depth,
                num_heads=(6,) * depth,
                window_size=16,
                compress_ratio=24 if width > 24 else 3,
                squeeze_factor=24 if width > 24 else 3,
                overlap_ratio=0.5,
                mlp_ratio=2,
                upscale=1,
            )

    def forward(self, lq: Tensor) -> Tensor:
        restored: Tensor = self.net(lq)
        return restored
