"""Unsharp masks and saturation on 8-bit pixels, as Pillow computes them, on any device.

MiPortrait's program goes through 8-bit pictures at these places; so does this, to the same values. Pictures are
(B, 3, H, W), RGB in [0, 1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PASSES = 3
"""Of the box blur that stands for a Gaussian."""


def unsharp(image: Tensor, *, radius: float, percent: int, threshold: int = 0) -> Tensor:
    """What differs from a blur of `radius` by more than `threshold` (of 255), added once more in `percent`.

    With a radius of 0 nothing differs, and the picture stays as it is but for its 8 bits.
    """
    pixels = _as_8_bit(image)
    difference = pixels - _blurred(pixels, radius)
    sharper = (pixels + (difference * percent / 100).trunc()).clamp(0, 255)
    return (torch.where(difference.abs() > threshold, sharper, pixels) / 255).to(image.dtype)


def saturate(image: Tensor, *, factor: float) -> Tensor:
    """`factor` times as far from gray as before: Pillow's `ImageEnhance.Color`."""
    pixels = _as_8_bit(image)
    # Pillow's weights are whole numbers of 2^-16.
    weights = pixels.new_tensor([19595, 38470, 7471]).view(1, 3, 1, 1)
    gray = ((pixels * weights).sum(1, keepdim=True) + 0x8000).div(0x10000).floor()
    blended = gray.float() + factor * (pixels - gray).float()
    return (blended.clamp(0, 255).floor() / 255).to(image.dtype)


def _as_8_bit(image: Tensor) -> Tensor:
    """Cut down to whole numbers of 255, as a cast to bytes does it; the room for rounding is float32's."""
    return (image.double() * 255 + 1e-4).floor().clamp(0, 255)


def _blurred(pixels: Tensor, radius: float) -> Tensor:
    """Pillow's Gaussian: three boxes, whose outermost pixels count in part; across, then down; whole numbers each time."""
    if radius == 0:
        return pixels
    variance = radius**2 / PASSES
    whole = int(((12 * variance + 1) ** 0.5 - 1) // 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    # Pillow's weights are whole numbers of 2^-24.
    inner = int(2**24 / (2 * (whole + part) + 1))
    outer = (2**24 - (2 * whole + 1) * inner) // 2
    taps = pixels.new_tensor([outer, *[inner] * (2 * whole + 1), outer])
    channels, reach = pixels.shape[1], whole + 1
    for shape, pad in (((1, -1), (reach, reach, 0, 0)), ((-1, 1), (0, 0, reach, reach))):
        for _ in range(PASSES):
            padded = F.pad(pixels, pad, mode="replicate")
            box = taps.view(1, 1, *shape).expand(channels, 1, -1, -1)
            pixels = ((F.conv2d(padded, box, groups=channels) + 2**23) / 2**24).floor()
    return pixels
