"""PSNR and SSIM of (restored, reference) -> a number; each protocol choice is an argument.

Whatever a file's depth, values are compared as levels of 255 (see `levels`), so the peak is 255.
"""

import math
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ntire.picture.image import Pixels, depth_of, psnr_of

On = Literal["rgb", "ycbcr", "ycbcr-bgr", "yiq"]
"""What is compared: all three channels, BT.601 Y with foot- and headroom as MATLAB's rgb2ycbcr, the same of B, G, R taken for
R, G, B, or full-range Y.
"""
MATLAB = np.array([65.481, 128.553, 24.966])
LUMA = {"ycbcr": MATLAB / 255, "ycbcr-bgr": MATLAB[::-1] / 255, "yiq": np.array([0.299, 0.587, 0.114])}
"""How red, green and blue are weighed in it."""
STRIP_PIXELS = 1 << 15
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
        whole = restored.dtype == gt.dtype == np.uint8
        total = _squared_levels(restored, gt, on) if whole else _squared(restored, gt, on)
        return psnr_of(total / (gt.size if on == "rgb" else gt[..., 0].size) / 255**2 + epsilon)

    return measure


def _squared(restored: Pixels, gt: Pixels, on: On) -> float:
    """The sum of the squared differences."""
    return math.fsum(
        float(np.sum((_samples(one, on) - _samples(other, on)) ** 2)) for one, other in _strips(restored, gt)
    )


def _squared_levels(restored: Pixels, gt: Pixels, on: On) -> float:
    """The same of integers, without an error: sums of products of differences are integers, too, and luma is weighed last."""
    import cv2

    if on == "rgb":
        return math.fsum(cv2.norm(one, other, cv2.NORM_L2SQR) for one, other in _strips(restored, gt))
    products = np.zeros((3, 3))
    for one, other in _strips(restored, gt):
        difference = cv2.subtract(one, other, dtype=cv2.CV_16S).reshape(-1, 3)
        products += cv2.mulTransposed(difference, aTa=True, dtype=cv2.CV_64F)
    weights = LUMA[on]
    return float(weights @ products @ weights)


def ssim(on: On) -> Measure:
    """Structural similarity (Wang et al. 2004) of one image as in MATLAB: 11 x 11 Gaussian of sigma 1.5, only windows
    that lie inside the image, no down-sampling, levels of 255.

    Luma is rounded to whole levels first, and a negative contrast-structure term counts as 0, as in pyiqa. RGB is the
    mean over the channels. Raises MetricError for images smaller than the window.
    """

    def measure(restored: Pixels, gt: Pixels) -> float:
        _at_least(11, gt)
        return (
            math.fsum(_ssim_sums(restored, gt, on))
            / ((gt.shape[0] - 10) * (gt.shape[1] - 10))
            / (3 if on == "rgb" else 1)
        )

    return measure


def _ssim_sums(restored: Pixels, gt: Pixels, on: On) -> Iterator[float]:
    """The sum over the windows of each strip, colour by colour."""
    for one, other in _strips(restored, gt, overlap=10):
        ours, theirs = (_samples(image, on) for image in (one, other))
        if on != "rgb":
            ours, theirs = np.rint(ours), np.rint(theirs)
        for x, y in zip(*(np.moveaxis(np.atleast_3d(side), 2, 0) for side in (ours, theirs)), strict=True):
            yield float(np.sum(_ssim_map(x, y)))


def ssim_skimage(restored: Pixels, gt: Pixels) -> float:
    """scikit-image's structural similarity with its defaults: uniform 7 x 7 window, sample covariance, RGB mean."""
    from skimage.metrics import structural_similarity

    _at_least(7, gt)
    total = 0.0
    # Of floats it keeps running sums in float32, which differ from strip to strip.
    for one, other in _strips(restored, gt, overlap=6) if gt.dtype == restored.dtype == np.uint8 else [(restored, gt)]:
        similarity = structural_similarity(other, one, channel_axis=2, data_range=255)  # type: ignore[no-untyped-call]
        total += float(similarity) * (len(one) - 6)
    return total / (len(gt) - 6)


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
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    # Only the sum of the variances is needed.
    variances, covariance = local_mean(x * x + y * y) - squares, local_mean(x * y) - product
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    structure = np.maximum((2 * covariance + c2) / (variances + c2), 0)
    return np.asarray((2 * product + c1) / (squares + c1) * structure, dtype=np.float64)


def _strips(restored: Pixels, gt: Pixels, overlap: int = 0) -> Iterator[tuple[Pixels, Pixels]]:
    """Both pictures in strips of whole rows that a processor's cache holds, each of which begins `overlap` rows before the last
    one ends.
    """
    height, width = gt.shape[:2]
    step = max(STRIP_PIXELS // width, 2 * overlap + 1)
    for top in range(0, height - overlap, step):
        rows = slice(top, min(top + step + overlap, height))
        yield restored[rows], gt[rows]


def _samples(image: Pixels, on: On) -> NDArray[np.float64]:
    """Levels of 255 as float64: (H, W, 3) for RGB, (H, W) for luma."""
    values = image.astype(np.float64)
    if on == "rgb":
        return values
    # In this order of operations: luma that lies between two levels is rounded by its last bit.
    if on == "yiq":
        return np.asarray(values @ LUMA["yiq"])
    return np.asarray(16 + values @ np.ascontiguousarray(MATLAB if on == "ycbcr" else MATLAB[::-1]) / 255)
