"""HH, tenth of the face challenge 2025: CodeFormer as true to the input as it can be, then DiffBIR version 2.

    LQ -> CodeFormer, w = 1 -> SwinIR -> 50 steps of Stable Diffusion 2.1 under IRControlNet -> wavelet colour

Report: NTIRE 2025 real-world face restoration, table 1 and no more; options as in the team's program.
"""

from dataclasses import replace

from torch import Tensor

from ntire.teams.parts import codeformer, diffbir
from ntire.teams.parts.diffbir_faces import CodeFormerDiffBirFace
from ntire.teams.parts.face_pipeline import CHALLENGE

PROMPT = "Good image, Sharp image, sharp edges, High resolution image, Noise-free image"
NEGATIVE = "bad image, blurry image, blurry edges, low resolution image, noisy image"


class Hh(CodeFormerDiffBirFace):
    """Both as they are published; the prompts are the words that CLIP-IQA asks for."""

    team = "HH"
    cite = "face2025"
    code = CHALLENGE
    weights = (
        *(replace(one, into=f"codeformer{one.into}") for one in codeformer.WEIGHTS),
        *(replace(one, into=f"diffbir.{one.into}") for one in diffbir.WEIGHTS),
    )
    caveats = (
        "Its prompts are, word for word, what the challenge's metric CLIP-IQA compares a picture with.",
        "The program runs DiffBIR in half precision (--precision fp16); float32 is the exact reading here.",
        "CodeFormer's result is written to 8 bits before DiffBIR in the program; here it stays as it is.",
        "Each picture begins from seed 231; the original sets it once and draws on from picture to picture, on a GPU.",
        "There is no recipe: its networks run as published, and cannot be trained here.",
    )

    def face(self, lq: Tensor) -> Tensor:
        faithful = self.codeformer(lq, fidelity=1.0)
        detailed: Tensor = self.diffbir(
            faithful, steps=self.steps, guidance=4.0, prompt=PROMPT, negative=NEGATIVE, seed=231, side=self.side
        )
        return detailed
