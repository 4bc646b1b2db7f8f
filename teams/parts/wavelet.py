"""The orthonormal Haar wavelet as a way down and up in size."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
