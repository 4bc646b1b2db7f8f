"""UpHorse, sixth of the face challenge 2025: three diffusion models in a row.

    LQ -> DiffBIR, its SwinIR trained by the team -> StableSR-turbo -> SUPIR at 1536, and back to 512

Report: NTIRE 2025 real-world face restoration, table 1 and no more; options as in the team's program (DSS).
"""

from dataclasses import replace

from torch import Tensor

from ntire.teams.parts.diffbir import CLEANER, CONTROL_V2, DIFFUSION, LONG_NEGATIVE, LONG_PROMPT, DiffBIR
from ntire.teams.parts.face_pipeline import CHALLENGE
from ntire.teams.parts.face_prompts import CAMERA, PORTRAIT, PORTRAIT_NEGATIVE
from ntire.teams.parts.stable_sr import WEIGHTS as STABLE_SR
from ntire.teams.parts.stable_sr import StableSR
from ntire.teams.parts.supir import WEIGHTS as SUPIR
from ntire.teams.parts.supir import Supir
from ntire.teams.parts.upright_face import UprightFace

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
    """DiffBIR, StableSR and SUPIR."""

    team = "UpHorse"
    cite = "face2025"
    code = CHALLENGE
    weights = (
        *(replace(one, into=f"diffbir.{one.into}") for one in (TRAINED_CLEANER, *DIFFUSION, CONTROL_V2)),
        *(replace(one, into=f"stable_sr.{one.into}") for one in STABLE_SR),
        *(replace(one, into=f"supir.{one.into}") for one in SUPIR),
    )
    caveats = (
        "StableSR and SUPIR are for non-commercial use. They run in the precision of the rest, SUPIR's VAE in float32: the "
        "originals in halves.",
        "The program overwrites its results for five test pictures, known by name, with the untouched input. Not here.",
        "Pictures go through 8 bits between the stages in the program; here they stay as they are.",
        "Each picture begins from seeds 231, 42 and 1234; the original does so in SUPIR only, and draws on a GPU.",
        "There is no recipe: its networks run as published, and cannot be trained here.",
    )
    tiny = {"width": 32, "steps": 2, "side": 64}

    def __init__(self, width: int = 320, steps: int = 50, side: int = 512) -> None:
        super().__init__()
        self.steps, self.side = steps, side
        self.diffbir = DiffBIR(width)
        self.stable_sr = StableSR(width)
        self.supir = Supir(width)

    def face(self, lq: Tensor) -> Tensor:
        restored: Tensor = self.diffbir(
            lq, steps=self.steps, guidance=6.0, prompt=LONG_PROMPT, negative=LONG_NEGATIVE, seed=231, side=self.side
        )
        sharper: Tensor = self.stable_sr(restored, steps=4, decoder=0.5, seed=42, side=self.side)
        large: Tensor = self.supir(
            sharper,
            side=3 * self.side,
            steps=self.steps,
            guidance=7.5,
            guidance_start=4.0,
            churn=5.0,
            noise=1.003,
            seed=1234,
            prompt=f"{PORTRAIT}, {CAMERA}. ",
            negative=f"{PORTRAIT_NEGATIVE}. ",
        )
        return large
