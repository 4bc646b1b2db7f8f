"""The orthonormal Haar wavelet as a way down and up in size, and folded into the convolutions beside it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BANDS = (((1, 1), (1, 1)), ((-1, 1), (-1, 1)), ((-1, -1), (1, 1)), ((1, -1), (-1, 1)))
"""Twice what each band takes of the pixels of a block: mean, horizontal, vertical, diagonal detail; [band][row][column]."""


def haar(x: Tensor) -> Tensor:
    """Analysis (B, C, H, W) -> (B, 4C, H/2, W/2): mean, horizontal, vertical, diagonal detail."""
    above, below = x[..., 0::2, :], x[..., 1::2, :]
    low, high = (above + below) / 2, (below - above) / 2
    bands = [
        low[..., 0::2] + low[..., 1::2],
        low[..., 1::2] - low[..., 0::2],
        high[..., 0::2] + high[..., 1::2],
        high[..., 1::2] - high[..., 0::2],
    ]
    return torch.cat(bands, dim=1)


def inverse_haar(bands: Tensor) -> Tensor:
    """Synthesis (B, 4C, H, W) -> (B, C, 2H, 2W): undoes `haar`."""
    mean, horizontal, vertical, diagonal = bands.chunk(4, dim=1)
    low, low_step = mean - vertical, horizontal - diagonal
    high, high_step = mean + vertical, horizontal + diagonal
    blocks = torch.stack([low - low_step, low + low_step, high - high_step, high + high_step], dim=2) / 2
    return F.pixel_shuffle(blocks.flatten(1, 2), 2)


class HaarDown(nn.Conv2d):
    """`haar`, then a convolution of k x k: (B, C, H, W) -> (B, N, H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__(4 * inputs, outputs, side, padding=side // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(haar(x))

    def folded(self) -> nn.Module:
        """The same as one convolution of 2k x 2k and stride 2: as many multiplications, and no pass over the picture."""
        outputs, side = self.out_channels, self.kernel_size[0]
        weight = self.weight.double().reshape(outputs, 4, -1, side, side)
        weight = torch.einsum("nbcyx,bij->ncyixj", weight, _bands(weight)).reshape(outputs, -1, 2 * side, 2 * side)
        conv = nn.Conv2d(weight.shape[1], outputs, 2 * side, stride=2, padding=2 * (side // 2), device=weight.device)
        return _filled(conv, weight, self.bias)


class HaarUp(nn.Conv2d):
    """A convolution of k x k, then `inverse_haar`: (B, C, H, W) -> (B, N, 2H, 2W)."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__(inputs, 4 * outputs, side, padding=side // 2)

    def forward(self, x: Tensor) -> Tensor:
        return inverse_haar(super().forward(x))

    def folded(self) -> nn.Module:
        """The same as a convolution whose results are the pixels of each block."""
        outputs, inputs, side = self.out_channels, self.in_channels, self.kernel_size[0]
        weight = self.weight.double().reshape(4, -1, inputs, side, side)
        weight = torch.einsum("bncyx,bij->nijcyx", weight, _bands(weight)).flatten(0, 2)
        bias = self.bias
        if bias is not None:
            bias = torch.einsum("bn,bij->nij", bias.double().reshape(4, -1), _bands(bias.double())).flatten()
        conv = nn.Conv2d(inputs, outputs, side, padding=side // 2, device=weight.device)
        return nn.Sequential(_filled(conv, weight, bias), nn.PixelShuffle(2))


@torch.no_grad()
def fold_haar(network: nn.Module) -> None:
    """Fold every Haar step in `network` into its convolution, for `deploy`; results differ in the last bits."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, HaarDown | HaarUp):
                setattr(parent, name, child.folded())


def _bands(like: Tensor) -> Tensor:
    return like.new_tensor(BANDS) / 2


def _filled(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    conv.weight = nn.Parameter(weight.float())
    conv.bias = None if bias is None else nn.Parameter(bias.float())
    return conv
