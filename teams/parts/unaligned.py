"""Faces found in a picture, restored one by one, and pasted back where a parser sees skin, eyes, nose and mouth.

What facexlib's FaceRestoreHelper does around GFPGAN where inputs are not said to be aligned.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from ntire.method.face_alignment import RETINAFACE, SIDE, FaceFinder, cut_out, put_back, upright
from ntire.method.weights_files import Weights

PASTED = (0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 0)
"""Which of the parser's 19 classes are taken from the restored face: not the background, neck, cloth, ear rings and hats."""
BORDER = 10
"""Pixels along the border of a face that are never pasted."""
WEIGHTS = (
    replace(RETINAFACE, into="finder.net"),
    Weights(
        "parsing_parsenet.pth", "3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
        "as facexlib, Apache-2.0; of the weights nothing is said", "official", into="parser",
        urls=("https://github.com/xinntao/facexlib/releases/download/v0.2.2/parsing_parsenet.pth",), size=85_331_193,
    ),
)  # fmt: skip


class Unaligned(nn.Module):
    """A detector and a parser around a network for upright faces, `side` x `side`; tiny where the side is."""

    def __init__(self, side: int = SIDE) -> None:
        super().__init__()
        full = side == SIDE
        self.side = side
        self.finder = FaceFinder(light=not full)  # which raises UserError without facexlib
        from facexlib.parsing.parsenet import ParseNet

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.parser: Any = ParseNet(
                in_size=side,
                out_size=side,
                min_feat_size=side // 16,
                base_ch=64 if full else 4,
                ch_range=[32, 256] if full else [4, 8],
            )

    def forward(
        self, image: Tensor, restore: Callable[[Tensor], Tensor], *, background: Tensor | None = None
    ) -> Tensor:
        """Pictures (B, 3, H, W), RGB in [0, 1], with their faces restored on `background`, which is the picture itself where
        none is given. `restore` takes upright faces (1, 3, side, side).
        """
        pasted = []
        for picture, behind in zip(image, image if background is None else background, strict=True):
            for matrix in upright(self.finder(picture), self.side):
                face = restore(cut_out(picture, matrix, self.side)[None])
                behind = put_back(behind, face[0], matrix, self._mask(face))
            pasted.append(behind)
        return torch.stack(pasted)

    def _mask(self, face: Tensor) -> Tensor:
        """How much of each pixel of a restored face is pasted, (side, side), softened twice."""
        classes = self.parser(face * 2 - 1)[0].argmax(1)
        mask = torch.tensor(PASTED, dtype=face.dtype, device=face.device)[classes]
        for _ in range(2):
            mask = gaussian_blur(mask, [101, 101], [11.0, 11.0])
        inner = torch.zeros_like(mask)
        border = BORDER * self.side // SIDE
        inner[:, border:-border, border:-border] = 1
        return (mask * inner)[0]
