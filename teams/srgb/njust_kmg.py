"""NJUST-KMG, fourth of RAIM 2025 track 2: MW-ISPNet made small.

    LQ -> Haar -> conv, RCA group (16) -> Haar -> conv, group (32) -> Haar -> conv, group (32)
       -> conv, inverse Haar, + -> group -> conv, inverse Haar, + -> group -> conv, + first bands, inverse Haar -> conv -> RGB

Report: RAIM 2025 report, supplement, NJUST-KMG (track 2), whose figures are lost; network: MW-ISPNet (Ignatov et al. 2020, the
AIM challenge on learned ISP), with widths 16, 32, 32 and a single middle layer.
"""

from typing import ClassVar

from ntire.method import MIRRORED, Method
from ntire.method.weights_files import Weights
from ntire.picture.degradations import SrgbDegradation
from ntire.teams.parts.mwrcan import Mwrcan
from ntire.teams.parts.wavelet import fold_haar
from ntire.training import STEADIED, Recipe, Stage


class NjustKmg(Mwrcan, Method):
    """MW-ISPNet with widths 16, 32, 32."""

    team = "NJUST-KMG"
    track = "srgb"
    cite = "raim2025"
    weights: ClassVar[tuple[Weights, ...]] = (
        Weights(
            "njust-kmg.safetensors",
            sha256="973b177484124f6086496247e8a8236ec3291910514e4f4f1f4cabb45a6362a3",
            license="research and education only, as the BSDS500 pictures it is trained on",
            provenance="retrained",
        ),
    )
    tiling = "global"
    halo = 64
    stride = 8
    channels_last = True
    border = 8
    caveats: ClassVar[tuple[str, ...]] = (
        "The report's text breaks off after the widths and the single middle layer: two blocks a group are our choice for "
        "a network that it calls light, and its data, losses, lengths and rates are lost; the recipe's are ours.",
        "Its channel attention pools over the whole image: tiles change the result slightly.",
        MIRRORED,
        STEADIED,
    )
    recipe = Recipe(
        degradation=SrgbDegradation(untouched=0.15),
        stages=(Stage("l1", iterations=200_000, patch=128, batch=16, lr=5e-4, lr_end=1e-6, losses={"l1": 1.0}),),
        source="ours: the report's text is lost",
    ).steadied()
    tiny = {"width": 4, "blocks": 1}

    def __init__(self, width: int = 16, blocks: int = 2) -> None:
        super().__init__((width, 2 * width, 2 * width), blocks)
        self.begin_as_identity()

    def deploy(self) -> None:
        fold_haar(self)
