"""MiAlgo, first of RAIM 2025 track 1: joint denoising and demosaicing of night frames, phases 3 and 2.

    mosaic -> gamma, pack RGGB -> U-Net 56-112-224 with two Restormer blocks at the bottom -> pixel shuffle -> RGB

Report: RAIM 2025 report, supplement, MiAlgo (track 1): a light U-Net of basic transformer blocks with two Restormer modules in
the bottleneck, MWRCAN as the generator of the second stage, 4.62 M parameters, 372.09 GFLOPs at 1024 x 1024, 320 ms at
3072 x 4096 on an A100.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from ntire.method import MIRRORED, Cost, Method
from ntire.method.weights_files import Weights
from ntire.picture.degradations import RawDegradation
from ntire.picture.raw import pack
from ntire.teams.parts.mwrcan import Mwrcan
from ntire.teams.parts.residual import ResBlock
from ntire.teams.parts.restormer import RestormerBlock, restormer
from ntire.teams.parts.wavelet import fold_haar
from ntire.training import STEADIED, Constant, Recipe, Stage

SENSOR = RawDegradation(shrinking=(1.0, 1.5))
"""Gamma, white balance, colour matrix, blur, loss of resolution, ISO noise with darkening and digital gain, bad pixels."""
L1 = Stage("l1", iterations=300_000, patch=256, batch=32, lr=3e-4, lr_end=1e-6, losses={"l1": 1.0})
QUALITY = Stage(
    "quality",
    iterations=100_000,
    patch=512,
    batch=8,
    lr=1e-5,
    lr_end=1e-6,
    losses={"l2": 1.0, "perceptual": 0.1, "lpips": 0.1, "ssim": 0.1},
)
TEXTURE = Stage(
    "texture",
    iterations=100_000,
    patch=512,
    batch=8,
    lr=1e-5,
    lr_end=1e-5,
    losses={"l2": 1.0, "perceptual": 0.1, "gan": 0.01, "lpips": 4.0},
    curve=Constant(),
)
SOURCE = (
    "RAIM 2025 supplement, MiAlgo track 1: lengths and patches of l1 and quality, all losses, the rate of texture; other "
    "rates, batches and the length of texture are ours"
)
DATA = (
    "The report trains on the official pairs and 1200 pictures of its own, 200 of them night portraits; the recipe makes "
    "frames of any clean pictures (`--pairs` for real ones). Its down-sampling is read as loss of resolution, by a factor "
    "of up to 1.5."
)


class UpStep(nn.Module):
    """Double the size, halve the channels, join the encoder's features of that level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.fuse = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.fuse(torch.cat([self.up(x), skip], dim=1))


class MiAlgo(Method):
    """The compressed network of phase 3."""

    team = "MiAlgo"
    track = "raw"
    variant = "phase3"
    cite = "raim2025"
    claimed = Cost(
        source="RAIM 2025 supplement, MiAlgo track 1 phase 3",
        reading="GFLOPs are 2 x MAC, attention included",
        params_m=4.62,
        macs_g=372.09 / 2,
        at=(1024, 1024),
        runtime_ms=320.0,
        runtime_at=(3072, 4096),
        device="A100",
    )
    weights = (
        Weights(
            "mialgo-phase3.safetensors",
            sha256="f27dd4f176336e394a0b1b5b66b03642d1a53f763f351ecfb1c1667bc93eb513",
            license="research and education only, as the BSDS500 pictures it is trained on",
            provenance="retrained",
        ),
    )
    tiling = "global"
    halo = 64
    stride = 8
    border = 8
    caveats = (
        "Widths, levels and block counts are a fit to the published parameters and GFLOPs: the report gives the idea.",
        "The report builds its light U-Net of basic transformer blocks; residual blocks of convolutions stand for them "
        "here, the two in the bottleneck apart: they meet the published figures.",
        "The report names MWRCAN as the generator of its second stage: the variant phase3-mwrcan has one; this is the "
        "first stage alone, which meets the published figures by itself.",
        "The gamma of 1/2.2 in front of the network is our reading: the report does not say in which domain it works.",
        "Transposed attention sees the whole image: tiles change the result slightly.",
        "The report distils this network from phase 2 without saying how: here by L1 to its result, in a last stage as long as "
        "the one before it. The weights that ship had the stage l1 alone, of data without loss of resolution.",
        DATA,
        MIRRORED,
        STEADIED,
    )
    recipe = Recipe(
        degradation=SENSOR,
        stages=(
            L1,
            QUALITY,
            replace(QUALITY, name="distill", lr=1e-5, losses={"l1": 1.0, "distill": 1.0}),
        ),
        source=SOURCE,
        teacher="phase2",
    ).steadied()
    tiny = {"width": 8}

    def __init__(self, width: int = 56) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, width, 3, padding=1)
        self.encoder1 = nn.Sequential(ResBlock(width), ResBlock(width))
        self.down1 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.encoder2 = nn.Sequential(ResBlock(2 * width), ResBlock(2 * width))
        self.down2 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)
        self.bottleneck = nn.Sequential(
            ResBlock(4 * width),
            RestormerBlock(4 * width, heads=4),
            RestormerBlock(4 * width, heads=4),
            ResBlock(4 * width),
        )
        self.up2 = UpStep(2 * width)
        self.decoder2 = nn.Sequential(ResBlock(2 * width), ResBlock(2 * width))
        self.up1 = UpStep(width)
        self.decoder1 = nn.Sequential(ResBlock(width), ResBlock(width))
        self.tail = nn.Sequential(nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, lq: Tensor) -> Tensor:
        level1 = self.encoder1(self.head(pack(lq.clamp(0, 1).pow(1 / 2.2))))
        level2 = self.encoder2(self.down1(level1))
        level3 = self.bottleneck(self.down2(level2))
        level2 = self.decoder2(self.up2(level3, level2))
        level1 = self.decoder1(self.up1(level2, level1))
        restored: Tensor = self.tail(level1)
        return restored


class MiAlgoTwoStages(Method):
    """Phase 3 with the second stage that the report names: a joint network, and an MWRCAN that adds texture to its picture.

    mosaic -> U-Net 52-104-208 as in phase3 -> MWRCAN 16-32-64, + -> RGB
    """

    team = "MiAlgo"
    track = "raw"
    variant = "phase3-mwrcan"
    cite = "raim2025"
    claimed = MiAlgo.claimed
    tiling = "global"
    halo = 64
    stride = 8
    caveats = (
        "Widths and block counts are a fit: two such stages meet the published parameters and GFLOPs as the first one alone, a "
        "little wider, does (phase3); the report does not say which of them its figures count.",
        "The report builds its light U-Net of basic transformer blocks; residual blocks of convolutions stand for them here.",
        "That the generator adds to the first stage's picture is our reading.",
        "The report begins the generator with the first stage's parameters, which an MWRCAN cannot take: here its last layer "
        "begins at zero, so that training begins with the first stage's picture.",
        "The gamma of 1/2.2 in front of the network is our reading: the report does not say in which domain it works.",
        "Transposed attention and pooling see the whole image: tiles change the result slightly.",
        DATA,
        STEADIED,
    )
    recipe = Recipe(degradation=SENSOR, stages=(L1, QUALITY, TEXTURE), source=SOURCE).steadied()
    tiny = {"width": 8}

    def __init__(self, width: int = 52) -> None:
        super().__init__()
        self.joint = MiAlgo(width)
        self.generator = Mwrcan((16, 32, 64), blocks=3)
        for parameter in self.generator.tail.parameters():
            nn.init.zeros_(parameter)
        self._refining = True

    def deploy(self) -> None:
        fold_haar(self)

    def begin_stage(self, name: str) -> None:
        self._refining = name == TEXTURE.name
        self.joint.requires_grad_(not self._refining)

    def forward(self, lq: Tensor) -> Tensor:
        picture: Tensor = self.joint(lq)
        return picture + self.generator(picture) if self._refining else picture


class MiAlgoPhase2(Method):
    """The two-stage network of phase 2: a Restormer that denoises and demosaics, and one that refines its picture.

    mosaic -> gamma, pack RGGB -> Restormer 4 -> 12 -> pixel shuffle -> Restormer 3 -> 3, + -> RGB
    """

    team = "MiAlgo"
    track = "raw"
    variant = "phase2"
    cite = "raim2025"
    claimed = Cost(
        source="RAIM 2025 supplement, MiAlgo track 1 phase 2",
        reading="no reading of the GFLOPs fits; the unit is not stated",
        params_m=52.24,
        macs_g=5351.47 / 2,
        at=(1024, 1024),
        runtime_ms=2651.0,
        device="A100",
        unmatched=("macs_g",),
    )
    tiling = "global"
    halo = 64
    stride = 16
    caveats = (
        "Two stock Restormers meet the parameters; no natural reading meets the GFLOPs: ours count 5644 as 2 x the MACs of "
        "convolutions (+5.5 %), 6200 with attention.",
        "Transposed attention sees the whole image: tiles change the result slightly.",
        "The report begins the second network with the first one's parameters: what fits is copied when the stage texture "
        "begins, its first layer takes the two greens together, and its last begins at zero.",
        "The gamma of 1/2.2 in front of the network, and that the second network adds to the first one's picture, are our "
        "reading.",
        DATA,
        STEADIED,
    )
    recipe = Recipe(degradation=SENSOR, stages=(replace(L1, batch=8), QUALITY, TEXTURE), source=SOURCE).steadied()
    tiny = {"width": 8}

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.joint = restormer(4, 12, width)
        self.shuffle = nn.PixelShuffle(2)
        self.refine = restormer(3, 3, width)
        self._refining = True

    def begin_stage(self, name: str) -> None:
        self._refining = name == TEXTURE.name
        self.joint.requires_grad_(not self._refining)

    @torch.no_grad()
    def enter_stage(self, name: str) -> None:
        """Begin the second network with the first one's parameters."""
        if name != TEXTURE.name:
            return
        ours, joint = self.refine.state_dict(), self.joint.state_dict()
        for key, value in ours.items():
            if value.shape == joint[key].shape:
                value.copy_(joint[key])
        red, green1, green2, blue = joint["patch_embed.proj.weight"].unbind(1)
        ours["patch_embed.proj.weight"].copy_(torch.stack([red, green1 + green2, blue], dim=1))
        ours["output.weight"].zero_()

    def forward(self, lq: Tensor) -> Tensor:
        picture: Tensor = self.shuffle(self.joint(pack(lq.clamp(0, 1).pow(1 / 2.2))))
        return picture + self.refine(picture) if self._refining else picture
