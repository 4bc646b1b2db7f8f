"""MiAlgo, RAIM 2025 track 2: image detail enhancement, phase 3.

    LQ -> U-Net 8-16-32 whose down and up steps are Haar wavelets, one ResBlock a level -> + LQ

Report: RAIM 2025 report, supplement, MiAlgo (track 2): "0.075 MB", 19.83 GFLOPs at 1024 x 1024, 58.90 ms at 3040 x 4032
on an A100.
"""

from dataclasses import replace

from torch import Tensor, nn

from ntire.method import Cost, Method
from ntire.method.weights_files import Weights
from ntire.picture.degradations import RenderedDegradation, SrgbDegradation
from ntire.teams.parts.residual import ResBlock
from ntire.teams.parts.wavelet import HaarDown, HaarUp, fold_haar
from ntire.training import STEADIED, Constant, Loss, Part, Recipe, Stage

TEXTURE: dict[Loss, float] = {"l2": 1.0, "perceptual": 0.1, "gan": 0.01}
RENDERED = RenderedDegradation()
INHERITED = SrgbDegradation(untouched=0.15)
ALL = (
    Part("inherited", INHERITED),
    Part("rendered", RENDERED),
    Part("portraits", RENDERED, own=True),
)
REBALANCED = tuple(
    replace(part, share=share) for part, share in zip(ALL, (0.1, 0.1, 0.8), strict=True)
)  # fmt: skip


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
    channels_last = True
    caveats = (
        "Widths and levels are a fit that meets the published parameters and GFLOPs in every digit; whether head or "
        "tail is the 1 x 1 convolution is not settled by them.",
        "The report makes its inputs by its track 1 network of phase 2 from noisy raw frames, whose weights are not "
        "public: a plain renderer stands for it. Pairs made with that network, once it is trained, are given with `--pairs "
        "portraits=DIR --pairs rendered=DIR`. The ISO of 100 to 3200 is ours.",
        "The data inherited from phase 2, RAIM 2024's and 50 pairs of 2025 in equal numbers, are given with `--pairs "
        "inherited=DIR`; without, blur, noise and JPEG on clean pictures stand for them, some of which stay as they are.",
        "The 5000 portraits of the report are not public: give your own with `--pictures portraits=DIR`.",
        "Optimiser, and the rate and batch of the first stage, are read as those of the second. That the third and the "
        "fourth stage keep its losses is our reading. The share of the inherited data among the rest is ours.",
        "The network of phase 2 on this track, fine-tuned for 20 K iterations with L2 + 0.1 perceptual + 0.01 GAN + 4 "
        "LPIPS, is not described, and so not here.",
        "The weights that ship had a stage of L1 at a rate of 1e-3, with blur, noise and JPEG on clean pictures.",
        STEADIED,
    )
    recipe = Recipe(
        degradation=RENDERED,
        stages=(
            Stage("l2", 10_000, 512, 32, 1e-5, 1e-5, {"l2": 1.0}, curve=Constant(), parts=ALL),
            Stage("texture", 800_000, 512, 32, 1e-5, 1e-5, TEXTURE, curve=Constant(), parts=ALL),
            Stage("portraits", 40_000, 512, 32, 1e-6, 1e-6, TEXTURE, curve=Constant(), parts=REBALANCED),
            Stage("sharpened", 10_000, 512, 32, 1e-7, 1e-7, TEXTURE, curve=Constant(), parts=REBALANCED, sharpened=0.5),
        ),
        source="RAIM 2025 supplement, MiAlgo track 2: lengths, losses, rates, batch, patch, portraits at 80 %, sharpened "
        "targets",
    ).steadied()
    tiny = {"width": 4}

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.encoder1 = ResBlock(width)
        self.down1 = HaarDown(width, 2 * width, 3)
        self.encoder2 = ResBlock(2 * width)
        self.down2 = HaarDown(2 * width, 4 * width, 3)
        self.bottleneck = ResBlock(4 * width)
        self.up2 = HaarUp(4 * width, 2 * width, 3)
        self.decoder2 = ResBlock(2 * width)
        self.up1 = HaarUp(2 * width, width, 3)
        self.tail = nn.Conv2d(width, 3, 1)

    def deploy(self) -> None:
        fold_haar(self)

    def forward(self, lq: Tensor) -> Tensor:
        level1 = self.encoder1(self.head(lq))
        level2 = self.encoder2(self.down1(level1))
        level3 = self.bottleneck(self.down2(level2))
        level2 = self.decoder2(level2 + self.up2(level3))
        level1 = level1 + self.up1(level2)
        restored: Tensor = lq + self.tail(level1)
        return restored
