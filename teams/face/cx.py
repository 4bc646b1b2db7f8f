"""CX, seventh of the face challenge 2025: DiffBIR version 2 with an IRControlNet of its own.

    LQ -> SwinIR -> 50 steps of Stable Diffusion 2.1 under the team's IRControlNet -> wavelet colour of SwinIR's picture

Report: NTIRE 2025 real-world face restoration, section 4.7; options as in the team's program.
"""

from dataclasses import replace

from torch import Tensor

from ntire.teams.parts.diffbir import CLEANER, CONTROL_V2, DIFFUSION, NEGATIVE
from ntire.teams.parts.diffbir_faces import DiffBirFace
from ntire.teams.parts.face_pipeline import CHALLENGE, from_the_challenge

CONTROL = replace(
    CONTROL_V2,
    file="cx-0080000.pt",
    urls=(),
    license="none stated",
    by_hand=from_the_challenge(7, "0080000.pt"),
)


class Cx(DiffBirFace):
    """DiffBIR as it is, control retrained by the team."""

    team = "CX"
    cite = "face2025"
    code = CHALLENGE
    weights = tuple(replace(one, into=f"diffbir.{one.into}") for one in (CLEANER, *DIFFUSION, CONTROL))
    caveats = (
        "Each picture begins from seed 231; the original sets it once and draws on from picture to picture, on a GPU.",
        "A part of the program for captions of each picture is commented out at the end: the positive prompt is empty.",
    )

    def forward(self, lq: Tensor) -> Tensor:
        return self.diffbir(
            lq, steps=self.steps, guidance=4.0, strength=1.0, prompt="", negative=NEGATIVE, seed=231, side=self.side
        )
