"""RLFN (Kong et al. 2022): residual local features, and attention from a coarse view; the reference of 2024.

    LQ -> conv -> 4 x (3 convs + residual -> 1x1 -> spatial attention) -> conv -> + -> conv -> pixel shuffle

The network of the 2022 challenge, whose winner it was: 46 channels, 48 inside the blocks. It works on levels of 255.
"""

from torch import Tensor, nn

from ntire.method.weights_files import Weights
from ntire.teams.parts.efficient_sr import REPOSITORIES, PooledNetwork, claim, recipe
from ntire.teams.parts.spatial_attention import SpatialAttention

COMMIT = "bccfde91bf8b2de80789ec033a029e6f2a932330"


class Rlfb(nn.Module):
    """Residual local feature block (figure 2b of the paper), with 16 channels in its attention."""

    def __init__(self, channels: int, inside: int, few: int = 16) -> None:
        super().__init__()
        self.c1_r = nn.Conv2d(channels, inside, 3, padding=1)
        self.c2_r = nn.Conv2d(inside, inside, 3, padding=1)
        self.c3_r = nn.Conv2d(inside, channels, 3, padding=1)
        self.c5 = nn.Conv2d(channels, channels, 1)
        self.esa = SpatialAttention(channels, few, three=False)
        self.act = nn.LeakyReLU(0.05)

    def forward(self, x: Tensor) -> Tensor:
        local = self.act(self.c3_r(self.act(self.c2_r(self.act(self.c1_r(x))))))
        attended: Tensor = self.esa(self.c5(local + x))
        return attended


class Rlfn(PooledNetwork):
    """The reference of the 2024 challenge."""

    team = "RLFN"
    cite = "kong2022rlfn"
    code = "https://github.com/bytedance/RLFN"
    claimed = claim(0.317, 19.67, "ESR-repositories of 2024 and 2025: 0.317 M, 19.67 G, 80.05 M activations")
    weights = (
        Weights(
            "rlfn_ntire_x4.pth", "3c9be7b9d7a4bece9b68c83a56a1ffb38010f76413d5f215be6b4be842e18fb2", "Apache-2.0",
            "official", urls=(f"{REPOSITORIES}bytedance/RLFN/{COMMIT}/model_zoo/rlfn_ntire_x4.pth",), size=1_294_011,
        ),
    )  # fmt: skip
    caveats = ("Its training in three stages with a contrastive loss is not reproduced: L1, then L2.",)
    recipe = recipe("RLFN, section 3.3")
    tiny = {"channels": 12, "inside": 12}

    def __init__(self, channels: int = 46, inside: int = 48) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(3, channels, 3, padding=1)
        self.block_1, self.block_2, self.block_3, self.block_4 = (Rlfb(channels, inside) for _ in range(4))
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsampler = nn.Sequential(
            nn.Conv2d(channels, 3 * self.scale**2, 3, padding=1), nn.PixelShuffle(self.scale)
        )

    def network(self, lq: Tensor) -> Tensor:
        shallow = self.conv_1(255 * lq)
        deep = self.block_4(self.block_3(self.block_2(self.block_1(shallow))))
        levels: Tensor = self.upsampler(self.conv_2(deep) + shallow)
        return levels / 255
