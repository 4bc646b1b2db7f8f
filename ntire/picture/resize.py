"""Bicubic resizing as MATLAB's `imresize` does it, which super-resolution makes its inputs with and is held against.

Keys' kernel with a = -0.5, widened by the factor where a picture becomes smaller (antialiasing), weights that add up to 1,
and pictures continued beyond their border by reflection that repeats the edge. The scale itself is the ratio of both sides,
also where a side is no multiple of it.
"""

import math
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["bicubic", "lanczos3"]
SUPPORT: dict[Kernel, int] = {"bicubic": 4, "lanczos3": 6}
"""Input pixels that an output pixel is made of, where nothing becomes smaller."""


def resized(image: Tensor, scale: int | Fraction, kernel: Kernel = "bicubic") -> Tensor:
    """An image (..., H, W) `scale` times as large, its sides rounded up; values may leave [0, 1], as the kernel overshoots."""
    ratio = Fraction(scale)
    for axis in (-2, -1):
        image = _along(image, ratio, kernel, axis)
    return image


def _along(image: Tensor, ratio: Fraction, kernel: Kernel, axis: int) -> Tensor:
    places, weights = _taps(image.shape[axis], ratio, kernel)
    shape = [1] * image.ndim
    shape[axis] = -1
    result: Tensor | None = None
    # One tap after the other: the same sum for a pixel wherever it lies, in a tile or in the whole picture.
    for place, weight in zip(places, weights, strict=True):
        part = image.index_select(axis, place.to(image.device)) * weight.to(image).view(shape)
        result = part if result is None else result + part
    assert result is not None
    return result


@lru_cache(maxsize=256)
def _taps(length: int, ratio: Fraction, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """For each tap, the places in the input and the weights of all output pixels: (taps, output length) each."""
    narrow = min(ratio, Fraction(1))
    width = SUPPORT[kernel] / narrow
    taps = math.ceil(width) + 2
    found = math.ceil(length * ratio)
    output = torch.arange(found)
    # Exactly, as a fraction of whole numbers: equal phases have equal weights wherever they are.
    numerator = (2 * output + 1) * ratio.denominator - ratio.numerator
    denominator = 2 * ratio.numerator
    first = torch.div(
        numerator * width.denominator - width.numerator * ratio.numerator,
        denominator * width.denominator,
        rounding_mode="floor",
    )
    places = first[None] + torch.arange(taps)[:, None]
    away = (numerator[None] - places * denominator).double() / denominator * float(narrow)
    weights = _cubic(away) if kernel == "bicubic" else _lanczos(away)
    weights = weights / weights.sum(0)
    period = 2 * length
    mirrored = places % period
    mirrored = torch.where(mirrored < length, mirrored, period - 1 - mirrored)
    used = (weights != 0).any(1)
    return mirrored[used], weights[used]


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))
