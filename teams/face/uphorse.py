"""UpHorse, sixth of the face challenge 2025: three diffusion models in a row.

    LQ -> DiffBIR, its SwinIR trained by the team -> StableSR-turbo -> SUPIR at 1536, and back to 512

Report: NTIRE 2025 real-world face restoration (DSS); options as in the team's program.
"""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from teams.parts.diffbir import CLEANER, CONTROL_V2, DIFFUSION, LONG_NEGATIVE, LONG_PROMPT, DiffBIR
from teams.parts.face_pipeline import CHALLENGE
from teams.parts.face_prompts import CAMERA, PORTRAIT, PORTRAIT_NEGATIVE
from teams.parts.released_program import STABLE_SR_TURBO, SUPIR_QUALITY, ReleasedProgram
from teams.parts.upright_face import UprightFace

TRAINED_CLEANER = replace(
    CLEANER,
    file="uphorse-swinir.pt",
    urls=(),
    size=90_000_000,
    prefix="",
    license="none stated",
    by_hand="Get `0150000.pt`, the SwinIR that the team trained, from https://huggingface.co/Zmund/team14_DSS.",
)


class UpHorse(UprightFace):
    """DiffBIR in ntire; StableSR and SUPIR, whole projects of their own, as released."""

    team = "UpHorse"
    cite = "face2025"
    code = CHALLENGE
    weights = tuple(replace(one, into=f"diffbir.{one.into}") for one in (TRAINED_CLEANER, *DIFFUSION, CONTROL_V2))
    caveats = (
        "StableSR and SUPIR run in clones of their programs in $NTIRE_PROGRAMS; both are for non-commercial use.",
        "The program overwrites its results for five test pictures, known by name, with the untouched input. Not here.",
        "Pictures go through 8 bits between the stages.",
        "Each picture begins from seeds 231, 42 and 1234; the original draws on from picture to picture, on a GPU.",
    )
    tiny = {"width": 32, "steps": 2, "side": 64, "released": 0}

    def __init__(self, width: int = 320, steps: int = 50, side: int = 512, released: int = 1) -> None:
        """With `released` 0 the two stages that run as released are left out; that is not the method."""
        super().__init__()
        self.steps, self.side = steps, side
        self.diffbir = DiffBIR(width)
        self.stable_sr = ReleasedProgram(STABLE_SR_TURBO) if released else None
        self.supir = ReleasedProgram(SUPIR_QUALITY) if released else None

    def face(self, lq: Tensor) -> Tensor:
        restored: Tensor = self.diffbir(
            lq, steps=self.steps, guidance=6.0, prompt=LONG_PROMPT, negative=LONG_NEGATIVE, seed=231, side=self.side
        )
        if self.stable_sr is None or self.supir is None:
            return restored
        sharper = self.stable_sr(restored, steps=4, decoder=0.5, seed=42)
        large = self.supir(
            sharper,
            side=3 * self.side,
            steps=50,
            guidance=7.5,
            guidance_start=4.0,
            seed=1234,
            prompt=f"{PORTRAIT}, {CAMERA}. ",
            negative=f"{PORTRAIT_NEGATIVE}. ",
        )
        return F.interpolate(large, size=lq.shape[-2:], mode="bicubic", antialias=True)
