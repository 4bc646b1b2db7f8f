"""PolyU-AISP, third of RAIM 2025 track 1: NAFNet on the rendered frame, in tiles.

    mosaic -> plain rendering -> tiles of 2048 with 64 overlap -> NAFNet, width 32, as for SIDD -> weighted average -> RGB

Report: RAIM 2025 report, supplement, PolyU-AISP: 29 M parameters, "3K" GFLOPs at 4096 x 3072, about 2.8 s on an RTX 4090;
network: NAFNet (Chen et al. 2022) through spandrel.
"""

from spandrel.architectures.NAFNet import NAFNet
from torch import Tensor

from ntire.method import Cost, Method
from ntire.picture.degradations import RawDegradation
from ntire.picture.tiling import overlapping
from ntire.training import Recipe, Stage


class PolyuAisp(Method):
    """NAFNet-SIDD-width32 behind a simple renderer."""

    team = "PolyU-AISP"
    track = "raw"
    cite = "raim2025"
    claimed = Cost(
        source="RAIM 2025 supplement, PolyU-AISP",
        reading="3K GFLOPs are MACs, without tiles",
        params_m=29.0,
        macs_g=3000.0,
        at=(3072, 4096),
        runtime_ms=2800.0,
        runtime_at=(3072, 4096),
        device="RTX 4090",
    )
    tiling = "method"
    halo = 32
    stride = 16
    channels = 3
    caveats = (
        "Only a network on the full-size RGB picture meets the published figures: the frame is rendered first, by a renderer "
        "that the report does not describe.",
        "Tiles of 2048 with 64 overlap and weighted averaging are the report's; the linear ramp is our reading. On 3072 x 4096 "
        "they are six tiles, twice the pixels of the frame.",
        "The report trains on SIDD's pairs, by the protocol of HINet: give them with `--pairs psnr=DIR`; without, the "
        "recipe makes pairs of clean pictures. PSNR as the loss is HINet's; the report's tile width of 32 in training is "
        "read as the network's.",
    )
    recipe = Recipe(
        degradation=RawDegradation(rendered=True),
        stages=(Stage("psnr", iterations=200_000, patch=256, batch=8, lr=1e-3, lr_end=1e-7, losses={"psnr": 1.0}),),
        optimiser="adam",
        source="RAIM 2025 supplement, PolyU-AISP: Adam, 200 K iterations, patch 256, a cosine of 1e-3 to 1e-7; loss as HINet's "
        "program, batch ours",
    )
    tiny = {"width": 8, "depth": 1}
    published_tile = 2048
    published_overlap = 64

    def __init__(self, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        encoder = [depth, depth, 2 * depth, 4 * depth]
        self.net = NAFNet(width=width, enc_blk_nums=encoder, middle_blk_num=6 * depth, dec_blk_nums=[depth] * 4)

    def forward(self, lq: Tensor) -> Tensor:
        restored: Tensor = self.net(lq)
        return restored

    def in_tiles(self, lq: Tensor) -> Tensor:
        lq = lq.to(self.device, self.dtype)
        return overlapping(self, lq[None], tile=self.published_tile, overlap=self.published_overlap)[0].float()
