"""IPCV, not ranked in the face challenge 2025: FLUX.1 redraws the face under its upscaler's ControlNet, at the same size.

    LQ -> ControlNet, strength 0.6 -> 28 steps of FLUX.1-dev, guidance 3.5, empty prompt -> RGB

Report: NTIRE 2025 real-world face restoration, table 1 and no more; options as in the team's own repository.
"""

from dataclasses import replace

from torch import Tensor

from ntire.teams.parts.face_pipeline import FacePipeline
from ntire.teams.parts.flux_upscaler import WEIGHTS, FluxUpscaler


class Ipcv(FacePipeline):
    """Published models as they are."""

    team = "IPCV"
    cite = "face2025"
    code = "https://github.com/JameerBabu/NTIRE2025_RealWorld_Face_Restoration_IPCV"
    stride = 16
    bf16_psnr_db = 15.0
    weights = tuple(replace(one, into=f"flux.{one.into}") for one in WEIGHTS)
    caveats = (
        "Not ranked: 17 pictures failed the challenge's identity gate.",
        "The original sets no seed, so that no two runs agree; here it is 0 for each picture.",
        "The original runs in bfloat16 (--precision bf16), 37 GB of weights; float32 takes twice that.",
        "FLUX.1-dev is gated and for non-commercial use: its licence is to be accepted with an account of one's own.",
        "There is no recipe: its networks run as published, and cannot be trained here.",
    )
    tiny = {"heads": 1, "layers": 1, "vae_width": 32, "steps": 2}

    def __init__(self, heads: int = 24, layers: int = 19, vae_width: int = 128, steps: int = 28) -> None:
        super().__init__()
        self.steps = steps
        self.flux = FluxUpscaler(heads, layers, vae_width)

    def forward(self, lq: Tensor) -> Tensor:
        return self.flux(lq, steps=self.steps, guidance=3.5, strength=0.6, seed=0)
