"""PSNR and SSIM of (restored, reference) -> a number; each protocol choice is an argument.

Whatever a file's depth, values are compared as levels of 255 (see `levels`), so the peak is 255.
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ntire.picture.image import Pixels, depth_of, psnr_of

On = Literal["rgb", "ycbcr", "ycbcr-bgr", "yiq"]
"""What is compared: all three channels, BT.601 Y with foot- and headroom as MATLAB's rgb2ycbcr, the same of B, G, R taken for
R, G, B, or full-range Y.
"""
Measure = Callable[[Pixels, Pixels], float]
"""Takes RGB (H, W, 3) in levels of 255 twice, the restored image first."""


Failure = Literal["metric failed", "no crop"]
"""What the row of an image is called for which a metric has no value."""


class MetricError(Exception):
    """A metric has no value for this image; the message says why."""

    status: ClassVar[Failure] = "metric failed"
    """What its row is called."""


def levels(pixels: Pixels) -> Pixels:
    """Pixels of any depth in levels of 255: 8-bit integers as they are, others by `metrics.DEPTH_RULE` as float32."""
    white = depth_of(pixels).white
    if white == 255:
        return pixels
    scaled = pixels.astype(np.float32)
    # By a division, so that 257 times a level is exactly that level again.
    return scaled / np.float32(white / 255) if white > 255 else scaled * np.float32(255)


def psnr(on: On, epsilon: float = 0.0) -> Measure:
    """Peak signal-to-noise ratio of one image in dB, peak 255; infinite for equal images if `epsilon` is 0.

    `epsilon` is added to the mean squared error of values in [0, 1], as pyiqa does.
    """

    def measure(restored: Pixels, gt: Pixels) -> float:
        error = float(np.mean((_samples(restored, on) - _samples(gt, on)) ** 2)) / 255**2 + epsilon
        return psnr_of(error)

    return measure


def ssim(on: On) -> Measure:
    """Structural similarity (Wang et al. 2004) of one image as in MATLAB: 11 x 11 Gaussian of sigma 1.5, only windows
    that lie inside the image, no down-sampling, levels of 255.

    Luma is rounded to whole levels first, and a negative contrast-structure term counts as 0, as in pyiqa. RGB is the
    mean over the channels. Raises MetricError for images smaller than the window.
    """

    def measure(restored: Pixels, gt: Pixels) -> float:
        _at_least(11, gt)
        ours, theirs = (_samples(image, on) for image in (restored, gt))
        if on != "rgb":
            ours, theirs = np.rint(ours), np.rint(theirs)
        return float(np.mean(_ssim_map(ours, theirs)))

    return measure


def ssim_skimage(restored: Pixels, gt: Pixels) -> float:
    """scikit-image's structural similarity with its defaults: uniform 7 x 7 window, sample covariance, RGB mean."""
    from skimage.metrics import structural_similarity

    _at_least(7, gt)
    similarity = structural_similarity(gt, restored, channel_axis=2, data_range=255)  # type: ignore[no-untyped-call]
    return float(similarity)


def ssim_skimage_of(on: On, window: int) -> Measure:
    """The same with a uniform window of another size, on luma or as the mean over R, G, B."""

    def measure(restored: Pixels, gt: Pixels) -> float:
        from skimage.metrics import structural_similarity

        _at_least(window, gt)
        ours, theirs = (_samples(image, on) for image in (restored, gt))
        channels = {"channel_axis": 2} if on == "rgb" else {}
        return float(structural_similarity(theirs, ours, win_size=window, data_range=255, **channels))  # type: ignore[no-untyped-call]

    return measure


def _at_least(window: int, image: Pixels) -> None:
    if min(image.shape[:2]) < window:
        height, width = image.shape[:2]
        raise MetricError(f"SSIM needs at least {window} x {window} pixels, the image has {height} x {width}")


def _ssim_map(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    import cv2

    window = cv2.getGaussianKernel(11, 1.5, cv2.CV_64F)

    def local_mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.sepFilter2D(image, cv2.CV_64F, window, window), dtype=np.float64)[5:-5, 5:-5]

    mean_x, mean_y = local_mean(x), local_mean(y)
    var_x, var_y = local_mean(x * x) - mean_x**2, local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    structure = np.maximum((2 * covariance + c2) / (var_x + var_y + c2), 0)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return np.asarray(luminance * structure, dtype=np.float64)


def _samples(image: Pixels, on: On) -> NDArray[np.float64]:
    """Levels of 255 as float64: (H, W, 3) for RGB, (H, W) for luma."""
    values = image.astype(np.float64)
    if on == "rgb":
        return values
    if on == "ycbcr":
        return np.asarray(16 + values @ np.array([65.481, 128.553, 24.966]) / 255)
    if on == "ycbcr-bgr":
        return np.asarray(16 + values @ np.array([24.966, 128.553, 65.481]) / 255)
    return np.asarray(values @ np.array([0.299, 0.587, 0.114]))
