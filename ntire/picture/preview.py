"""Pictures of any kind as people look at them: 8 bits of RGB, small where that is enough; raw frames plainly rendered."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ntire.picture.image import Pixels, as_image, as_pixels, read_pixels

Preview = NDArray[np.uint8]
"""RGB, (H, W, 3)."""


def preview(path: Path, *, raw: bool = False) -> Preview:
    """A picture, or with `raw` a raw frame, which is white-balanced, demosaiced and brought to sRGB, not denoised.

    Raises UnreadableImage.
    """
    if raw:
        return _rendered(path)
    return in_8_bits(read_pixels(path))


def in_8_bits(pixels: Pixels) -> Preview:
    """Pixels of any depth rounded to 8 bits."""
    eight: Preview = pixels if pixels.dtype == np.uint8 else as_pixels(as_image(pixels))  # type: ignore[assignment]
    return eight


def shrunk(pixels: Pixels, side: int) -> Preview:
    """At most `side` pixels a side, in 8 bits, each about the mean of those it stands for. A small picture stays as it is."""
    import cv2

    height, width = pixels.shape[:2]
    shrink = side / max(height, width)
    if shrink >= 1:
        return in_8_bits(pixels)
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    if shrink <= 0.5 and not (height % 2 or width % 2):
        # Blocks of four first, for which there is a way of its own: the whole takes half the time.
        pixels = cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return in_8_bits(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))  # type: ignore[arg-type]


def _rendered(path: Path) -> Preview:
    from ntire.picture.raw import balanced_rggb, correct_colours, demosaic, read_raw, srgb_encode

    frame = read_raw(path)
    mosaic, (top, left) = balanced_rggb(frame)
    rendered: Preview = as_pixels(correct_colours(srgb_encode(demosaic(mosaic)), frame.ccm)[:, top:, left:])  # type: ignore[assignment]
    return rendered
