"""TongJi-IPOE, fourth of RAIM 2025 track 1: B2FNet, which looks at green and at red and blue apart, then fuses them.

    mosaic -> pack -> G, G -> U-Net ─┐ features of each level are added
                   -> R, B -> U-Net ─┴─> fusion U-Net -> transposed convolution to full size -> RGB

Report: RAIM 2025 report, supplement, TongJi-IPOE (track 1): 0.39 M parameters, 23.45 GFLOPs at 1024 x 1024, 8.3 ms on an A100.
"""

import torch
from torch import Tensor, nn

from ntire.method import MIRRORED, Cost, Method
from ntire.method.weights_files import Weights
from ntire.picture.degradations import LAMPS, NIGHT, RawDegradation
from ntire.picture.raw import pack
from ntire.teams.parts.unet import Decoder, Encoder, UNet, doubling
from ntire.training import STEADIED, Constant, Loss, Part, Recipe, Stage

LOSSES: dict[Loss, float] = {"l1": 1.0, "colour": 3.0}
PARTS = (
    Part("day", RawDegradation(), share=0.35),
    Part("night", NIGHT, share=0.35),
    Part("lamps", LAMPS, share=0.3),
)


class B2FNet(Method):
    """Two branches and a fusion network."""

    team = "TongJi-IPOE"
    track = "raw"
    cite = "raim2025"
    claimed = Cost(
        source="RAIM 2025 supplement, TongJi-IPOE track 1",
        reading="GFLOPs are MACs",
        params_m=0.39,
        macs_g=23.45,
        at=(1024, 1024),
        runtime_ms=8.3,
        runtime_at=(1024, 1024),
        device="A100",
    )
    weights = (
        Weights(
            "tongji-ipoe.safetensors",
            sha256="038693892d37a9e97120555c507da5e49f9fdbce2911457f100426ba34e55edb",
            license="research and education only, as the BSDS500 pictures it is trained on",
            provenance="retrained",
        ),
    )
    tiling = "exact"
    halo = 104
    stride = 8
    border = 16
    caveats = (
        "Widths, layers and the way in which branch features enter the fusion are a fit that meets the published figures; a "
        "fit with 2 x 2 transposed convolutions and pixel shuffle meets them as well.",
        "The report has 3 x 3 convolutions alone; the last layer here is 1 x 1, as the fit asks for. The LeakyReLU of 0.2 "
        "is our reading, as the report names no activation.",
        "The report trains on the challenge's frames alone (`--pairs` for pictures); the recipe makes frames of clean "
        "ones, by day and by night. It gives neither loss nor batch: ours are L1 and that of mean colours.",
        MIRRORED,
        STEADIED,
    )
    recipe = Recipe(
        degradation=RawDegradation(),
        stages=(
            Stage(
                "constant",
                iterations=92_000,
                patch=128,
                batch=16,
                lr=1e-4,
                lr_end=1e-4,
                losses=LOSSES,
                parts=PARTS,
                curve=Constant(),
            ),
            Stage("cosine", iterations=208_000, patch=128, batch=16, lr=1e-4, lr_end=1e-6, losses=LOSSES, parts=PARTS),
            Stage(
                "long",
                iterations=300_000,
                patch=128,
                batch=16,
                lr=1e-5,
                lr_end=1e-5,
                losses=LOSSES,
                parts=PARTS,
                curve=Constant(),
            ),
        ),
        source="RAIM 2025 supplement, TongJi-IPOE: AdamW, lengths, rates, patch; batch, loss and data are ours",
    ).steadied()
    tiny = {"width": 4}

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.green = UNet(2, 2, width)
        self.red_blue = UNet(2, 2, width)
        self.encoder = Encoder(4, width)
        self.decoder = Decoder(width)
        self.head = nn.Sequential(
            doubling(width, width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, 3, 1),
        )

    def forward(self, lq: Tensor) -> Tensor:
        red, green1, green2, blue = pack(lq).chunk(4, dim=1)
        green, of_green = self._branch(self.green, torch.cat([green1, green2], dim=1))
        red_blue, of_red_blue = self._branch(self.red_blue, torch.cat([red, blue], dim=1))
        level1, level2, level3 = self.encoder(torch.cat([green, red_blue], dim=1))
        fused = self.decoder(level1 + of_green[0] + of_red_blue[0], level2 + of_green[1] + of_red_blue[1], level3)
        restored: Tensor = self.head(fused)
        return restored

    def _branch(self, network: UNet, planes: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """What a branch restores, and its encoder's features."""
        features = network.encoder(planes)
        return network.output(network.decoder(*features)), features
