"""SPAN (Wan et al. 2024): attention without parameters weighs features by a function of themselves; the reference of 2026.

    LQ -> conv -> 6 x (3 convs, x (sigmoid - 1/2)) -> conv, joined with three earlier features -> 1x1 -> conv -> pixel shuffle

spandrel has the network. Its threefold convolutions are there in training only: here each is the one convolution that they fold
to, as published weights have it. 28 channels, as in the challenge that it won.
"""

from typing import Any, ClassVar

from spandrel.architectures.SPAN import SPAN
from torch import Tensor, nn

from ntire.method import Cost, Method
from ntire.method.weights_files import Weights
from ntire.teams.parts.efficient_sr import REPOSITORIES, claim, recipe

COMMIT = "4592ce6db68b395699f13e7e2a4e3baf317ef1c6"


class _Folded(nn.Module):
    """Three convolutions and a skip as one; the name is the checkpoint's."""

    def __init__(self, within: int, out: int) -> None:
        super().__init__()
        self.eval_conv = nn.Conv2d(within, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        folded: Tensor = self.eval_conv(x)
        return folded


class Span(Method):
    """The reference of the 2026 challenge, x4."""

    team = "SPAN"
    track = "esr"
    scale = 4
    cite = "wan2024span"
    code = "https://github.com/hongyuanyu/SPAN"
    claimed: ClassVar[Cost | None] = claim(0.151, 9.83, "ESR-repository of 2026: 0.151 M, 9.83 G, 41.68 M activations")
    weights: ClassVar[tuple[Weights, ...]] = (
        Weights(
            "team00_SPAN.pth", "6c80f05048313289c6526e5fc9726688d7bb3dfdd6ae3c8b1e7dd09f601e5971", "MIT", "official",
            into="net", size=618_658,
            urls=(f"{REPOSITORIES}Amazingren/NTIRE2026_ESR/{COMMIT}/model_zoo/team00_SPAN.pth",),
        ),
    )  # fmt: skip
    tiling = "exact"
    halo = 21
    stride = 1
    bf16_psnr_db = 40.0  # it works on levels of 255 around a mean, of which bfloat16 keeps eight bits
    caveats = ("It is trained here as it is deployed, without the branches that its paper folds after training.",)
    recipe = recipe("SPAN, section 4.1")
    tiny = {"channels": 12}

    def __init__(self, channels: int = 28) -> None:
        super().__init__()
        self.net: Any = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=channels, upscale=self.scale)
        blocks = [self.net.get_submodule(f"block_{number}") for number in range(1, 7)]
        for block in blocks:
            block.c1_r, block.c2_r, block.c3_r = (_Folded(channels, channels) for _ in range(3))
        self.net.conv_1, self.net.conv_2 = _Folded(3, channels), _Folded(channels, channels)

    def forward(self, lq: Tensor) -> Tensor:
        restored: Tensor = self.net(lq)
        return restored


class SpanX2(Span):
    """The same network for x2, of which no weights are public."""

    variant = "x2"
    scale = 2
    claimed = None
    weights = ()
    recipe = recipe("SPAN, section 4.1", scale=2)


class SpanReal(Span):
    """For photographs with unknown damage, trained on Real-ESRGAN's, x4."""

    variant = "real"
    claimed = None
    weights = ()
    recipe = recipe("none", real=True)


class SpanRealX2(SpanX2):
    """The same for x2."""

    variant = "real-x2"
    recipe = recipe("none", scale=2, real=True)
