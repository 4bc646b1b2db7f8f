"""AIIA, fifth of the face challenge 2025 ("faceRes"): GFPGAN on the faces that it finds, then TSD-SR.

    LQ -> RetinaFace -> GFPGAN 1.3 -> pasted -> TSD-SR in one step -> wavelet colour of the pasted picture -> RGB
       [-> ZSSR to twice the size -> back to the input's]

Report: NTIRE 2025 real-world face restoration, section 4.5; options as in the team's program.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from ntire.method.pyiqa_networks import CLIP_FILE, NIQE_FILE
from ntire.teams.parts import gfpgan, tsd_sr, unaligned
from ntire.teams.parts.face_pipeline import CHALLENGE
from ntire.teams.parts.gfpgan import Gfpgan
from ntire.teams.parts.quality import Quality
from ntire.teams.parts.stable_diffusion import sized
from ntire.teams.parts.tsd_sr import TsdSr
from ntire.teams.parts.unaligned import Unaligned
from ntire.teams.parts.upright_face import UprightFace
from ntire.teams.parts.zssr import Zssr

CAVEATS = (
    "There is no recipe: its networks run as published, and cannot be trained here.",
    "A picture without a face that RetinaFace finds goes to TSD-SR as it is.",
    "Latents are draws with seed 42, anew for each picture; the original runs in fp16 on a GPU and draws otherwise.",
    "Pictures go through 8 bits between the stages in the program, here not.",
    "Stable Diffusion 3 medium is gated: its licence is to be accepted with an account of one's own.",
)


class Aiia(UprightFace):
    """Two stages, as the team's program runs them."""

    team = "AIIA"
    cite = "face2025"
    code = CHALLENGE
    weights = (
        *(replace(one, into=f"unaligned.{one.into}") for one in unaligned.WEIGHTS),
        *(replace(one, into=f"gfpgan.{one.into}") for one in gfpgan.V1_3),
        *(replace(one, into=f"tsd_sr.{one.into}".rstrip(".")) for one in tsd_sr.WEIGHTS),
    )
    caveats: ClassVar[tuple[str, ...]] = (
        *CAVEATS,
        "The team's program calls ZSSR optional, and whether the ranked pictures went through it is not known: here it is the "
        "variant `zssr`.",
    )
    bf16_psnr_db = 15.0
    tiny: ClassVar[dict[str, int]] = {"side": 64, "width": 32, "heads": 1, "vae_width": 32, "rank": 2}

    def __init__(
        self, side: int = 512, width: int = 512, heads: int = 24, vae_width: int = 128, rank: int = tsd_sr.RANK
    ) -> None:
        super().__init__()
        self.side = side
        self.unaligned = Unaligned(side)
        self.gfpgan = Gfpgan(side, width)
        self.tsd_sr = TsdSr(heads, vae_width, rank)

    def face(self, lq: Tensor) -> Tensor:
        restored = self.unaligned(lq, self.gfpgan)
        detailed: Tensor = self.tsd_sr(restored, seed=42, side=self.side)
        return detailed


class AiiaZssr(Aiia):
    """With the program's optional third stage, a small network that learns from each picture itself."""

    variant = "zssr"
    weights = (*Aiia.weights, *(replace(one, into="quality") for one in (CLIP_FILE, NIQE_FILE)))
    caveats = (
        *CAVEATS,
        "ZSSR doubles the size, which the challenge does not take, and the program has no step back: here it is bicubic with "
        "antialiasing.",
        "Its loss has CLIP-IQA in it, and CLIP-IQA and NIQE choose among its results: both are measures of the challenge.",
        "Its network, 0.6 M parameters, learns anew for each picture in 8000 steps; neither is counted.",
        "CLIP-IQA and NIQE come from pyiqa, for non-commercial use.",
    )
    tiny: ClassVar[dict[str, int]] = {**Aiia.tiny, "steps": 2, "judged": 0}

    def __init__(
        self,
        side: int = 512,
        width: int = 512,
        heads: int = 24,
        vae_width: int = 128,
        rank: int = tsd_sr.RANK,
        steps: int = 8000,
        judged: int = 1,
    ) -> None:
        """With `judged` 0 the measures of pyiqa are left out, and the last of the results is taken."""
        super().__init__(side, width, heads, vae_width, rank)
        self.steps = steps
        judge = Judge() if judged else None
        self.quality = judge
        self.zssr = Zssr(width // 8, 8, judge.clip_iqa if judge else None, judge.score if judge else None)

    def face(self, lq: Tensor) -> Tensor:
        detailed = super().face(lq)
        large = [self.zssr(one[None], factor=2, steps=self.steps, patch=self.side // 4) for one in detailed]
        return sized(torch.cat(large), (lq.shape[-2], lq.shape[-1])).to(lq.dtype)


class Judge(Quality):
    """CLIP-IQA, which ZSSR's loss asks for, and NIQE."""

    def __init__(self) -> None:
        super().__init__(("clipiqa", "niqe"))

    def clip_iqa(self, picture: Tensor) -> Tensor:
        return self.measure("clipiqa", picture)

    def score(self, picture: Tensor) -> Tensor:
        """The challenge's formula, as far as the program computes it to choose among its results."""
        clip_iqa, niqe = self(picture)
        total: Tensor = clip_iqa + ((10 - niqe) / 10).clamp(min=0)
        return total
