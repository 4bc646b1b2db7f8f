"""MiAlgo, RAIM 2025 track 2: image detail enhancement, phase 3.

    LQ -> U-Net 8-16-32 whose down and up steps are Haar wavelets, one ResBlock a level -> + LQ

Report: RAIM 2025 report, supplement, MiAlgo (track 2): "0.075 MB", 19.83 GFLOPs at 1024 x 1024, 58.90 ms at 3040 x 4032
on an A100.
"""

from torch import Tensor, nn

from ntire.method import Cost, Method
from ntire.method.weights_files import Weights
from ntire.picture.degradations import SrgbDegradation
from ntire.teams.parts.residual import ResBlock
from ntire.teams.parts.wavelet import haar, inverse_haar
from ntire.training import Recipe, Stage


class MiAlgo(Method):
    """The tiny network of phase 3."""

    team = "MiAlgo"
    track = "srgb"
    variant = "phase3"
    cite = "raim2025"
    claimed = Cost(
        source="RAIM 2025 supplement, MiAlgo track 2 phase 3",
        reading="GFLOPs are 2 x MAC; MB are M parameters",
        params_m=0.075,
        macs_g=19.83 / 2,
        at=(1024, 1024),
        runtime_ms=58.90,
        runtime_at=(3040, 4032),
        device="A100",
    )
    weights = (
        Weights(
            "mialgo-phase3.safetensors",
            sha256="98b91efe7ec5897f745d3ac4b06a7e843f30f0ab3ebce9b942840042e2c574a8",
            license="research and education only, as the BSDS500 pictures it is trained on",
            provenance="retrained",
        ),
    )
    tiling = "exact"
    halo = 36
    stride = 4
    caveats = (
        "Widths and levels are a fit that meets the published parameters and GFLOPs in every digit; whether head or "
        "tail is the 1 x 1 convolution is not settled by them.",
        "The report gives no recipe for this network; ours is an L1 stage, then the losses of phase 2.",
        "The report sharpens its targets by an unsharp mask; the recipe's stay as they are, and so do the weights that ship.",
    )
    recipe = Recipe(
        degradation=SrgbDegradation(),
        stages=(
            Stage("l1", iterations=300_000, patch=128, batch=32, lr=1e-3, lr_end=1e-6, losses={"l1": 1.0}),
            Stage(
                "texture",
                iterations=20_000,
                patch=256,
                batch=8,
                lr=1e-5,
                lr_end=1e-5,
                losses={"l2": 1.0, "perceptual": 0.1, "gan": 0.01, "lpips": 4.0},
            ),
        ),
        source="RAIM 2025 supplement, MiAlgo track 2: the second stage's length, rate and losses; the rest is ours",
    )
    tiny = {"width": 4}

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.encoder1 = ResBlock(width)
        self.down1 = nn.Conv2d(4 * width, 2 * width, 3, padding=1)
        self.encoder2 = ResBlock(2 * width)
        self.down2 = nn.Conv2d(8 * width, 4 * width, 3, padding=1)
        self.bottleneck = ResBlock(4 * width)
        self.up2 = nn.Conv2d(4 * width, 8 * width, 3, padding=1)
        self.decoder2 = ResBlock(2 * width)
        self.up1 = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.tail = nn.Conv2d(width, 3, 1)

    def forward(self, lq: Tensor) -> Tensor:
        level1 = self.encoder1(self.head(lq))
        level2 = self.encoder2(self.down1(haar(level1)))
        level3 = self.bottleneck(self.down2(haar(level2)))
        level2 = self.decoder2(level2 + inverse_haar(self.up2(level3)))
        level1 = level1 + inverse_haar(self.up1(level2))
        restored: Tensor = lq + self.tail(level1)
        return restored
