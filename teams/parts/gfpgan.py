"""GFPGAN (Wang et al. 2021): a U-Net steers a StyleGAN2 that knows faces; spandrel has the network (86.44 M parameters).

The code and StyleGAN2's part of the weights are under NVIDIA's non-commercial licence, the rest under Apache-2.0.
"""

from typing import Any

from spandrel.architectures.GFPGAN import GFPGAN
from torch import Tensor

from ntire.method.weights_files import Weights
from ntire.teams.parts.full_precision import FullPrecision

SIDE = 512
LICENSE = "Apache-2.0; the StyleGAN2 part NVIDIA, non-commercial"
RELEASE = "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.0/"
MIRROR = "https://huggingface.co/datasets/Gourieff/ReActor/resolve/main/models/facerestore_models/"
V1_3 = (
    Weights(
        "GFPGANv1.3.pth", "c953a88f2727c85c3d9ae72e2bd4846bbaf59fe6972ad94130e23e7017524a70", LICENSE, "official",
        into="net", urls=(f"{RELEASE}GFPGANv1.3.pth", f"{MIRROR}GFPGANv1.3.pth"), size=348_632_874,
    ),
)  # fmt: skip
V1_4 = (
    Weights(
        "GFPGANv1.4.pth", "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad", LICENSE, "official",
        into="net", urls=(f"{RELEASE}GFPGANv1.4.pth", f"{MIRROR}GFPGANv1.4.pth"), size=348_632_874,
    ),
)  # fmt: skip


class Gfpgan(FullPrecision):
    """The clean network of versions 1.3 and 1.4, which differ in weights only: an aligned face, `side` x `side`, to the same.

    StyleGAN2's noise is the one stored in the checkpoint, where the released program draws it anew for each face. That
    program's `weight` reaches this network's catch-all for keywords and changes nothing, so there is no such option here.
    """

    def __init__(self, side: int = SIDE, width: int = 512) -> None:
        """`width` is StyleGAN2's widest layer; all others follow from it."""
        super().__init__()
        self.side = side
        self.net: Any = GFPGAN(out_size=side, num_style_feat=width, narrow=width / 512)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, side, side), RGB in [0, 1]; raises ValueError for another size."""
        if image.shape[-2:] != (self.side, self.side):
            raise ValueError(f"expected an aligned face of {self.side} x {self.side}, found {tuple(image.shape[-2:])}")
        restored, _ = self.net(image.float() * 2 - 1, return_rgb=False, randomize_noise=False)
        return ((restored.clamp(-1, 1) + 1) / 2).to(image.dtype)
