"""Real-ESRGAN's second-order degradation (Wang et al. 2021): blur, resize, noise and JPEG, twice, then a sinc filter.

Kernels, ranges and probabilities default to those of its published training options.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ntire.picture.degradations import gaussian_noise, jpeg, uniform
from ntire.picture.image import as_image, as_pixels

Shape = Literal["gaussian", "generalised", "plateau"]


def blur_kernel(
    side: int, sigma_x: float, sigma_y: float, angle: float, shape: Shape = "gaussian", beta: float = 1.0
) -> Tensor:
    """An anisotropic kernel (side, side) that sums to 1; with d the squared distance in standard deviations: exp(-d / 2),
    exp(-d ** beta / 2), or 1 / (1 + d ** beta).
    """
    y, x = torch.meshgrid(*[torch.arange(side) - side // 2.0] * 2, indexing="ij")
    along = (x * math.cos(angle) + y * math.sin(angle)) / sigma_x
    across = (y * math.cos(angle) - x * math.sin(angle)) / sigma_y
    distance = (along**2 + across**2) ** beta
    kernel = 1 / (1 + distance) if shape == "plateau" else torch.exp(-distance / 2)
    return kernel / kernel.sum()


def sinc_kernel(side: int, cutoff: float) -> Tensor:
    """A circular low-pass filter (side, side) with a cutoff in radians a pixel: it rings, as sharpened pictures do."""
    y, x = torch.meshgrid(*[torch.arange(side) - side // 2.0] * 2, indexing="ij")
    radius = torch.sqrt(x**2 + y**2)
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[side // 2, side // 2] = cutoff**2 / (4 * math.pi)
    return kernel / kernel.sum()


def filtered(image: Tensor, kernel: Tensor) -> Tensor:
    """Correlate each channel of (3, H, W) with a kernel of odd side; borders are repeated."""
    padded = F.pad(image[None], (kernel.shape[-1] // 2,) * 4, mode="replicate")
    return F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)[0]


def poisson_noise(image: Tensor, scale: float, gray: bool, rng: Generator) -> Tensor:
    """Add `scale` times the noise of counting photons, as many levels as the 8-bit picture has; gray: alike in all channels."""
    source = image.clamp(0, 1).mul(255).round() / 255
    source = source.mean(0, keepdim=True) if gray else source
    levels = 2.0 ** math.ceil(math.log2(max(np.unique(source.numpy()).size, 2)))
    return image + scale * (torch.poisson(source * levels, generator=rng) / levels - source)


@dataclass(frozen=True)
class Round:
    """Blur, resize, noise and JPEG once; ranges are drawn from uniformly."""

    blur_probability: float = 1.0
    blur_sigma: tuple[float, float] = (0.2, 3.0)
    sinc_probability: float = 0.1
    enlarge: float = 0.2
    """Probability of a factor between 1 and the top of `resize`."""
    shrink: float = 0.7
    """Probability of a factor between the bottom of `resize` and 1."""
    resize: tuple[float, float] = (0.15, 1.5)
    gaussian_probability: float = 0.5
    """Of Gaussian noise; else it is Poisson noise."""
    noise_sigma: tuple[float, float] = (1.0, 30.0)
    poisson_scale: tuple[float, float] = (0.05, 3.0)
    gray_probability: float = 0.4
    jpeg_quality: tuple[int, int] = (30, 95)

    def blur(self, image: Tensor, rng: Generator) -> Tensor:
        """One of the published kinds of kernel, with a side of 7 to 21 pixels."""
        if uniform(0, 1, rng) >= self.blur_probability:
            return image
        side = 7 + 2 * int(torch.randint(8, (), generator=rng))
        if uniform(0, 1, rng) < self.sinc_probability:
            lowest = math.pi / 3 if side < 13 else math.pi / 5
            return filtered(image, sinc_kernel(side, uniform(lowest, math.pi, rng)))
        chances = torch.tensor([0.45, 0.25, 0.12, 0.03, 0.12, 0.03])
        kind = int(torch.multinomial(chances, 1, generator=rng))
        sigma = uniform(*self.blur_sigma, rng)
        other = uniform(*self.blur_sigma, rng) if kind % 2 else sigma
        shapes: tuple[Shape, ...] = ("gaussian", "generalised", "plateau")
        shape = shapes[kind // 2]
        betas = {"gaussian": (1.0, 1.0), "generalised": (0.5, 4.0), "plateau": (1.0, 2.0)}[shape]
        # As published: one half of the values lies below 1, the other above.
        below = uniform(0, 1, rng) < 0.5
        beta = uniform(betas[0], 1.0, rng) if below else uniform(1.0, betas[1], rng)
        return filtered(image, blur_kernel(side, sigma, other, uniform(-math.pi, math.pi, rng), shape, beta))

    def scale(self, image: Tensor, rng: Generator) -> Tensor:
        """Enlarge, shrink or keep, by area, bilinear or bicubic interpolation."""
        chance = uniform(0, 1, rng)
        factor = 1.0
        if chance < self.enlarge:
            factor = uniform(1.0, self.resize[1], rng)
        elif chance < self.enlarge + self.shrink:
            factor = uniform(self.resize[0], 1.0, rng)
        size = [max(round(side * factor), 1) for side in image.shape[-2:]]
        return resized(image, size, rng)

    def noise(self, image: Tensor, rng: Generator) -> Tensor:
        """Gaussian or Poisson noise, in colour or gray."""
        gray = uniform(0, 1, rng) < self.gray_probability
        if uniform(0, 1, rng) >= self.gaussian_probability:
            return poisson_noise(image, uniform(*self.poisson_scale, rng), gray, rng)
        sigma = uniform(*self.noise_sigma, rng)
        return (
            image + gaussian_noise(torch.zeros_like(image[:1]), sigma, rng)
            if gray
            else gaussian_noise(image, sigma, rng)
        )

    def compress(self, image: Tensor, rng: Generator) -> Tensor:
        """JPEG of a drawn quality."""
        return jpeg(image.clamp(0, 1), round(uniform(*self.jpeg_quality, rng)))


def resized(image: Tensor, size: list[int], rng: Generator) -> Tensor:
    """Resize (3, H, W) to `size` with an interpolation that is drawn."""
    mode = ("area", "bilinear", "bicubic")[int(torch.randint(3, (), generator=rng))]
    corners = None if mode == "area" else False
    return F.interpolate(image[None], size=size, mode=mode, align_corners=corners)[0]


@dataclass(frozen=True)
class SecondOrderDegradation:
    """Two rounds; in the second the order of the final sinc filter and JPEG is drawn. The result is of the same size,
    or of a `scale`th of it.
    """

    first: Round = Round()
    second: Round = Round(
        blur_probability=0.8,
        blur_sigma=(0.2, 1.5),
        enlarge=0.3,
        shrink=0.4,
        resize=(0.3, 1.2),
        noise_sigma=(1.0, 25.0),
        poisson_scale=(0.05, 2.5),
    )
    final_sinc_probability: float = 0.8
    scale: int = 1

    def __call__(self, gt: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """A clean image (3, H, W) to the pair (lq, gt), rounded to 8 bits as files are."""
        size = [side // self.scale for side in gt.shape[-2:]]
        lq = gt
        lq = self.first.compress(self.first.noise(self.first.scale(self.first.blur(lq, rng), rng), rng), rng)
        lq = self.second.noise(self.second.scale(self.second.blur(lq, rng), rng), rng)
        if uniform(0, 1, rng) < 0.5:
            lq = self.second.compress(self._last(resized(lq, size, rng), rng), rng)
        else:
            lq = self._last(resized(self.second.compress(lq, rng), size, rng), rng)
        return as_image(as_pixels(lq)), gt

    def _last(self, image: Tensor, rng: Generator) -> Tensor:
        if uniform(0, 1, rng) >= self.final_sinc_probability:
            return image
        side = 7 + 2 * int(torch.randint(8, (), generator=rng))
        return filtered(image, sinc_kernel(side, uniform(math.pi / 3, math.pi, rng)))
