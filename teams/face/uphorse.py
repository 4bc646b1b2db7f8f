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
from teams.parts.released_program import SUPIR_QUALITY, ReleasedProgram
from teams.parts.stable_sr import WEIGHTS as STABLE_SR
from teams.parts.stable_sr import StableSR
from teams.parts.upright_face import UprightFace

TRAINED_CLEANER = replace(
    CLEANER,
    file="uphorse-swinir.pt",
    urls=(),
    size=None,
    prefix="",
    license="none stated",
    by_hand="Get the SwinIR that the team trained from https://huggingface.co/Zmund/team14_DSS.",
)


class UpHorse(UprightFace):
    """DiffBIR and StableSR in ntire; SUPIR, a whole project of its own, as released."""

    team = "UpHorse"
    cite = "face2025"
    code = CHALLENGE
    weights = (
        *(replace(one, into=f"diffbir.{one.into}") for one in (TRAINED_CLEANER, *DIFFUSION, CONTROL_V2)),
        *(replace(one, into=f"stable_sr.{one.into}") for one in STABLE_SR),
    )
    caveats = (
        "SUPIR runs in a clone of its program in $NTIRE_PROGRAMS; it and StableSR are for non-commercial use.",
        "The program runs StableSR in half precision (autocast); here it has the precision of the whole method.",
        "The program overwrites its results for five test pictures, known by name, with the untouched input. Not here.",
        "Pictures go through 8 bits around SUPIR; in the program before StableSR, too.",
        "Each picture begins from seeds 231, 42 and 1234; the original draws on from picture to picture, on a GPU.",
    )
    programs = (SUPIR_QUALITY,)
    tiny = {"width": 32, "steps": 2, "side": 64, "released": 0}

    def __init__(self, width: int = 320, steps: int = 50, side: int = 512, released: int = 1) -> None:
        """With `released` 0 the stage that runs as released is left out; that is not the method."""
        super().__init__()
        self.steps, self.side = steps, side
        self.diffbir = DiffBIR(width)
        self.stable_sr = StableSR(width)
        self.supir = ReleasedProgram(SUPIR_QUALITY) if released else None

    def face(self, lq: Tensor) -> Tensor:
        restored: Tensor = self.diffbir(
            lq, steps=self.steps, guidance=6.0, prompt=LONG_PROMPT, negative=LONG_NEGATIVE, seed=231, side=self.side
        )
        sharper: Tensor = self.stable_sr(restored, steps=4, decoder=0.5, seed=42, side=self.side)
        if self.supir is None:
            return sharper
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
