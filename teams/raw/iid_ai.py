"""IID-AI, second of RAIM 2025 track 1: X-Restormer on packed raw.

    mosaic -> pack RGGB -> X-Restormer 4 -> 12 channels, no input skip -> pixel shuffle -> RGB

Report: RAIM 2025 report, supplement, IID-AI (track 1).
"""

from torch import Tensor, nn

from ntire.method import Method
from ntire.picture.degradations import RawDegradation
from ntire.picture.raw import pack
from ntire.teams.parts.x_restormer import x_restormer
from ntire.training import Constant, Loss, Recipe, Stage

LOSSES: dict[Loss, float] = {"l1": 1.0, "fft-scaled": 300.0, "lpips": 0.3}


class IidAi(Method):
    """The one network of both phases."""

    team = "IID-AI"
    track = "raw"
    cite = "raim2025"
    code = None
    tiling = "global"
    halo = 128
    stride = 128
    caveats = (
        "The report gives neither parameters nor GFLOPs; the configuration is that of X-Restormer's option files.",
        "Its channel attention sees the whole image: tiles change the result slightly.",
        "The report does not say how its Fourier loss of weight 300 is scaled; ours divides the spectrum by its pixels.",
        "The report takes 700 frames of its own with a phone, cleanly, develops their targets with the AAHD demosaicing and "
        "degrades them; the recipe makes frames and targets of clean pictures, which need no demosaicing.",
        "The report blurs by the lens's point spread, then shrinks, without numbers; here a Gaussian of 0.3 to 0.7 pixels and "
        "a loss of resolution by a factor of up to 1.5, at the frame's size.",
    )
    recipe = Recipe(
        degradation=RawDegradation(
            iso_levels=(1600.0, 3200.0, 6400.0),
            darkening=(1.0, 1.0),
            blur_probability=1.0,
            shrinking=(1.0, 1.5),
            bits=(10,),
        ),
        stages=(
            Stage(
                "first", iterations=70_000, patch=512, batch=2, lr=1e-4, lr_end=1e-4, losses=LOSSES, curve=Constant()
            ),
            Stage(
                "second", iterations=30_000, patch=512, batch=2, lr=1e-5, lr_end=1e-5, losses=LOSSES, curve=Constant()
            ),
        ),
        optimiser="adam",
        source=(
            "RAIM 2025 supplement, IID-AI: Adam, lengths, patch, batch, rates, L1 + 300 FFT + 0.3 LPIPS, ISO 1600, 3200 and "
            "6400, 10 bits; blur and loss of resolution are ours"
        ),
    )
    tiny = {"width": 8}

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.net = x_restormer(4, 12, width)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, lq: Tensor) -> Tensor:
        return self.shuffle(self.net(pack(lq.clamp(0, 1))))
