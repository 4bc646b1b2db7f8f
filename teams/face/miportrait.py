"""MiPortrait, fourth of the face challenge 2025: six stages, one of them chosen by how poor the input is.

    LQ -> PiSA-SR -> FFA-Net -> GFPGAN 1.3, or sharper and more colourful -> Stable Diffusion 2.1 under IRControlNet
       -> sharper and more colourful -> FaceToneNet

Report: NTIRE 2025 real-world face restoration, section 4.4 (MPSR); options as in the team's program.
"""

from dataclasses import replace

from torch import Tensor

from ntire.teams.parts import diffbir, face_tone, ffa_net, gfpgan, pisa_sr, quality
from ntire.teams.parts.diffbir import DIFFUSION, DiffBIR
from ntire.teams.parts.face_tone import FaceTone
from ntire.teams.parts.ffa_net import FfaNet
from ntire.teams.parts.gfpgan import Gfpgan
from ntire.teams.parts.pisa_sr import PisaSr
from ntire.teams.parts.quality import Quality
from ntire.teams.parts.sharpening import saturate, unsharp
from ntire.teams.parts.upright_face import UprightFace

NEGATIVE = f"{diffbir.NEGATIVE}, out of focus"
POOR_CLIP_IQA, POOR_MUSIQ = 0.3, 17.0
"""GFPGAN restores what is below both."""


class MiPortrait(UprightFace):
    """All of it; 3,081 M parameters without the two networks that judge the input."""

    team = "MiPortrait"
    cite = "face2025"
    code = "https://github.com/nathanlau1016/ntire2025_miportraitsr"
    weights = (
        *(replace(one, into="quality") for one in quality.WEIGHTS),
        *(replace(one, into=f"pisa_sr.{one.into}".strip(".")) for one in pisa_sr.WEIGHTS),
        *(replace(one, into="ffa_net") for one in ffa_net.WEIGHTS),
        *(replace(one, into=f"gfpgan.{one.into}") for one in gfpgan.V1_3),
        *(replace(one, into=f"diffbir.{one.into}") for one in (*DIFFUSION, diffbir.CONTROL_V2)),
        *(replace(one, into="face_tone") for one in face_tone.WEIGHTS),
    )
    caveats = (
        "The team reports a total of 4.2335, the organisers' run of its program gave 4.2231: seeds of a GPU do not carry over.",
        "The unsharp masks have a radius of 0 and sharpen nothing; the report speaks of sharpening.",
        "The program runs PiSA-SR in half precision, and goes through 8-bit pictures after it; here neither.",
        "CLIP-IQA and MUSIQ, which choose the stage, are metrics of the challenge; both need pyiqa (non-commercial use).",
        "GFPGAN's noise is the one stored with its weights, where the program draws it; its `weight` changes nothing there.",
        "Each picture begins from seeds 42 and 231; the original draws on from picture to picture, on a GPU.",
        "There is no recipe: its networks run as published, and cannot be trained here.",
    )
    tiny = {"width": 32, "steps": 2, "side": 64, "judged": 0}

    def __init__(self, width: int = 320, steps: int = 50, side: int = 512, judged: int = 1) -> None:
        """With `judged` 0 no picture is judged, and GFPGAN restores all: the program's way without metrics."""
        super().__init__()
        self.steps, self.side = steps, side
        self.quality = Quality() if judged else None
        self.pisa_sr = PisaSr(width)
        self.ffa_net = FfaNet(19, width // 5)
        self.gfpgan = Gfpgan(side, width // 10 * 16)
        self.diffbir = DiffBIR(width, cleaner=False)
        self.face_tone = FaceTone(side.bit_length() - 2, width // 5)

    def face(self, lq: Tensor) -> Tensor:
        clear = self.ffa_net(self.pisa_sr(lq, seed=42, side=self.side))
        clean = self.gfpgan(clear) if self.is_poor(lq) else _livelier(clear)
        detailed = self.diffbir(clean, steps=self.steps, guidance=4.0, negative=NEGATIVE, seed=231, side=self.side)
        toned: Tensor = self.face_tone(_livelier(detailed))
        return toned

    def is_poor(self, lq: Tensor) -> bool:
        """Whether both measures are below their thresholds, so that GFPGAN must help."""
        if self.quality is None or lq.is_meta:
            return True
        clip_iqa, musiq = self.quality(lq)
        return bool((clip_iqa < POOR_CLIP_IQA).all() and (musiq < POOR_MUSIQ).all())


def _livelier(image: Tensor) -> Tensor:
    """Pillow's unsharp mask and saturation, through 8 bits, as the program does them."""
    return saturate(unsharp(image, radius=0, percent=50), factor=1.1)
