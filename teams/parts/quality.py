"""Measures of quality inside of a method: CLIP-IQA (Wang et al. 2023), MUSIQ (Ke et al. 2021) and NIQE (Mittal et al. 2013).

They run through pyiqa, which is for non-commercial use.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ntire import UserError
from ntire.method.pyiqa_networks import CLIP_FILE, MUSIQ_FILE, NIQE_FILE, build
from ntire.teams.parts.full_precision import FullPrecision

Measure = Literal["clipiqa", "musiq", "niqe"]
FILES: dict[Measure, str] = {"clipiqa": CLIP_FILE.file, "musiq": MUSIQ_FILE.file, "niqe": NIQE_FILE.file}
WEIGHTS = (CLIP_FILE, MUSIQ_FILE)
"""Of the two that most methods ask."""


class Quality(FullPrecision):
    """Empty until its files are read, as pyiqa builds its networks from them. Gradients go through it."""

    def __init__(self, measures: tuple[Measure, ...] = ("clipiqa", "musiq")) -> None:
        super().__init__()
        self.measures = measures
        for name in measures:
            setattr(self, name, None)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Each measure of pictures (B, 3, H, W), RGB in [0, 1]: (B,) each, CLIP-IQA 0 to 1, MUSIQ about 0 to 100, NIQE from 0,
        less being better.

        Raises UserError if a file was not read.
        """
        return tuple(self.measure(name, image) for name in self.measures)

    def measure(self, name: Measure, image: Tensor) -> Tensor:
        """One of them."""
        network: Any = getattr(self, name)
        if network is None:
            raise UserError(
                f"{name} decides what is done with a picture here, and {FILES[name]} was not read: "
                "get it with `ntire weights fetch`.",
                exit_code=3,
            )
        found: Tensor = network(image.float()).reshape(len(image))
        return found

    def take(self, path: Path, prefix: str) -> None:
        """Build the network that the file belongs to; pyiqa finds it in its own cache. Raises UserError where it cannot."""
        name = {FILES[name]: name for name in self.measures}[path.name]
        with torch.device("cpu"):
            setattr(self, name, build("clipiqa", backbone=str(path)) if name == "clipiqa" else build(name))
