"""The coarsest band of the normalised Laplacian pyramid distance (Laparra et al. 2016), which PISA-MAP keeps small."""

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = (0.05, 0.25, 0.4, 0.25, 0.05)
LEFT, RIGHT, FLOOR = 0.2215, 0.0717, 0.2782
"""What divides a pixel of the coarsest band: its neighbours' shares, and a constant (the sixth of the paper's filters)."""


def coarse_distance(image: Tensor, like: Tensor, halvings: int = 4) -> Tensor:
    """Root mean square difference (B,) between the normalised coarsest bands of pictures (B, 3, H, W) in [0, 1].

    Each halving blurs with (1, 5, 8, 5, 1) / 20; edges are mirrored with the edge repeated.
    """
    difference = _normalised(_coarse(image, halvings)) - _normalised(_coarse(like, halvings))
    return difference.square().mean(dim=(1, 2, 3)).sqrt()


def _coarse(image: Tensor, halvings: int) -> Tensor:
    channels = image.shape[1]
    taps = torch.tensor(TAPS, dtype=image.dtype, device=image.device)
    filters = torch.outer(taps, taps).expand(channels, 1, 5, 5)
    for _ in range(halvings):
        image = F.conv2d(_mirrored(image, 2), filters, stride=2, groups=channels)
    return image


def _mirrored(image: Tensor, by: int) -> Tensor:
    """Two more pixels on each side, the edge first; a picture narrower than that repeats what it has."""
    for dim in (2, 3):
        length = image.shape[dim]
        places = torch.arange(-by, length + by, device=image.device) % (2 * length)
        image = image.index_select(dim, torch.minimum(places, 2 * length - 1 - places))
    return image


def _normalised(band: Tensor) -> Tensor:
    channels = band.shape[1]
    neighbours = torch.tensor([[0, 0, 0], [RIGHT, 0, LEFT], [0, 0, 0]], dtype=band.dtype, device=band.device)
    around = F.conv2d(band.abs(), neighbours.expand(channels, 1, 3, 3), padding=1, groups=channels)
    return band / (FLOOR + around)
