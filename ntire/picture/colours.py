"""The sRGB curve, and a camera's colours brought to sRGB."""

from functools import lru_cache

import torch
from torch import Tensor

Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def srgb_encode(linear: Tensor) -> Tensor:
    """Linear light [0, 1] to sRGB values [0, 1] (IEC 61966-2-1)."""
    low = linear * 12.92
    high = 1.055 * linear.clamp_min(0.0031308).pow(1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, low, high)


def srgb_decode(encoded: Tensor) -> Tensor:
    """SRGB values [0, 1] to linear light [0, 1] (IEC 61966-2-1)."""
    low = encoded / 12.92
    high = ((encoded.clamp_min(0.04045) + 0.055) / 1.055).pow(2.4)
    return torch.where(encoded <= 0.04045, low, high)


def apply_matrix(matrix: Tensor, image: Tensor) -> Tensor:
    """Multiply every pixel of (3, H, W) by a 3 x 3 matrix."""
    return torch.einsum("ij,jhw->ihw", matrix.to(image), image)


def correct_colours(image: Tensor, ccm: Matrix) -> Tensor:
    """An sRGB-encoded picture in white-balanced camera RGB (3, H, W) to the same picture in sRGB, clipped to [0, 1]."""
    image = image.clamp(0, 1)
    if ccm == IDENTITY:
        return image
    linear = apply_matrix(_made_on(image.device, ccm), srgb_decode(image))
    return srgb_encode(linear.clamp(0, 1))


@lru_cache(maxsize=64)
def _made_on(device: torch.device, matrix: Matrix) -> Tensor:
    """A matrix made by its device, once: a copy from the host would wait for all that the device has still to do."""
    values = [torch.full((), value, dtype=torch.float32, device=device) for row in matrix for value in row]
    return torch.stack(values).reshape(3, 3)
