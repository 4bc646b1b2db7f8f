"""Kernels in Triton for `ntire.picture.levels`: what is read once is converted, laid out and written once.

Divisions and roundings are those of IEEE 754, so that the bits are those of the host. `TRITON_INTERPRET=1` runs them there.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
"""Pixels of one program."""


@triton.jit
def _clipped(value):
    return tl.minimum(tl.maximum(value, 0.0), 1.0)


@triton.jit
def _enter(
    levels, image, top, pixels, width,
    from_b, from_c, from_h, from_w, to_b, to_c, to_h, to_w,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    y, x = pixel // width, pixel % width
    batch = tl.program_id(1).to(tl.int64)
    source, target = levels + batch * from_b + y * from_h + x * from_w, image + batch * to_b + y * to_h + x * to_w
    for channel in tl.static_range(CHANNELS):
        level = tl.load(source + channel * from_c, mask=inside, other=0).to(tl.float32)
        value = tl.div_rn(level, top)
        tl.store(target + channel * to_c, value.to(image.dtype.element_ty), mask=inside)


@triton.jit
def _at(y, x, rggb0, rggb1, rggb2, rggb3):
    """Which of four numbers is of the pixel (y, x) of a mosaic."""
    return tl.where(y % 2 == 0, tl.where(x % 2 == 0, rggb0, rggb1), tl.where(x % 2 == 0, rggb2, rggb3))


@triton.jit
def _enter_mosaic(
    samples, mosaic, pixels, width, top, left, from_h, from_w,
    black0, black1, black2, black3, span0, span1, span2, span3, gain0, gain1, gain2, gain3,
    BLOCK: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    # What lies in front is reflected at the first row or column, which is not repeated.
    y, x = tl.abs(pixel // width - top), tl.abs(pixel % width - left)
    sample = tl.load(samples + y * from_h + x * from_w, mask=inside, other=0).to(tl.float32)
    value = tl.div_rn(sample - _at(y, x, black0, black1, black2, black3), _at(y, x, span0, span1, span2, span3))
    value = _clipped(_clipped(value) * _at(y, x, gain0, gain1, gain2, gain3))
    tl.store(mosaic + pixel, value.to(mosaic.dtype.element_ty), mask=inside)


@triton.jit
def _decoded(value):
    # Powers by exponent and logarithm, as the hardware has them.
    high = tl.exp2(2.4 * tl.log2((tl.maximum(value, 0.04045) + 0.055) / 1.055))
    return tl.where(value <= 0.04045, value / 12.92, high)


@triton.jit
def _encoded(light):
    high = 1.055 * tl.exp2(tl.log2(tl.maximum(light, 0.0031308)) / 2.4) - 0.055
    return tl.where(light <= 0.0031308, light * 12.92, high)


@triton.jit
def _rounded(value, top, TYPE: tl.constexpr):
    # Beside 2^23 a float32 has no room for a fraction: the sum is rounded to the nearest level, half to even.
    return ((value * top + 8388608.0) - 8388608.0).to(TYPE)


@triton.jit
def _leave(
    image, levels, finite, top, pixels, width,
    from_c, from_h, from_w, to_c, to_h, to_w,
    rr, rg, rb, gr, gg, gb, br, bg, bb,
    COLOURS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    y, x = pixel // width, pixel % width
    source, target = image + y * from_h + x * from_w, levels + y * to_h + x * to_w
    r = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(source + from_c, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(source + 2 * from_c, mask=inside, other=0.0).to(tl.float32)
    largest = 3.4028234663852886e38
    numbers = (tl.abs(r) <= largest) & (tl.abs(g) <= largest) & (tl.abs(b) <= largest)
    tl.store(finite + pixel * 0, 0, mask=inside & (numbers == 0))
    r, g, b = _clipped(r), _clipped(g), _clipped(b)
    if COLOURS:
        r, g, b = _decoded(r), _decoded(g), _decoded(b)
        red, green, blue = rr * r + rg * g + rb * b, gr * r + gg * g + gb * b, br * r + bg * g + bb * b
        r, g, b = _encoded(_clipped(red)), _encoded(_clipped(green)), _encoded(_clipped(blue))
    tl.store(target, _rounded(r, top, levels.dtype.element_ty), mask=inside)
    tl.store(target + to_c, _rounded(g, top, levels.dtype.element_ty), mask=inside)
    tl.store(target + 2 * to_c, _rounded(b, top, levels.dtype.element_ty), mask=inside)


def enter(levels: Tensor, image: Tensor, top: float) -> None:
    """Levels (B, C, H, W) over `top` into an image of their size."""
    batch, channels, height, width = levels.shape
    if not levels.numel():
        return
    grid = (triton.cdiv(height * width, BLOCK), batch)
    with torch.cuda.device_of(levels):
        # Products and sums are not fused, which would round once where the host rounds twice.
        _enter[grid](
            levels, image, top, height * width, width, *levels.stride(), *image.stride(),
            CHANNELS=channels, BLOCK=BLOCK, enable_fp_fusion=False,
        )  # fmt: skip


def enter_mosaic(
    samples: Tensor, mosaic: Tensor, black: Sequence[float], span: Sequence[float], gains: Sequence[float]
) -> None:
    """Sensor values (1, H, W) without their black levels, over their spans, times their gains, into a contiguous mosaic that
    is as large or has a reflected row or column more in front.
    """
    _, height, width = mosaic.shape
    with torch.cuda.device_of(samples):
        _enter_mosaic[(triton.cdiv(height * width, BLOCK),)](
            samples, mosaic, height * width, width, height - samples.shape[1], width - samples.shape[2],
            *samples.stride()[1:], *black, *span, *gains, BLOCK=BLOCK, enable_fp_fusion=False,
        )  # fmt: skip


def leave(image: Tensor, levels: Tensor, finite: Tensor, top: float, ccm: Sequence[float]) -> None:
    """An image (3, h, w), in a camera's colours if there is a `ccm` of nine numbers, into levels of its size."""
    _, height, width = image.shape
    if not image.numel():
        return
    with torch.cuda.device_of(image):
        _leave[(triton.cdiv(height * width, BLOCK),)](
            image, levels, finite, top, height * width, width, *image.stride(), *levels.stride(), *(ccm or [0.0] * 9),
            COLOURS=bool(ccm), BLOCK=BLOCK, enable_fp_fusion=False,
        )  # fmt: skip


def try_out() -> None:
    """Convert two pixels; raises what a missing compiler or a device without kernels raises."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    levels = torch.zeros(1, 3, 1, 2, dtype=torch.uint8, device=device)
    enter(levels, torch.empty(levels.shape, device=device), 255.0)
