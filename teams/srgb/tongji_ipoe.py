"""TongJi-IPOE, third of RAIM 2025 track 2: MSUnet.

    LQ -> U-Net 16-32-64 -> U-Net 16-32-64 -> RGB

Report: RAIM 2025 report, supplement, TongJi-IPOE (track 2): 0.26 M parameters, 54.96 GFLOPs at 1024 x 1024, 15 ms on an A100.
"""

from torch import Tensor

from ntire.method import MIRRORED, Cost, Method
from ntire.method.weights_files import Weights
from ntire.picture.degradations import SrgbDegradation
from ntire.teams.parts.unet import UNet
from ntire.training import STEADIED, Constant, Recipe, Stage


class TongJiIpoe(Method):
    """Two U-Nets in a row."""

    team = "TongJi-IPOE"
    track = "srgb"
    cite = "raim2025"
    claimed = Cost(
        source="RAIM 2025 supplement, TongJi-IPOE track 2",
        reading="GFLOPs are MACs",
        params_m=0.26,
        macs_g=54.96,
        at=(1024, 1024),
        runtime_ms=15.0,
        runtime_at=(1024, 1024),
        device="A100",
    )
    weights = (
        Weights(
            "tongji-ipoe.safetensors",
            sha256="cfd089111ecb6520f63c7bc733ab3f8c201671de3db4f785c21b562b472c5b78",
            license="research and education only, as the BSDS500 pictures it is trained on",
            provenance="retrained",
        ),
    )
    tiling = "exact"
    halo = 52
    stride = 4
    channels_last = True
    border = 8
    caveats = (
        "Widths and layers are a fit that meets the published parameters and GFLOPs in every digit; the LeakyReLU of 0.2 is "
        "our reading. The report calls the sub-network B2FNet in one place, with the whole network's figures.",
        "The report trains on the challenge's pairs alone (`--pairs constant=DIR --pairs cosine=DIR`); without, the recipe "
        "damages clean pictures, some of which it leaves as they are. It gives neither loss nor batch.",
        MIRRORED,
        STEADIED,
    )
    recipe = Recipe(
        degradation=SrgbDegradation(untouched=0.4),
        stages=(
            Stage(
                "constant",
                iterations=92_000,
                patch=128,
                batch=16,
                lr=1e-4,
                lr_end=1e-4,
                losses={"l1": 1.0},
                curve=Constant(),
            ),
            Stage("cosine", iterations=208_000, patch=128, batch=16, lr=1e-4, lr_end=1e-6, losses={"l1": 1.0}),
        ),
        source="RAIM 2025 supplement, TongJi-IPOE: AdamW, lengths, rates, patch; batch, loss and data are ours",
    ).steadied()
    tiny = {"width": 4}

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = UNet(3, 3, width)
        self.second = UNet(3, 3, width)

    def forward(self, lq: Tensor) -> Tensor:
        restored: Tensor = self.second(self.first(lq))
        return restored
