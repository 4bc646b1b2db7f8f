"""Pipelines with networks that know one size only: an upright face of 512 x 512, as the challenge gives it."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ntire.method.face_alignment import SIDE
from ntire.teams.parts.face_pipeline import FacePipeline
from ntire.teams.parts.released_program import Program, require_programs


class UprightFace(FacePipeline, abstract=True):
    """A method that is told in `face`; pictures of other sizes are brought to its size and back."""

    side: int = SIDE
    programs: ClassVar[tuple[Program, ...]] = ()
    """What its stages run as released."""

    def forward(self, lq: Tensor) -> Tensor:
        size = lq.shape[-2:]
        restored = self.face(_resized(lq, (self.side, self.side)))
        return _resized(restored, (size[0], size[1])).clamp(0, 1)

    @classmethod
    def require(cls) -> None:
        """Raise UserError if a released program that a stage runs is not ready."""
        require_programs(cls.programs)

    def face(self, lq: Tensor) -> Tensor:
        """The pipeline: faces (B, 3, side, side), RGB in [0, 1], to the same."""
        raise NotImplementedError


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear without antialiasing, as the programs do it; a picture of that size stays as it is."""
    return image if tuple(image.shape[-2:]) == size else F.interpolate(image, size=size, mode="bilinear")
