"""The orthonormal Haar wavelet as a way down and up in size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


BANDS = (
    torch.tensor([[1.0, 1, 1, 1], [-1, 1, -1, 1], [-1, -1, 1, 1], [1, -1, -1, 1]]) / 2
)  # fmt: skip
"""Of the four bands, what each takes of the pixels (0, 0), (0, 1), (1, 0), (1, 1); orthonormal."""


class OfBands(nn.Conv2d):
    """A convolution of an image's Haar bands, (B, C, H, W) -> (B, outputs, H/2, W/2); made with 4 C inputs.

    Folded, its weights are those for the pixels themselves: the same sums, without the passes that make the bands.
    """

    folded = False

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pixel_unshuffle(x, 2) if self.folded else haar(x))

    @torch.no_grad()
    def fold(self) -> None:
        """Take the wavelet into the weights."""
        if not self.folded:
            of_bands = torch.unflatten(self.weight, 1, (4, -1))
            of_pixels = torch.einsum("obckl,bp->ocpkl", of_bands, BANDS.to(of_bands))
            self.weight = nn.Parameter(of_pixels.flatten(1, 2).contiguous(), requires_grad=self.weight.requires_grad)
            self.folded = True


class ToBands(nn.Conv2d):
    """A convolution to Haar bands, and the image that they make, (B, inputs, H, W) -> (B, C, 2H, 2W); made with 4 C outputs.

    Folded, it makes the pixels themselves.
    """

    folded = False

    def forward(self, x: Tensor) -> Tensor:
        bands = super().forward(x)
        return F.pixel_shuffle(bands, 2) if self.folded else inverse_haar(bands)

    @torch.no_grad()
    def fold(self) -> None:
        """Take the wavelet into the weights."""
        if not self.folded:
            for name in ("weight", "bias"):
                of_bands = torch.unflatten(getattr(self, name), 0, (4, -1))
                of_pixels = torch.einsum("bc...,bp->cp...", of_bands, BANDS.to(of_bands)).flatten(0, 1)
                setattr(self, name, nn.Parameter(of_pixels.contiguous(), requires_grad=self.weight.requires_grad))
            self.folded = True


def fold_wavelets(network: nn.Module) -> None:
    """Fold all of a network's wavelets that stand beside a convolution."""
    for part in network.modules():
        if isinstance(part, OfBands | ToBands):
            part.fold()
