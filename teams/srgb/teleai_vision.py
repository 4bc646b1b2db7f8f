"""TeleAI-Vision, second of RAIM 2025 track 2: HAT-S in phase 2, SPAN in phase 3.

    LQ -> HAT-S (distilled from HAT) -> RGB              LQ -> SPAN with 52 channels -> + LQ

Report: RAIM 2025 report, supplement, TeleAI-Vision. Networks: HAT (Chen et al. 2023) and SPAN (Wan et al. 2024) at scale 1,
through spandrel.
"""

import warnings
from dataclasses import replace
from typing import Any, ClassVar

from spandrel.architectures.HAT import HAT
from spandrel.architectures.SPAN import SPAN
from torch import Tensor

from ntire.method import Method
from ntire.picture.real_esrgan_degradation import SecondOrderDegradation
from ntire.training import Recipe, Stage

STAGES = (
    Stage("l1", iterations=330_000, patch=128, batch=16, lr=1e-4, lr_end=1e-4, losses={"l1": 1.0}),
    Stage(
        "gan",
        iterations=400_000,
        patch=128,
        batch=16,
        lr=1e-4,
        lr_end=1e-4,
        losses={"l1": 1.0, "perceptual": 0.1, "lpips": 4.0, "gan": 0.1},
    ),
    Stage(
        "fine",
        iterations=10_000,
        patch=480,
        batch=4,
        lr=1e-5,
        lr_end=1e-5,
        losses={"l1": 1.0, "perceptual": 0.1, "lpips": 4.0, "gan": 0.1},
    ),
)
SOURCE = "RAIM 2025 supplement, TeleAI-Vision: lengths, losses, patches, Real-ESRGAN's degradation; batches are ours"


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
        "The last stage of the report fine-tunes on the challenge's own pairs; here it stays with synthetic ones.",
        "The degradation has Real-ESRGAN's published numbers; the report's own were not to be had.",
    )
    recipe = Recipe(degradation=SecondOrderDegradation(), stages=STAGES, source=SOURCE)
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
    caveats: ClassVar[tuple[str, ...]] = (
        "The report gives neither parameters nor GFLOPs: HAT-S is its word, the numbers are those of HAT's option files.",
        "Its channel attention pools over the whole image: tiles change the result slightly.",
        "The report distils it from HAT-GAN without saying how: here by L1 to its result in a last stage.",
    )
    recipe = Recipe(
        degradation=SecondOrderDegradation(),
        stages=(*STAGES, replace(STAGES[2], name="distill", losses={"l1": 1.0, "distill": 1.0})),
        source=SOURCE,
        teacher="phase2-teacher",
    )
    tiny = {"width": 12, "depth": 1, "squeeze": 3, "compress": 3}

    def __init__(self, width: int = 144, depth: int = 6, squeeze: int = 24, compress: int = 24) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # spandrel calls torch.meshgrid without its indexing
            self.net = HAT(
                embed_dim=width,
                depths=(depth,) * depth,
                num_heads=(6,) * depth,
                window_size=16,
                compress_ratio=compress,
                squeeze_factor=squeeze,
                overlap_ratio=0.5,
                mlp_ratio=2,
                upscale=1,
            )

    def forward(self, lq: Tensor) -> Tensor:
        restored: Tensor = self.net(lq)
        return restored


class Hat(HatS):
    """HAT, trained as a GAN in phase 2: the teacher of HAT-S."""

    variant = "phase2-teacher"
    caveats = (
        "The report gives neither parameters nor GFLOPs: HAT-GAN is its word, the numbers are those of HAT's option files.",
        "Its channel attention pools over the whole image: tiles change the result slightly.",
    )
    recipe = Recipe(degradation=SecondOrderDegradation(), stages=STAGES, source=SOURCE)

    def __init__(self, width: int = 180, depth: int = 6, squeeze: int = 30, compress: int = 3) -> None:
        super().__init__(width, depth, squeeze, compress)
