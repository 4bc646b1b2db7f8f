"""The identity loss of face restorers: is the person in the restored face the one in the clean face?"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire import UserError
from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import ARCFACE, locate, require

SIDE = 112
"""Of the faces that ArcFace knows."""
TOP, BOTTOM, LEFT, RIGHT = 35 / 256, 223 / 256, 32 / 256, 220 / 256
"""What of a face aligned as FFHQ's are is ArcFace's crop, as shares of its sides (pixel2style2pixel, 2021)."""


class IdentityLoss(nn.Module):
    """1 minus the cosine of ArcFace's embeddings (Deng et al. 2019), one number a face.

    Faces are (B, 3, H, W) in [0, 1], aligned as FFHQ's are.
    """

    def __init__(self, recognition: nn.Module) -> None:
        super().__init__()
        self.recognition = recognition.requires_grad_(False).eval()

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        first, second = self._embedded(torch.cat([restored, gt])).chunk(2)
        return 1 - F.cosine_similarity(first, second.detach())

    def _embedded(self, face: Tensor) -> Tensor:
        height, width = face.shape[-2:]
        crop = face[..., round(TOP * height) : round(BOTTOM * height), round(LEFT * width) : round(RIGHT * width)]
        embedded: Tensor = self.recognition(F.adaptive_avg_pool2d(crop, SIDE) * 2 - 1)
        return embedded


def identity_loss() -> IdentityLoss:
    """The loss with facexlib's ArcFace, an IR-SE-50. Raises UserError if facexlib or the weights are not here."""
    try:
        from facexlib.recognition.arcface_arch import Backbone
    except ImportError as error:
        raise UserError(
            f"the loss identity needs facexlib: {error}. Install it with `pip install 'ntire[faces]'`.", exit_code=3
        ) from None
    require({"identity": (ARCFACE,)}, {"identity": None})
    recognition: nn.Module = Backbone(50, 0.6, "ir_se")
    path = locate(ARCFACE, None)[0]
    fill(recognition, read_state_dict(path), path)
    return IdentityLoss(recognition)
