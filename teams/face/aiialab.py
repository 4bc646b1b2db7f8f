"""AIIALab, eighth of the face challenge 2025: two experts, one of which restores each picture.

    LQ -> SwinIR -> 50 steps of Stable Diffusion 2.1 under IRControlNet (DiffBIR 1 for faces) -> wavelet colour
    LQ -> CodeFormer, w = 1

Report: NTIRE 2025 real-world face restoration, section 3.1, item 4, and table 1; options as in the team's program (DC-MoE).
"""

from dataclasses import replace

from torch import Tensor

from ntire.teams.parts import codeformer
from ntire.teams.parts.codeformer import CodeFormer
from ntire.teams.parts.diffbir import CLEANER, CONTROL_V1_FACE, DIFFUSION, NEGATIVE
from ntire.teams.parts.diffbir_faces import DiffBirFace
from ntire.teams.parts.face_pipeline import CHALLENGE
from ntire.teams.parts.upright_face import UprightFace

ROUTING = (
    "The report speaks of a gating network, the program has none: it takes CodeFormer for 140 of the 450 test pictures by a "
    "list of their names. Neither is here: name the pictures for each expert yourself, --variant diffbir or codeformer."
)


def _one_of_two(variant: str, other: str) -> str:
    return (
        f"AIIALab: this is one of its two experts, --variant {variant}; the other is --variant {other}. The gate that weighs "
        "and fuses them is not public, so neither makes its row of the report's table; choose the expert for each picture."
    )


class AiiaLabDiffBir(DiffBirFace):
    """The expert for details."""

    team = "AIIALab"
    variant = "diffbir"
    cite = "face2025"
    code = CHALLENGE
    weights = tuple(replace(one, into=f"diffbir.{one.into}") for one in (CLEANER, *DIFFUSION, CONTROL_V1_FACE))
    notice = _one_of_two("diffbir", "codeformer")
    caveats = (
        ROUTING,
        "Each picture begins from seed 231; the original sets it once and draws on from picture to picture, on a GPU.",
        "There is no recipe: its networks run as published, and cannot be trained here.",
    )

    def forward(self, lq: Tensor) -> Tensor:
        detailed: Tensor = self.diffbir(lq, steps=self.steps, guidance=4.0, negative=NEGATIVE, seed=231, side=self.side)
        return detailed


class AiiaLabCodeFormer(UprightFace):
    """The expert for faces that must stay who they are."""

    team = "AIIALab"
    variant = "codeformer"
    cite = "face2025"
    code = CHALLENGE
    weights = tuple(replace(one, into=f"codeformer{one.into}") for one in codeformer.WEIGHTS)
    notice = _one_of_two("codeformer", "diffbir")
    caveats = (
        ROUTING,
        "The program writes this expert's pictures as JPEG and calls them .png; here they are PNGs.",
        "There is no recipe: its networks run as published, and cannot be trained here.",
    )
    tiny = {"width": 8, "side": 64}

    def __init__(self, width: int = 64, side: int = 512) -> None:
        super().__init__()
        self.side = side
        self.codeformer = CodeFormer(side, width)

    def face(self, lq: Tensor) -> Tensor:
        restored: Tensor = self.codeformer(lq, fidelity=1.0)
        return restored
