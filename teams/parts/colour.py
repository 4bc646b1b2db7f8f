"""Colours of one picture given to another: what diffusion pipelines do after decoding, because latents lose colour.

Pictures are (B, 3, H, W), RGB; `like` has the same size. Both are deterministic and have no weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 5
"""Of the wavelet: what is coarser than about 2^5 pixels counts as colour."""
FAINTEST = 1e-5
"""Added to a channel's variance: a flat picture has colours too."""


def wavelet_colour(image: Tensor, like: Tensor) -> Tensor:
    """Details of `image` on the coarse content of `like`, by an undecimated wavelet of five levels (Wang et al. 2023,
    StableSR, section 3.3; DiffBIR takes it over).

    Not clamped: the sum may leave [0, 1] a little.
    """
    return image - _coarse(image) + _coarse(like)


def adain_colour(image: Tensor, like: Tensor) -> Tensor:
    """`image` with the mean and the standard deviation that each channel has in `like` (Huang and Belongie 2017, eq. 8)."""
    mean, deviation = _moments(image)
    wanted_mean, wanted_deviation = _moments(like)
    return (image - mean) / deviation * wanted_deviation + wanted_mean


def _coarse(image: Tensor) -> Tensor:
    """What is left after LEVELS of binomial blur, the taps of each twice as far apart as before, edges repeated."""
    taps = torch.tensor([1.0, 2.0, 1.0], dtype=image.dtype, device=image.device) / 4
    channels = image.shape[1]
    across = taps.view(1, 1, 1, 3).expand(channels, 1, 1, 3)
    down = taps.view(1, 1, 3, 1).expand(channels, 1, 3, 1)
    for level in range(LEVELS):
        step = 2**level
        padded = F.pad(image, (step,) * 4, mode="replicate")
        image = F.conv2d(F.conv2d(padded, across, groups=channels, dilation=step), down, groups=channels, dilation=step)
    return image


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (with n - 1) of each channel, (B, 3, 1, 1)."""
    variance, mean = torch.var_mean(image, dim=(2, 3), keepdim=True)
    return mean, (variance + FAINTEST).sqrt()
