"""What the pipelines of the face challenge share: they restore a picture as a whole, an aligned face of 512 x 512."""

from torch import Tensor

from ntire.method import Method
from ntire.picture.tiling import pad_reflect

CHALLENGE = "https://github.com/zhengchen1999/NTIRE2025_RealWorld_Face_Restoration"
"""Where the organisers keep the teams' programs."""


MODELS = "https://drive.google.com/drive/folders/19_xeQjOWCF7BZz7eCRUu1jX8F9VC4IeT"
"""Where they keep the teams' weights."""


def from_the_challenge(number: int, file: str) -> str:
    """How a person gets a team's own file, which programs may not fetch."""
    return f"Get `{file}` of team {number} with a browser from {MODELS}, which {CHALLENGE} names."


class FacePipeline(Method, abstract=True):
    """A method for one face in the picture: no tiles, as a face cut into tiles would be several."""

    track = "face"
    tiling = "method"
    halo = 0
    stride = 8
    bf16_psnr_db = 20.0

    def in_tiles(self, lq: Tensor) -> Tensor:
        """Run `forward` over the whole (3, H, W), its sides brought to multiples of the stride meanwhile."""
        height, width = lq.shape[-2:]
        padded = pad_reflect(lq.to(self.device, self.dtype), 0, -width % self.stride, 0, -height % self.stride)
        restored: Tensor = self(padded[None])[0, :, :height, :width]
        return restored.float()
