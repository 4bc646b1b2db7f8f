"""ACVLab, ninth of the face challenge 2025: GFPGAN on the faces that it finds, Real-ESRGAN behind them, then DiffBIR.

    LQ -> RetinaFace -> GFPGAN 1.4 ┐
       -> Real-ESRGAN x2, halved ──┴ pasted -> SwinIR -> 75 steps of Stable Diffusion 2.1 under IRControlNet -> wavelet colour

Report: NTIRE 2025 real-world face restoration, section 3.1, item 2, and table 1; options as in the team's program.
"""

from dataclasses import replace

from torch import Tensor

from ntire.teams.parts import codeformer, diffbir, gfpgan, real_esrgan, unaligned
from ntire.teams.parts.diffbir import LONG_PROMPT, NEGATIVE, DiffBIR
from ntire.teams.parts.diffbir_faces import CodeFormerDiffBirFace
from ntire.teams.parts.face_pipeline import CHALLENGE
from ntire.teams.parts.gfpgan import Gfpgan
from ntire.teams.parts.real_esrgan import RealEsrgan2x
from ntire.teams.parts.unaligned import Unaligned
from ntire.teams.parts.upright_face import UprightFace

DIFFBIR = tuple(replace(one, into=f"diffbir.{one.into}") for one in diffbir.WEIGHTS)
SAME_SEED = (
    "Each picture begins from seed 231; the original sets it once and draws on from picture to picture, on a GPU."
)


class AcvLabReport(CodeFormerDiffBirFace):
    """As the report's text has it: CodeFormer, then DiffBIR."""

    team = "ACVLab"
    variant = "report"
    cite = "face2025"
    code = CHALLENGE
    weights = (*(replace(one, into=f"codeformer{one.into}") for one in codeformer.WEIGHTS), *DIFFBIR)
    caveats = (
        "CodeFormer's fidelity is not in the report: 0.5, its program's own. The rest is as in the team's program.",
        SAME_SEED,
        "There is no recipe: its networks run as published, and cannot be trained here.",
    )

    def __init__(self, width: int = 320, steps: int = 75, side: int = 512) -> None:
        super().__init__(width, steps, side)

    def face(self, lq: Tensor) -> Tensor:
        return _detailed(self.diffbir, self.codeformer(lq, fidelity=0.5), self.steps, self.side)


class AcvLab(UprightFace):
    """As the program has it."""

    team = "ACVLab"
    variant = "program"
    cite = "face2025"
    code = CHALLENGE
    weights = (
        *(replace(one, into=f"unaligned.{one.into}") for one in unaligned.WEIGHTS),
        *(replace(one, into=f"gfpgan.{one.into}") for one in gfpgan.V1_4),
        *(replace(one, into=f"real_esrgan{one.into}") for one in real_esrgan.WEIGHTS),
        *DIFFBIR,
    )
    caveats = (
        "The report's text has CodeFormer before DiffBIR, the program GFPGAN: the variant `report`, the default, is the "
        "former.",
        "The first merged program crashed; taken is the one that was merged later, after the challenge.",
        "Real-ESRGAN runs in tiles of 400 and half precision in the program, on the whole picture and in float32 here.",
        "GFPGAN's noise is the one stored with its weights, where the program draws it; `weight` changes nothing there.",
        SAME_SEED,
        "There is no recipe: its networks run as published, and cannot be trained here.",
    )
    tiny = {"width": 32, "steps": 2, "side": 64}

    def __init__(self, width: int = 320, steps: int = 75, side: int = 512) -> None:
        super().__init__()
        self.steps, self.side = steps, side
        self.unaligned = Unaligned(side)
        self.gfpgan = Gfpgan(side, width // 10 * 16)
        self.real_esrgan = RealEsrgan2x(width // 5, blocks=23 if width == 320 else 1)
        self.diffbir = DiffBIR(width)

    def face(self, lq: Tensor) -> Tensor:
        background = self.real_esrgan(lq, outscale=1)
        restored = self.unaligned(lq, self.gfpgan, background=background)
        return _detailed(self.diffbir, restored, self.steps, self.side)


def _detailed(stage: DiffBIR, image: Tensor, steps: int, side: int) -> Tensor:
    detailed: Tensor = stage(
        image, steps=steps, guidance=3.0, prompt=LONG_PROMPT, negative=NEGATIVE, seed=231, side=side
    )
    return detailed
