"""Degradations of general restoration that can be made honestly from a clean picture: low light, haze, rain streaks, masks.

Images are RGB, float32, [0, 1], (3, H, W). Snow, raindrops on the lens and shadows cannot: they need paired pictures.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ntire.picture.degradations import NoiseLevels, gaussian_blur, gaussian_noise, jpeg, uniform
from ntire.picture.image import as_image, as_pixels
from ntire.picture.raw import srgb_decode, srgb_encode


def smooth_field(height: int, width: int, coarse: int, rng: Generator) -> Tensor:
    """A smooth random map (1, H, W) in [0, 1]: `coarse` x `coarse` numbers, interpolated."""
    return F.interpolate(
        torch.rand(1, 1, coarse, coarse, generator=rng), size=(height, width), mode="bicubic", align_corners=True
    )[0].clamp(0, 1)


def low_light(image: Tensor, exposure: float, gamma: float, sigma: float, rng: Generator) -> Tensor:
    """Divide the light by `exposure` in the linear domain, add noise of `sigma` (of 255, after encoding), bend by `gamma`."""
    dark = srgb_encode((srgb_decode(image) / exposure).clamp(0, 1)).pow(gamma)
    return gaussian_noise(dark, sigma, rng)


def haze(image: Tensor, light: float, density: float, rng: Generator) -> Tensor:
    """Koschmieder's law, J t + A (1 - t) with t = exp(-density x depth); far is up, with smooth bumps, depth in [0, 1].

    RESIDE (Li et al. 2019) draws A from 0.7 to 1 and the density from 0.6 to 1.8.
    """
    height, width = image.shape[-2:]
    upward = torch.linspace(1, 0, height)[None, :, None].expand(1, height, width)
    depth = 0.6 * upward + 0.4 * smooth_field(height, width, 4, rng)
    through = torch.exp(-density * depth)
    return image * through + light * (1 - through)


def rain(image: Tensor, share: float, length: int, angle: float, strength: float, rng: Generator) -> Tensor:
    """Add streaks: a `share` of the pixels begins one of `length` pixels at `angle` (radians from the vertical)."""
    drops = (torch.rand(1, *image.shape[-2:], generator=rng) < share).float()
    side = length | 1
    position = torch.arange(side) - side // 2.0
    y, x = position[:, None], position[None]
    # One pixel wide, along the direction of the fall.
    across = (x * math.cos(angle) - y * math.sin(angle)).abs()
    along = (x * math.sin(angle) + y * math.cos(angle)).abs()
    kernel = ((1 - across).clamp(0, 1) * (along <= length / 2)).float()
    streaks = F.conv2d(drops[None], kernel[None, None], padding=side // 2)[0].clamp(0, 1)
    return (image + strength * streaks).clamp(0, 1)


def motion_blur(image: Tensor, length: float, angle: float) -> Tensor:
    """Average along a straight way of `length` pixels at `angle` (radians from the horizontal), as a moving camera does."""
    reach = math.ceil(length / 2)
    position = torch.arange(-reach, reach + 1.0)
    y, x = position[:, None], position[None]
    across = (y * math.cos(angle) - x * math.sin(angle)).abs()
    along = (x * math.cos(angle) + y * math.sin(angle)).abs()
    kernel = (1 - across).clamp(0, 1) * (length / 2 + 0.5 - along).clamp(0, 1)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1, -1)
    return F.conv2d(F.pad(image[None], (reach,) * 4, mode="replicate"), kernel, groups=3)[0]


def masked(image: Tensor, share: float, strokes: int, rng: Generator) -> Tensor:
    """Black out about a `share` of the picture by `strokes` straight brush strokes, for inpainting."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    hidden = torch.zeros(height, width, dtype=torch.bool)
    # A stroke across half the picture covers its length times its width.
    thick = 2 * share * height * width / (strokes * (height + width) / 2)
    for _ in range(strokes):
        top, left = uniform(0, height, rng), uniform(0, width, rng)
        angle, long = uniform(0, math.pi, rng), (height + width) / 4
        along = (x - left) * math.cos(angle) + (y - top) * math.sin(angle)
        across = (y - top) * math.cos(angle) - (x - left) * math.sin(angle)
        hidden = torch.logical_or(hidden, torch.maximum(along.abs() / long, across.abs() / thick) < 0.5)
    return image.masked_fill(hidden, 0)


@dataclass(frozen=True)
class Weather:
    """One kind of damage, by the words that general restorers use; its numbers are drawn uniformly."""

    kind: str
    """noisy, jpeg-compressed, blurry, motion-blurry, low-light, hazy, rainy or uncompleted."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no degradation {self.kind!r} can be made; there are {', '.join(KINDS)}")

    def __call__(self, gt: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """A clean image (3, H, W) to the pair (lq, gt), rounded to 8 bits as files are."""
        return as_image(as_pixels(KINDS[self.kind](gt, rng))), gt


@dataclass(frozen=True)
class OneOf:
    """A picture gets one of several kinds of damage, each as likely as the next."""

    kinds: tuple[NoiseLevels | Weather, ...]

    def __call__(self, gt: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """A clean image (3, H, W) to the pair (lq, gt)."""
        return self.kinds[int(torch.randint(len(self.kinds), (), generator=rng))](gt, rng)


def _blurry(image: Tensor, rng: Generator) -> Tensor:
    return gaussian_blur(image, uniform(1, 4, rng), uniform(0.3, 2, rng), uniform(0, math.pi, rng))


KINDS: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    # Noise of 50 and JPEG of quality 10 are those of the ten degradations of DA-CLIP (Luo et al. 2024).
    "noisy": lambda image, rng: gaussian_noise(image, 50, rng),
    "jpeg-compressed": lambda image, rng: jpeg(image, 10),
    "blurry": _blurry,
    "motion-blurry": lambda image, rng: motion_blur(image, uniform(5, 25, rng), uniform(0, math.pi, rng)),
    "low-light": lambda image, rng: low_light(image, uniform(4, 16, rng), 1.0, uniform(1, 8, rng), rng),
    "hazy": lambda image, rng: haze(image, uniform(0.7, 1.0, rng), uniform(0.6, 1.8, rng), rng),
    "rainy": lambda image, rng: rain(
        image,
        uniform(0.002, 0.01, rng),
        9 + 2 * int(uniform(0, 6, rng)),
        uniform(-0.5, 0.5, rng),
        uniform(0.3, 0.8, rng),
        rng,
    ),
    "uncompleted": lambda image, rng: masked(image, uniform(0.1, 0.3, rng), 6, rng),
}
