"""Real-ESRGAN x2plus (Wang et al. 2021): residual dense blocks for photographs; spandrel has the network (16.70 M parameters).

Face programs restore with it what lies around the faces, and bring the result back to the size of the input.
"""

import math
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from spandrel.architectures.ESRGAN import ESRGAN
from torch import Tensor, nn

from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights

WEIGHTS = (
    Weights(
        "RealESRGAN_x2plus.pth", "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb", "BSD-3-Clause",
        "official", urls=("https://github.com/xinntao/Real-ESRGAN/releases/download/v0.2.1/RealESRGAN_x2plus.pth",),
        size=67_061_725,
    ),
)  # fmt: skip


class RealEsrgan2x(nn.Module):
    """Twice the size, and with `outscale` 1 back to the size of the input, as the released program does it."""

    def __init__(self, width: int = 64, blocks: int = 23) -> None:
        super().__init__()
        self.net: Any = ESRGAN(in_nc=12, num_filters=width, num_blocks=blocks, scale=4, shuffle_factor=2)
        self.blocks = blocks

    def forward(self, image: Tensor, *, outscale: int = 2) -> Tensor:
        """(B, 3, H, W), RGB in [0, 1], to `outscale` times the size, 1 or 2."""
        doubled: Tensor = self.net(image).clamp(0, 1)
        return doubled if outscale == 2 else halved(doubled)

    def take(self, path: Path, prefix: str) -> None:
        """Fill from the released file, whose names are basicsr's. Raises UserError for one that does not fit."""
        state = {self._own_name(name): value for name, value in read_state_dict(path, prefix).items()}
        fill(self.net, state, path)

    def _own_name(self, name: str) -> str:
        """Basicsr's name of a tensor to spandrel's, which are those of the first ESRGAN."""
        name = re.sub(r"^body\.(\d+)\.rdb(\d)\.conv(\d)\.", r"model.1.sub.\1.RDB\2.conv\3.0.", name)
        places = {"conv_first": "0", "conv_body": f"1.sub.{self.blocks}", "conv_up1": "3", "conv_up2": "6"}
        places |= {"conv_hr": "8", "conv_last": "10"}
        layer, _, kind = name.rpartition(".")
        return f"model.{places[layer]}.{kind}" if layer in places else name


def halved(image: Tensor) -> Tensor:
    """Half the size by Lanczos with four lobes at the source's scale, as OpenCV's INTER_LANCZOS4 does it: no antialiasing."""
    at = [0.5 + offset for offset in range(-4, 4)]
    lobes = torch.tensor([math.sin(math.pi * x) / x * math.sin(math.pi * x / 4) / x for x in at], dtype=image.dtype)
    taps = (lobes / lobes.sum()).to(image.device)
    channels = image.shape[1]
    padded = F.pad(image, (3, 3, 3, 3), mode="replicate")
    across = F.conv2d(padded, taps.expand(channels, 1, 1, 8), groups=channels, stride=(1, 2))
    return F.conv2d(across, taps.view(8, 1).expand(channels, 1, 8, 1), groups=channels, stride=(2, 1)).clamp(0, 1)
