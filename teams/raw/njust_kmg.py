"""NJUST-KMG, fifth of RAIM 2025 track 1: a wavelet U-Net of hybrid groups.

    mosaic -> pack RGGB -> wavelet U-Net 12-24-48, groups of ResGFM and RCA blocks in turn -> pixel shuffle -> RGB

Report: RAIM 2025 report, supplement, NJUST-KMG (track 1): 0.83 M parameters, trained in 4 h on an RTX 3090.
"""

from torch import Tensor, nn

from ntire.method import MIRRORED, Cost, Method
from ntire.method.weights_files import Weights
from ntire.picture.degradations import LAMPS, NIGHT, RawDegradation
from ntire.picture.raw import pack
from ntire.teams.parts.attention import RCAB, ResGFM
from ntire.teams.parts.hybrid import WaveletUNet
from ntire.teams.parts.wavelet import fold_haar
from ntire.training import STEADIED, Loss, Part, Recipe, Stage

LOSSES: dict[Loss, float] = {"l1": 1.0, "ssim": 0.1, "lpips": 0.1, "dists": 0.1}
HEAVY = RawDegradation(
    iso=(3200.0, 9600.0),
    blur_probability=0.5,
    blur_sigma=(0.6, 1.2),
    blur_sides=(3, 5, 7),
    channel_gain=(0.8, 1.2),
)
LIGHT = RawDegradation(iso=(100.0, 6400.0), blur_probability=0.1, blur_sigma=(0.6, 1.2), blur_sides=(3, 5, 7))


class HybridGroup(nn.Module):
    """x + conv(three times ResGFM and RCAB)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        pairs = [nn.Sequential(ResGFM(width, 2), RCAB(width, 8)) for _ in range(3)]
        self.body = nn.Sequential(*pairs, nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class NjustKmg(Method):
    """Hybrid groups on wavelet bands."""

    team = "NJUST-KMG"
    track = "raw"
    cite = "raim2025"
    claimed = Cost(source="RAIM 2025 supplement, NJUST-KMG track 1", params_m=0.83, at=(1024, 1024))
    weights = (
        Weights(
            "njust-kmg.safetensors",
            sha256="82284d2cd988fb86ecf89c6019e98ad9b4b1f2d97be3980f5fb5334952e09906",
            license="research and education only, as the BSDS500 pictures it is trained on",
            provenance="retrained",
        ),
    )
    tiling = "global"
    halo = 64
    stride = 8
    channels_last = True
    border = 16
    caveats = (
        "Only the parameters constrain widths, group length and reductions; other choices give the same number.",
        "Its channel attention pools over the whole image: tiles change the result slightly.",
        "1 x 1 convolutions around the wavelets are our reading, as the report gives the modules' names alone.",
        "The report amplifies noise by 20 to 30 in its first phase; left out here: with the noise model here it leaves "
        "little but noise.",
        "The report trains in two phases, with heavy, then lighter augmentations; the lighter ones, lengths, rates and the "
        "weights of the losses are ours, as it gives none, and so is that half of the pictures are blurred.",
        "The report trains on 160 pictures of SIDD, SID and its own; the recipe makes frames of any clean pictures. The "
        "weights that ship had one phase of blurs of 0.8 to 1.4, then the light one by day and by night with a loss on mean "
        "colours, neither LPIPS nor DISTS: the card tells.",
        MIRRORED,
        STEADIED,
    )
    recipe = Recipe(
        degradation=HEAVY,
        stages=(
            Stage("heavy", iterations=150_000, patch=128, batch=8, lr=5e-4, lr_end=1e-5, losses=LOSSES),
            Stage(
                "light",
                iterations=50_000,
                patch=128,
                batch=8,
                lr=1e-4,
                lr_end=1e-6,
                losses=LOSSES,
                parts=(
                    Part("day", LIGHT, share=0.35),
                    Part("night", NIGHT, share=0.35),
                    Part("lamps", LAMPS, share=0.3),
                ),
            ),
        ),
        source=(
            "RAIM 2025 supplement, NJUST-KMG: two phases, ISO 3200 to 9600, kernels of 3 to 7 and sigmas of 0.6 to 1.2, "
            "gains of 0.8 to 1.2, the losses; their weights, lengths, rates and the light augmentations are ours"
        ),
    ).steadied()
    tiny = {"width": 4}

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.net = WaveletUNet(4, 12, width, HybridGroup)
        self.shuffle = nn.PixelShuffle(2)

    def deploy(self) -> None:
        fold_haar(self)

    def forward(self, lq: Tensor) -> Tensor:
        return self.shuffle(self.net(pack(lq.clamp(0, 1).pow(1 / 2.2))))
