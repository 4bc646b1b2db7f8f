"""CLIP-IQA (Wang et al. 2023) and MUSIQ (Ke et al. 2021) inside of a method, through pyiqa, which is for non-commercial use."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntire import UserError
from ntire.iqa import CLIP_FILE, MUSIQ_FILE, build
from teams.parts.full_precision import FullPrecision

WEIGHTS = (CLIP_FILE, MUSIQ_FILE)


class Quality(FullPrecision):
    """Empty until its files are read, as pyiqa builds its networks from them. Gradients go through it."""

    def __init__(self) -> None:
        super().__init__()
        self.clip_iqa: Any = None
        self.musiq: Any = None

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """CLIP-IQA, 0 to 1, and MUSIQ, about 0 to 100, of pictures (B, 3, H, W), RGB in [0, 1]; (B,) each.

        Raises UserError if the files of either were not read.
        """
        if self.clip_iqa is None or self.musiq is None:
            raise UserError(
                "CLIP-IQA and MUSIQ decide what is done with a picture here, and their files were not read: "
                "get them with `ntire weights fetch`.",
                exit_code=3,
            )
        found: list[Tensor] = [network(image.float()).reshape(len(image)) for network in (self.clip_iqa, self.musiq)]
        return found[0], found[1]

    def take(self, path: Path, prefix: str) -> None:
        """Build the network that the file belongs to; pyiqa finds it in its own cache. Raises UserError where it cannot."""
        with torch.device("cpu"):
            if path.name == MUSIQ_FILE.file:
                self.musiq = build("musiq")
            else:
                self.clip_iqa = build("clipiqa", backbone=str(path))
