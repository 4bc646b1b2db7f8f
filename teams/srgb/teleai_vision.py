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
from ntire.picture.real_esrgan_degradation import Round, SecondOrderDegradation
from ntire.training import Constant, Loss, Recipe, Stage

NOISE = Round(gaussian_probability=0.5, noise_sigma=(0.5, 1.0), poisson_scale=(0.05, 0.1), gray_probability=0.4)
DEGRADATION = SecondOrderDegradation(
    first=NOISE,
    second=replace(
        SecondOrderDegradation.second,
        blur_probability=0.8,
        gaussian_probability=NOISE.gaussian_probability,
        noise_sigma=NOISE.noise_sigma,
        poisson_scale=NOISE.poisson_scale,
        gray_probability=NOISE.gray_probability,
    ),
)
"""Real-ESRGAN's, with the report's noise and second blur."""
COMPOSITE: dict[Loss, float] = {"l1": 1.0, "perceptual": 0.1, "lpips": 4.0, "gan": 0.1}


def _stage(name: str, iterations: int, lr: float, losses: dict[Loss, float], paired: bool = False) -> Stage:
    return Stage(name, iterations, 128, 12, lr, lr, losses, curve=Constant(), paired=paired)


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
        "The report cuts LSDIR's pictures into pieces of 240 pixels, and the challenge's into pieces of 480, and draws "
        "patches of 128 from them; here patches are drawn from whole pictures, each as often. That 128 holds in the last "
        "stage, too, and that the batch of 12 is that of all 8 GPUs together, is our reading.",
        "What the report leaves open of the degradation (kernels, resizing, JPEG, the final filter) has Real-ESRGAN's "
        "published numbers. The text on the second stage breaks off at its rate; read as that of the first.",
    )
    recipe = Recipe(
        degradation=DEGRADATION,
        stages=(
            _stage("l1", 330_000, 1e-4, {"l1": 1.0}),
            _stage("gan", 400_000, 1e-4, COMPOSITE),
            _stage("fine", 10_000, 1e-5, COMPOSITE, paired=True),
        ),
        source="RAIM 2025 supplement, TeleAI-Vision: lengths, losses, rates, patch, batch, nine numbers of the "
        "degradation, the challenge's pairs in the last stage",
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
    caveats: ClassVar[tuple[str, ...]] = (
        "The report gives neither parameters nor GFLOPs: HAT-S is its word, the numbers are those of HAT's option files.",
        "Its channel attention pools over the whole image: tiles change the result slightly.",
        "The report distils it from HAT-GAN without saying how: here by L1 to its result. Length, rate, batch and patch "
        "are ours.",
    )
    recipe: ClassVar[Recipe] = Recipe(
        degradation=DEGRADATION,
        stages=(_stage("distill", 200_000, 1e-4, {"l1": 1.0, "distill": 1.0}, paired=True),),
        source="RAIM 2025 supplement, TeleAI-Vision: the challenge's pairs alone, distillation from HAT-GAN; the rest is ours",
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
        "Of this network's training the report gives the data alone; lengths, rates, batch, patch and losses are those of "
        "phase 3.",
    )
    recipe = Recipe(
        degradation=DEGRADATION,
        stages=(
            _stage("l1", 330_000, 1e-4, {"l1": 1.0}, paired=True),
            _stage("gan", 400_000, 1e-4, COMPOSITE, paired=True),
        ),
        source="RAIM 2025 supplement, TeleAI-Vision: the challenge's pairs alone; the rest is that of phase 3",
    )

    def __init__(self, width: int = 180, depth: int = 6, squeeze: int = 30, compress: int = 3) -> None:
        super().__init__(width, depth, squeeze, compress)
