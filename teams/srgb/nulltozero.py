"""NulltoZero, first of RAIM 2025 track 2: WaveletFusionNet.

    LQ -> wavelet U-Net 12-24-48, at each level a ResGFM and an RCAB -> + LQ

Report: RAIM 2025 report, supplement, NulltoZero: "0.303 MB", 22.58 ms at 1024 x 1024 on an RTX 3090.
"""

from torch import Tensor, nn

from ntire.method import Cost, Method
from ntire.method.weights_files import Weights
from ntire.picture.degradations import SrgbDegradation
from ntire.teams.parts.attention import RCAB, ResGFM
from ntire.teams.parts.hybrid import WaveletUNet
from ntire.training import Recipe, Stage


class WaveletFusionNet(Method):
    """Modulation and attention on wavelet bands."""

    team = "NulltoZero"
    track = "srgb"
    cite = "raim2025"
    claimed = Cost(
        source="RAIM 2025 supplement, NulltoZero",
        reading="MB are M parameters",
        params_m=0.303,
        at=(1024, 1024),
        runtime_ms=22.58,
        runtime_at=(1024, 1024),
        device="RTX 3090",
    )
    weights = (
        Weights(
            "nulltozero.safetensors",
            sha256="8ce6ccab979b65fd16e83d8d247170818e3abe5100bd7a232bb98b1440fe971e",
            license="research and education only, as the BSDS500 pictures it is trained on",
            provenance="retrained",
        ),
    )
    tiling = "global"
    halo = 64
    stride = 4
    caveats = (
        "Only the parameters constrain widths and reductions; other choices give the same number.",
        "Its channel attention pools over the whole image: tiles change the result slightly.",
        "Lengths, rates and the weights of the losses are ours.",
    )
    recipe = Recipe(
        degradation=SrgbDegradation(bilateral_share=0.5),
        stages=(
            Stage(
                "l1",
                iterations=300_000,
                patch=128,
                batch=16,
                lr=1e-3,
                lr_end=1e-6,
                losses={"l1": 1.0, "ssim": 0.1, "lpips": 0.1, "dists": 0.1},
            ),
        ),
        source="RAIM 2025 supplement, NulltoZero: blur or bilateral filtering, several reference losses; numbers are ours",
    )
    tiny = {"width": 4}

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.net = WaveletUNet(3, 3, width, lambda width: nn.Sequential(ResGFM(width, 1), RCAB(width, 4)))

    def forward(self, lq: Tensor) -> Tensor:
        restored: Tensor = lq + self.net(lq)
        return restored
