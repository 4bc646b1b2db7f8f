"""What makes a clean picture a bad one: seeded functions, and pipelines whose parameters are data.

Images are RGB, float32, [0, 1], (3, H, W); a mosaic is (1, H, W). All randomness comes from the generator that is
passed in, so one seed gives one result whatever ran before.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ntire.picture.image import as_image, as_pixels
from ntire.picture.raw import (
    RawFrame,
    apply_matrix,
    as_matrix,
    balanced_rggb,
    ccm_from_xyz,
    correct_colours,
    demosaic,
    srgb_decode,
    srgb_encode,
)
from ntire.picture.resize import resized

CAMERAS_FROM_XYZ = torch.tensor(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.0970, 0.1581, 0.5181]],
    ]
)
"""Colour matrices of the four cameras of the Darmstadt Noise Dataset (Brooks et al. 2019, section 3.3)."""


def uniform(low: float, high: float, rng: Generator) -> float:
    """One number between `low` and `high`."""
    return low + (high - low) * float(torch.rand((), generator=rng))


def log_uniform(low: float, high: float, rng: Generator) -> float:
    """One number between `low` and `high`, each factor as likely as the next."""
    return math.exp(uniform(math.log(low), math.log(high), rng))


def gaussian_noise(image: Tensor, sigma: float, rng: Generator) -> Tensor:
    """Add white Gaussian noise; `sigma` in levels of 255, as denoising tables state it. Not clipped."""
    return image + torch.randn(image.shape, generator=rng) * (sigma / 255)


def gaussian_blur(image: Tensor, sigma_x: float, sigma_y: float, angle: float, side: int = 0) -> Tensor:
    """Blur with an anisotropic Gaussian: standard deviations in pixels along its axes, turned by `angle` (radians), in a window
    of `side` pixels (0: of three standard deviations each way).
    """
    radius = side // 2 if side else max(1, math.ceil(3 * max(sigma_x, sigma_y)))
    y, x = torch.meshgrid(*[torch.arange(-radius, radius + 1.0)] * 2, indexing="ij")
    along = (x * math.cos(angle) + y * math.sin(angle)) / sigma_x
    across = (y * math.cos(angle) - x * math.sin(angle)) / sigma_y
    kernel = torch.exp(-0.5 * (along**2 + across**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, -1, -1)
    padded = F.pad(image[None], (radius,) * 4, mode="replicate")
    return F.conv2d(padded, kernel, groups=3)[0]


def bilateral(image: Tensor, sigma_space: float, sigma_colour: float) -> Tensor:
    """Smooth, but not across edges: standard deviations in pixels and in values of [0, 1] (Tomasi and Manduchi 1998)."""
    import cv2

    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    smooth = cv2.bilateralFilter(pixels, -1, sigma_colour, sigma_space)
    return torch.from_numpy(smooth).permute(2, 0, 1).contiguous()


def unsharp_mask(image: Tensor, weight: float, sigma: float = 8.0, threshold: float = 10 / 255) -> Tensor:
    """Sharpen as Real-ESRGAN sharpens its targets: add `weight` times the difference from a Gaussian blur where that is larger
    than `threshold`, with a soft border to that mask. Sigma 8 is what its window of 51 pixels means.
    """
    import cv2

    def blur(pixels: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.asarray(cv2.GaussianBlur(pixels, (51, 51), sigma), dtype=np.float32).reshape(pixels.shape)

    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    residual = pixels - blur(pixels)
    mask = blur((np.abs(residual) > threshold).astype(np.float32))
    sharp = np.clip(pixels + weight * residual, 0, 1)
    return torch.from_numpy(mask * sharp + (1 - mask) * pixels).permute(2, 0, 1).contiguous()


def jpeg(image: Tensor, quality: int) -> Tensor:
    """Compress and decompress as a JPEG of `quality` 1 to 100 (4:2:0)."""
    import cv2

    _, buffer = cv2.imencode(".jpg", as_pixels(image)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(buffer, cv2.IMREAD_COLOR)
    return as_image(np.asarray(decoded, dtype=np.uint8)[..., ::-1])


def shrunk_and_enlarged(image: Tensor, factor: float) -> Tensor:
    """Lose what a picture `factor` times smaller cannot hold: by area down, bicubic up."""
    height, width = image.shape[-2:]
    small = F.interpolate(image[None], size=[max(round(side / factor), 1) for side in (height, width)], mode="area")
    return F.interpolate(small, size=(height, width), mode="bicubic", align_corners=False)[0].clamp_min(0)


def mosaic_of(image: Tensor) -> Tensor:
    """Keep the one colour that an RGGB sensor sees at each pixel: (3, H, W) to (1, H, W)."""
    mosaic = image[1:2].clone()
    mosaic[0, 0::2, 0::2] = image[0, 0::2, 0::2]
    mosaic[0, 1::2, 1::2] = image[2, 1::2, 1::2]
    return mosaic


def shot_and_read(iso: float) -> tuple[float, float]:
    """Noise of a sensor at an ISO: variance = shot x signal + read, signal in [0, 1].

    Shot noise grows with the ISO, 1e-6 each, which spans the range 1e-4 to 0.012 of Brooks et al. 2019 between ISO 100
    and 12,000; read noise follows it as in their equation: log read = 2.18 log shot + 1.2.
    """
    shot = iso * 1e-6
    return shot, math.exp(2.18 * math.log(shot) + 1.2)


def sensor_noise(mosaic: Tensor, iso: float, rng: Generator) -> Tensor:
    """Add shot and read noise as a Gaussian whose variance follows the signal. Not clipped."""
    shot, read = shot_and_read(iso)
    deviation = (shot * mosaic.clamp_min(0) + read).sqrt()
    return mosaic + torch.randn(mosaic.shape, generator=rng) * deviation


def bad_pixels(mosaic: Tensor, share: float, rng: Generator) -> Tensor:
    """Replace a `share` of the pixels by random values, as stuck and hot pixels do."""
    hit = torch.rand(mosaic.shape, generator=rng) < share
    return torch.where(hit, torch.rand(mosaic.shape, generator=rng), mosaic)


Number = TypeVar("Number", int, float)


def _one_of(values: tuple[Number, ...], rng: Generator) -> Number:
    return values[int(torch.randint(len(values), (), generator=rng))]


@dataclass(frozen=True)
class NoiseLevels:
    """White Gaussian noise of one of several levels (of 255), each as likely as the next; clipped and cut off to 8 bits."""

    sigmas: tuple[float, ...]

    def __call__(self, gt: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """A clean image (3, H, W) to the pair (lq, gt)."""
        sigma = _one_of(self.sigmas, rng)
        return (gaussian_noise(gt, sigma, rng).clamp(0, 1) * 255).floor() / 255, gt


@dataclass(frozen=True)
class BicubicDegradation:
    """Made smaller as MATLAB does it, and nothing else: what challenges of super-resolution call bicubic."""

    scale: int = 4

    def __call__(self, gt: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """A clean image (3, s H, s W) to the pair (lq, gt), rounded to 8 bits as files are."""
        return as_image(as_pixels(resized(gt, Fraction(1, self.scale)).clamp(0, 1))), gt


@dataclass(frozen=True)
class SrgbDegradation:
    """Blur, then noise, then JPEG, each with a probability of its own; ranges are drawn from uniformly."""

    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.3, 1.2)
    noise_probability: float = 0.9
    noise_sigma: tuple[float, float] = (1.0, 30.0)
    jpeg_probability: float = 0.5
    jpeg_quality: tuple[int, int] = (50, 95)
    untouched: float = 0.0
    """Share of the pictures that stay as they are."""
    bilateral_share: float = 0.0
    """Share of the blurred pictures that a bilateral filter smooths instead of a Gaussian."""

    def __call__(self, gt: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """A clean image (3, H, W) to the pair (lq, gt), rounded to 8 bits as files are."""
        if self.untouched and uniform(0, 1, rng) < self.untouched:
            return as_image(as_pixels(gt)), gt
        lq = gt
        blurred = uniform(0, 1, rng) < self.blur_probability
        if blurred and self.bilateral_share and uniform(0, 1, rng) < self.bilateral_share:
            lq = bilateral(lq, uniform(2, 4, rng), uniform(0.05, 0.2, rng))
        elif blurred:
            sigmas = uniform(*self.blur_sigma, rng), uniform(*self.blur_sigma, rng)
            lq = gaussian_blur(lq, *sigmas, uniform(0, math.pi, rng))
        if uniform(0, 1, rng) < self.noise_probability:
            lq = gaussian_noise(lq, uniform(*self.noise_sigma, rng), rng)
        if uniform(0, 1, rng) < self.jpeg_probability:
            lq = jpeg(lq, round(uniform(*self.jpeg_quality, rng)))
        return as_image(as_pixels(lq)), gt


@dataclass(frozen=True)
class RawDegradation:
    """Unprocess an sRGB picture into what a sensor would have recorded of it (after Brooks et al. 2019).

    Inverse gamma, inverse colour matrix, white balance gains removed, blur, loss of resolution, darkening, mosaic, shot and
    read noise by ISO, bad pixels, quantisation, digital gain. Ranges of factors (ISO, darkening, exposure) are drawn from
    log-uniformly.
    """

    iso: tuple[float, float] = (100.0, 12_800.0)
    iso_levels: tuple[float, ...] = ()
    """The sensor's settings, one of which is drawn; then `iso` is not used."""
    darkening: tuple[float, float] = (1.0, 4.0)
    """The exposure is divided by this and multiplied back after the noise, as a camera's digital gain does."""
    red_gain: tuple[float, float] = (1.0, 2.6)
    blue_gain: tuple[float, float] = (1.0, 2.8)
    blur_probability: float = 0.3
    blur_sigma: tuple[float, float] = (0.3, 0.7)
    blur_sides: tuple[int, ...] = ()
    """Sides of the blur's window in pixels, one of which is drawn; empty for windows as large as the blur."""
    shrinking: tuple[float, float] = (1.0, 1.0)
    """The light loses what a picture smaller by a factor of this range cannot hold."""
    bad_pixel_share: tuple[float, float] = (0.0, 2e-4)
    bits: tuple[int, ...] = (10, 12, 14)
    """Depths of the sensor's converter, one of which is drawn."""
    channel_gain: tuple[float, float] = (1.0, 1.0)
    """Each channel of the clean picture is multiplied by a factor of this range first, for more colours than it has."""
    exposure: tuple[float, float] = (1.0, 1.0)
    """And all of it by a factor of this range, drawn log-uniformly: below 1 for the dark of night, which stays dark."""
    rendered: bool = False
    """The pair's input is the plainly rendered frame (3, H, W), for networks that work on it."""

    def frame(self, gt: Tensor, rng: Generator) -> tuple[RawFrame, Tensor]:
        """An sRGB picture (3, H, W) to a raw frame of it and the white-balanced camera RGB that it is a mosaic of.

        The second is sRGB-encoded, clipped to [0, 1]: what a perfect network would return (`RawFrame.ccm` then gives
        the picture back, but for colours that the camera clips).
        """
        weights = torch.rand(len(CAMERAS_FROM_XYZ), 1, 1, generator=rng)
        ccm = ccm_from_xyz((weights * CAMERAS_FROM_XYZ).sum(0) / weights.sum())
        light = srgb_decode(gt)
        if self.channel_gain != (1.0, 1.0):
            light = light * torch.tensor([uniform(*self.channel_gain, rng) for _ in range(3)])[:, None, None]
        if self.exposure != (1.0, 1.0):
            light = light * log_uniform(*self.exposure, rng)
        balanced = apply_matrix(torch.linalg.inv(ccm), light).clamp(0, 1)
        gains = (uniform(*self.red_gain, rng), 1.0, uniform(*self.blue_gain, rng))
        light = balanced / torch.tensor(gains)[:, None, None]
        if uniform(0, 1, rng) < self.blur_probability:
            sigma = uniform(*self.blur_sigma, rng)
            light = gaussian_blur(light, sigma, sigma, 0.0, _one_of(self.blur_sides, rng) if self.blur_sides else 0)
        if self.shrinking != (1.0, 1.0):
            light = shrunk_and_enlarged(light, uniform(*self.shrinking, rng))
        darkening = log_uniform(*self.darkening, rng)
        iso = _one_of(self.iso_levels, rng) if self.iso_levels else log_uniform(*self.iso, rng)
        sensor = sensor_noise(mosaic_of(light) / darkening, iso, rng)
        sensor = bad_pixels(sensor, uniform(*self.bad_pixel_share, rng), rng)
        top = 2 ** _one_of(self.bits, rng) - 1
        sensor = (sensor.clamp(0, 1) * top).round() / top
        frame = RawFrame((sensor * darkening).clamp(0, 1), "RGGB", gains, as_matrix(ccm), iso)
        return frame, srgb_encode(balanced)

    def __call__(self, gt: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """A clean sRGB image (3, H, W) to (balanced RGGB mosaic (1, H, W) or its rendering, camera RGB (3, H, W))."""
        frame, camera = self.frame(gt, rng)
        mosaic, _ = balanced_rggb(frame)
        return srgb_encode(demosaic(mosaic)) if self.rendered else mosaic, camera


NIGHT = RawDegradation(iso=(100.0, 3200.0), channel_gain=(0.3, 1.0), exposure=(0.01, 1.0))
"""Frames of scenes darker than pictures by day are, under coloured light."""
LAMPS = replace(NIGHT, exposure=(1.0, 6.0))
"""Frames of what shines there: of strong colours, some of them clipped."""


@dataclass(frozen=True)
class RenderedDegradation:
    """An sRGB picture taken again by a sensor and rendered plainly: made into a raw frame with noise, demosaiced, balanced,
    its colours corrected.
    """

    sensor: RawDegradation = RawDegradation(iso=(100.0, 3200.0), darkening=(1.0, 1.0))

    def __call__(self, gt: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """A clean image (3, H, W) to the pair (lq, gt), rounded to 8 bits as files are."""
        frame, _ = self.sensor.frame(gt, rng)
        mosaic, _ = balanced_rggb(frame)
        return as_image(as_pixels(correct_colours(srgb_encode(demosaic(mosaic)), frame.ccm))), gt
