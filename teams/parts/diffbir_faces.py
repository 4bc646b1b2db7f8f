"""Face pipelines that end in DiffBIR as several teams build them: alone, or behind CodeFormer."""

from ntire.teams.parts.codeformer import CodeFormer
from ntire.teams.parts.diffbir import DiffBIR
from ntire.teams.parts.face_pipeline import FacePipeline
from ntire.teams.parts.upright_face import UprightFace

TINY = {"width": 32, "steps": 2, "side": 64}


class DiffBirFace(FacePipeline, abstract=True):
    """DiffBIR on the whole picture."""

    tiny = TINY

    def __init__(self, width: int = 320, steps: int = 50, side: int = 512) -> None:
        super().__init__()
        self.steps, self.side = steps, side
        self.diffbir = DiffBIR(width)


class CodeFormerDiffBirFace(UprightFace, abstract=True):
    """CodeFormer on an upright face, then DiffBIR."""

    tiny = TINY

    def __init__(self, width: int = 320, steps: int = 50, side: int = 512) -> None:
        super().__init__()
        self.steps, self.side = steps, side
        self.codeformer = CodeFormer(side, width // 5)
        self.diffbir = DiffBIR(width)
