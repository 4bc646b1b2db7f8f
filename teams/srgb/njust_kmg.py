"""NJUST-KMG, fourth of RAIM 2025 track 2: MW-ISPNet made small.

    LQ -> Haar -> conv, RCA group (16) -> Haar -> conv, group (32) -> Haar -> conv, group (32)
       -> conv, inverse Haar, + -> group -> conv, inverse Haar, + -> group -> conv, + first bands, inverse Haar -> conv -> RGB

Report: RAIM 2025 report, supplement, NJUST-KMG (track 2), whose figures are lost; network: MW-ISPNet (Ignatov et al. 2020, the
AIM challenge on learned ISP), with widths 16, 32, 32 and a single middle layer.
"""

from torch import Tensor, nn

from ntire.method import Method
from ntire.method.weights_files import Weights
from ntire.picture.degradations import SrgbDegradation
from ntire.teams.parts.attention import RCAGroup
from ntire.teams.parts.wavelet import haar, inverse_haar
from ntire.training import Recipe, Stage


class NjustKmg(Method):
    """MW-ISPNet with widths 16, 32, 32."""

    team = "NJUST-KMG"
    track = "srgb"
    cite = "raim2025"
    weights = (
        Weights(
            "njust-kmg.safetensors",
            sha256="e1e93013ed834218e913d257161812e370f415ee395b9b049bb7cc2253d9c7a9",
            license="research and education only, as the BSDS500 pictures it is trained on",
            provenance="retrained",
        ),
    )
    tiling = "global"
    halo = 64
    stride = 8
    caveats = (
        "The report's figures are lost: two blocks a group is our choice for a network that it calls resource-constrained.",
        "Its channel attention pools over the whole image: tiles change the result slightly.",
        "Losses and lengths of the recipe are ours.",
    )
    recipe = Recipe(
        degradation=SrgbDegradation(),
        stages=(Stage("l1", iterations=200_000, patch=128, batch=16, lr=5e-4, lr_end=1e-6, losses={"l1": 1.0}),),
        source="ours: the report's text is lost",
    )
    tiny = {"width": 4, "blocks": 1}

    def __init__(self, width: int = 16, blocks: int = 2) -> None:
        super().__init__()

        def group(width: int) -> RCAGroup:
            return RCAGroup(width, blocks, reduction=16)

        self.down1 = nn.Sequential(nn.Conv2d(12, width, 3, padding=1), nn.PReLU())
        self.encoder1 = group(width)
        self.down2 = nn.Sequential(nn.Conv2d(4 * width, 2 * width, 3, padding=1), nn.PReLU())
        self.encoder2 = group(2 * width)
        self.down3 = nn.Sequential(nn.Conv2d(8 * width, 2 * width, 3, padding=1), nn.PReLU())
        self.middle = group(2 * width)
        self.up3 = nn.Sequential(nn.Conv2d(2 * width, 8 * width, 3, padding=1), nn.PReLU())
        self.decoder2 = group(2 * width)
        self.up2 = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 3, padding=1), nn.PReLU())
        self.decoder1 = group(width)
        self.up1 = nn.Sequential(nn.Conv2d(width, 12, 3, padding=1), nn.PReLU())
        self.tail = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, lq: Tensor) -> Tensor:
        bands = haar(lq)
        level1 = self.encoder1(self.down1(bands))
        level2 = self.encoder2(self.down2(haar(level1)))
        level3 = self.middle(self.down3(haar(level2)))
        level2 = self.decoder2(level2 + inverse_haar(self.up3(level3)))
        level1 = self.decoder1(level1 + inverse_haar(self.up2(level2)))
        restored: Tensor = self.tail(inverse_haar(bands + self.up1(level1)))
        return restored
