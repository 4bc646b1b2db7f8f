"""Tiles with a halo: large pictures through a network piece by piece.

A tile reads its own rectangle plus a halo, clipped at the border of the image, and writes only its own rectangle. For a
local network this gives the same bits as the whole image on a CPU when (a) the halo is at least the reach, (b) tiles
begin on the grid of the network's strides, (c) nothing is padded at inner borders. For a network with global operators
(pooled or transposed attention) no halo suffices: neighbouring tiles are then blended over a linear ramp.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels: it writes [start, stop) and reads [first, last)."""

    start: int
    stop: int
    first: int
    last: int


def spans(length: int, tile: int, halo: int, stride: int) -> list[Span]:
    """Cut `length` into the fewest spans of at most `tile`, then make them equal; all on the grid of `stride`.

    `length` is a multiple of `stride`; `tile` is raised to one if it is smaller, `halo` is rounded up to one.
    """
    if length % stride:
        raise ValueError(f"expected a length on the grid of {stride}, found {length}")
    count = math.ceil(length / max(tile // stride * stride, stride))
    core = math.ceil(length / count / stride) * stride
    margin = math.ceil(halo / stride) * stride
    return [
        Span(start, min(start + core, length), max(start - margin, 0), min(start + core + margin, length))
        for start in range(0, length, core)
    ]


def tiled(
    network: Callable[[Tensor], Tensor],
    lq: Tensor,
    *,
    tile: int | None,
    halo: int,
    stride: int,
    blend: bool = False,
) -> Tensor:
    """Run `network` (B, C, H, W) -> (B, 3, H, W) over `lq` (C, H, W) in tiles; returns (3, H, W).

    `tile` is the side of the rectangle that a tile writes, in pixels; None takes the whole image. The image is padded
    by reflection to the grid of `stride` and cropped again, with and without tiles alike. With `blend`, tiles overlap
    by half their halo on each side of a cut and are mixed over a linear ramp there.
    """
    height, width = lq.shape[-2:]
    lq = pad_reflect(lq, 0, -width % stride, 0, -height % stride)
    if tile is None or (tile >= lq.shape[-2] and tile >= lq.shape[-1]):
        return network(lq[None])[0, :, :height, :width]
    restored = torch.zeros(3, *lq.shape[-2:], dtype=lq.dtype, device=lq.device)
    rows = spans(lq.shape[-2], tile, halo, stride)
    columns = spans(lq.shape[-1], tile, halo, stride)
    for row in _with_ramps(rows, halo if blend else 0):
        for column in _with_ramps(columns, halo if blend else 0):
            piece = network(lq[None, :, row.span.first : row.span.last, column.span.first : column.span.last])[0]
            piece = piece[:, row.inside, column.inside]
            if blend:
                piece = piece * row.weight.to(piece)[:, None] * column.weight.to(piece)
                restored[:, row.outside, column.outside] += piece
            else:
                restored[:, row.outside, column.outside] = piece
    return restored[:, :height, :width]


def overlapping(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    tile: int,
    overlap: int,
    weight: "Callable[[int, int], Tensor] | None" = None,
) -> Tensor:
    """Tiles of one size that overlap and are averaged, as several published methods do it; for a `network` that keeps the
    size, (B, C, H, W) to (B, C', H, W).

    The last tile of a row or column is moved back to end at the border. `weight` gives the weights along one side from its
    length and the overlap, by default a linear ramp over the overlap at both ends.
    """
    height, width = x.shape[-2:]
    along = weight or _ramp
    total = x.new_zeros(())
    weights = x.new_zeros(height, width)
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            rows, columns = slice(top, min(top + tile, height)), slice(left, min(left + tile, width))
            piece = network(x[..., rows, columns])
            if not total.ndim:
                total = piece.new_zeros(*piece.shape[:2], height, width)
            each = (along(piece.shape[-2], overlap)[:, None] * along(piece.shape[-1], overlap)).to(piece)
            total[..., rows, columns] += piece * each
            weights[rows, columns] += each
    return total / weights


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    last = max(length - tile, 0)
    return [*range(0, last, tile - overlap), last]


def _ramp(length: int, overlap: int) -> Tensor:
    """A linear ramp over `overlap` at both ends, nowhere zero."""
    distance = torch.arange(length) + 1
    return torch.minimum(distance, distance.flip(0)).clamp(max=max(overlap, 1)) / max(overlap, 1)


@dataclass(frozen=True)
class _Ramped:
    """A span, the part of its network output that counts, where that goes, and its weight there; weights sum to 1."""

    span: Span
    inside: slice
    outside: slice
    weight: Tensor


def _with_ramps(row: list[Span], halo: int) -> Iterator[_Ramped]:
    # The outer half of the halo is thrown away: it is what the missing context spoils most.
    reach = min([halo // 2, *((span.stop - span.start) // 2 for span in row)])
    end = row[-1].stop
    for span in row:
        low, high = max(span.start - reach, 0), min(span.stop + reach, end)
        position = torch.arange(low, high) + 0.5
        weight = torch.ones(high - low)
        if reach and span.start > 0:
            weight = weight.minimum((position - (span.start - reach)) / (2 * reach))
        if reach and span.stop < end:
            weight = weight.minimum((span.stop + reach - position) / (2 * reach))
        yield _Ramped(span, slice(low - span.first, high - span.first), slice(low, high), weight)


def pad_reflect(image: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pad (C, H, W) or (B, C, H, W) by reflection without repeating the edge, which keeps a mosaic's colours in step.

    Reflection cannot add more than the image has: small images are padded in several steps, and a single row or
    column, which has nothing to reflect, is repeated.
    """
    batched = image if image.ndim == 4 else image[None]
    while left or right or top or bottom:
        height, width = batched.shape[-2:]
        now = [min(left, width - 1), min(right, width - 1), min(top, height - 1), min(bottom, height - 1)]
        if width == 1 and (left or right):
            now[:2] = left, right
            batched = F.pad(batched, (left, right, 0, 0), mode="replicate")
        else:
            batched = F.pad(batched, (now[0], now[1], 0, 0), mode="reflect")
        if height == 1 and (top or bottom):
            now[2:] = top, bottom
            batched = F.pad(batched, (0, 0, top, bottom), mode="replicate")
        else:
            batched = F.pad(batched, (0, 0, now[2], now[3]), mode="reflect")
        left, right, top, bottom = left - now[0], right - now[1], top - now[2], bottom - now[3]
    return batched if image.ndim == 4 else batched[0]
