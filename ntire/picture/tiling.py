"""Tiles with a halo: large pictures through a network piece by piece.

A tile reads its own rectangle plus a halo, clipped at the border of the image, and writes only its own rectangle. For a
local network this gives the whole image on a CPU, to the bit where libraries sum alike for every size, when (a) the halo is
at least the reach, (b) tiles begin on the grid of the network's strides, (c) nothing is padded at inner borders. For a
network with global operators (pooled or transposed attention) no halo suffices: neighbouring tiles are then blended over a
linear ramp.

Where the memory does not suffice after all, tiles are halved: what is written stays, as rectangles are never written twice.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """One tile along one axis, in pixels: it writes [start, stop) and reads [first, last)."""

    start: int
    stop: int
    first: int
    last: int

    def inside(self, scale: int = 1) -> slice:
        """What it writes, counted from what it reads, in pixels of a result that is `scale` times as large."""
        return slice(scale * (self.start - self.first), scale * (self.stop - self.first))

    def writes(self, scale: int = 1) -> slice:
        """Where in such a result it writes."""
        return slice(scale * self.start, scale * self.stop)


def spans(
    length: int, tile: int, halo: int, stride: int, *, within: tuple[int, int] | None = None, same_size: bool = False
) -> list[Interval]:
    """Cut `length`, or what is `within` it, into the fewest spans of at most `tile`, then make them equal; all on the grid
    of `stride`.

    `length` is a multiple of `stride`; `tile` is raised to one if it is smaller, `halo` is rounded up to one. With
    `same_size`, spans at the border read further into the image, so that all read equally much.
    """
    begin, end = within or (0, length)
    if length % stride or begin % stride or end % stride:
        raise ValueError(f"expected lengths on the grid of {stride}, found {length} from {begin} to {end}")
    count = math.ceil((end - begin) / max(tile // stride * stride, stride))
    core = math.ceil((end - begin) / count / stride) * stride
    margin = math.ceil(halo / stride) * stride
    window = min(core + 2 * margin, length)
    cut = []
    for start in range(begin, end, core):
        first, last = max(start - margin, 0), min(start + core + margin, length)
        if same_size:
            first = min(first, length - window)
            last = first + window
        cut.append(Interval(start, min(start + core, end), first, last))
    return cut


def tiled(
    network: Callable[[Tensor], Tensor],
    lq: Tensor,
    *,
    tile: int | None,
    halo: int,
    stride: int,
    border: int = 0,
    scale: int = 1,
    blend: bool = False,
    batch: int = 1,
    same_size: bool = False,
    finish: Callable[[Tensor], Tensor] = lambda piece: piece,
    shrunk: Callable[[int], None] = lambda side: None,
    advanced: Callable[[int, int], None] = lambda done, of: None,
) -> Tensor:
    """Run `network` (B, C, H, W) -> (B, 3, s H, s W) over `lq` (C, H, W) in tiles; returns (3, s H, s W) with s the `scale`.

    `tile` is the side of the rectangle that a tile writes, in pixels of `lq` as all sides here; None takes the whole image.
    The image is padded by reflection to the grid of `stride`, after `border` pixels all around, and cropped again, with and
    without tiles alike. With `blend`, tiles overlap by half their halo on each side of a cut and are mixed over a linear ramp
    there. Otherwise `batch` tiles that read equally large areas go through the network together (`same_size` makes all of
    them so).

    `finish` works on each value alone, such as rounding: it is applied to pieces (3, h, w) before they are put together, or
    to the whole where that is blended. Out of memory, tiles are halved, which `shrunk` hears; OutOfMemoryError is raised
    when that no longer helps. `advanced` hears the tiles that are done, and of how many.
    """
    height, width = lq.shape[-2:]
    around = math.ceil(border / stride) * stride
    lq = pad_reflect(lq, around, around + -width % stride, around, around + -height % stride)
    rows, columns = (slice(scale * around, scale * (around + length)) for length in (height, width))
    side = max(lq.shape[-2:]) if tile is None else tile
    smallest = max(2 * stride, halo // 2)
    if not blend:
        grid = _Grid(tuple(lq.shape[-2:]), halo, stride, scale, smallest, same_size, shrunk)
        return _exact(network, lq, grid, side, batch, finish, advanced)[:, rows, columns]
    while True:
        restored = _blended(network, lq, side, halo, stride, scale, advanced)
        if restored is not None:
            return finish(restored[:, rows, columns])
        side = _halved(side, smallest, stride, shrunk)


Tile = tuple[Interval, Interval]
"""Rows and columns."""


@dataclass(frozen=True)
class _Grid:
    """How a picture of `size` is cut."""

    size: tuple[int, ...]
    halo: int
    stride: int
    scale: int
    smallest: int
    same_size: bool
    shrunk: Callable[[int], None]

    def cut(self, side: int, within: Tile | None = None) -> list[Tile]:
        rows, columns = (
            spans(
                length,
                side,
                self.halo,
                self.stride,
                within=None if within is None else (within[axis].start, within[axis].stop),
                same_size=self.same_size,
            )
            for axis, length in enumerate(self.size)
        )
        return [(row, column) for row in rows for column in columns]


def _exact(
    network: Callable[[Tensor], Tensor],
    lq: Tensor,
    grid: _Grid,
    side: int,
    batch: int,
    finish: Callable[[Tensor], Tensor],
    advanced: Callable[[int, int], None],
) -> Tensor:
    """Every tile written once, straight into its place."""
    waiting, scale = deque(grid.cut(side)), grid.scale
    restored: Tensor | None = None
    written = 0
    while waiting:
        group = _alike(waiting, batch)
        pieces = _attempt(network, lq, group, scale)
        if pieces is None:
            # What failed is given up here, outside the handler: an exception keeps its frames and their tensors alive.
            batch = 1
            if len(group) > 1:
                waiting.extendleft(reversed(group))
            else:
                side = _halved(side, grid.smallest, grid.stride, grid.shrunk)
                waiting = deque(part for tile in (*group, *waiting) for part in grid.cut(side, tile))
            continue
        for (row, column), piece in zip(group, pieces, strict=True):
            done = finish(piece[:, row.inside(scale), column.inside(scale)])
            if restored is None:
                size = tuple(scale * length for length in grid.size)
                if done.shape[1:] == size:
                    return done
                restored = _canvas(done, size)
            restored[:, row.writes(scale), column.writes(scale)] = done
        written += len(group)
        advanced(written, written + len(waiting))
    assert restored is not None
    return restored


def _alike(waiting: deque[Tile], most: int) -> list[Tile]:
    """Take the next tile from `waiting`, and up to `most` in all as long as they read areas of the same size."""
    group = [waiting.popleft()]
    while waiting and len(group) < most and _reads(waiting[0]) == _reads(group[0]):
        group.append(waiting.popleft())
    return group


def _reads(tile: Tile) -> tuple[int, int]:
    rows, columns = tile
    return rows.last - rows.first, columns.last - columns.first


def _canvas(piece: Tensor, size: tuple[int, ...]) -> Tensor:
    """An empty picture for pieces like this one; integers lie as they do in a file, colour by colour of each pixel."""
    if piece.dtype.is_floating_point:
        return piece.new_empty(piece.shape[0], *size)
    return piece.new_empty(*size, piece.shape[0]).permute(2, 0, 1)


def _attempt(network: Callable[[Tensor], Tensor], lq: Tensor, group: Sequence[Tile], scale: int) -> Tensor | None:
    """The network's output for a group of tiles, or None if the memory does not suffice for it."""
    areas = [lq[None, :, row.first : row.last, column.first : column.last] for row, column in group]
    try:
        pieces = floats_of("the network", network(torch.cat(areas) if len(areas) > 1 else areas[0]))
        height, width = areas[0].shape[2:]
        if pieces.shape[2:] != (scale * height, scale * width):
            found = " x ".join(map(str, pieces.shape[2:]))
            times = f" and a scale of {scale}" if scale > 1 else ""
            raise ValueError(f"the network returned {found} for an input of {height} x {width}{times}")
        return pieces
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    if lq.is_cuda:
        torch.cuda.empty_cache()
    return None


def floats_of(what: str, returned: object) -> Tensor:
    """What code returned for a picture, if it is a tensor of floats; else raises ValueError that says what it is."""
    if isinstance(returned, Tensor) and returned.is_floating_point():
        return returned
    found = f"a tensor of {returned.dtype}" if isinstance(returned, Tensor) else type(returned).__name__
    raise ValueError(f"{what} returned {found}, expected a tensor of floats, 0 being black and 1 white")


NO_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED")
"""How the host, CUDA and its libraries (CUDNN_STATUS_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED, ...) say so."""


def out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the host, had no memory left for a tensor or for what a library needs beside."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def _halved(side: int, smallest: int, stride: int, shrunk: Callable[[int], None]) -> int:
    """Half of `side`, on the grid; raises OutOfMemoryError below `smallest`."""
    half = side // 2 // stride * stride
    if half < smallest:
        raise torch.OutOfMemoryError(f"the memory does not suffice for tiles of {side}, and smaller ones need no less")
    shrunk(half)
    return half


def _blended(
    network: Callable[[Tensor], Tensor],
    lq: Tensor,
    side: int,
    halo: int,
    stride: int,
    scale: int,
    advanced: Callable[[int, int], None],
) -> Tensor | None:
    """Tiles mixed over ramps, or None if the memory does not suffice: smaller tiles have other ramps, so all are redone."""
    rows = list(_with_ramps(spans(lq.shape[-2], side, halo, stride), halo, scale, lq.device))
    columns = list(_with_ramps(spans(lq.shape[-1], side, halo, stride), halo, scale, lq.device))
    restored: Tensor | None = None
    for above, row in enumerate(rows):
        for left, column in enumerate(columns, 1):
            pieces = _attempt(network, lq, [(row.span, column.span)], scale)
            if pieces is None:
                return None
            if len(rows) == len(columns) == 1:
                return pieces[0]
            pieces = pieces.float()
            if restored is None:
                restored = pieces.new_zeros(pieces.shape[1], *(scale * length for length in lq.shape[-2:]))
            weight = row.weight.to(pieces)[:, None] * column.weight.to(pieces)
            restored[:, row.outside, column.outside] += pieces[0][:, row.inside, column.inside] * weight
            advanced(above * len(columns) + left, len(rows) * len(columns))
    return restored


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
            each = _window(along, piece.shape[-2], piece.shape[-1], overlap, piece.device, piece.dtype)
            total[..., rows, columns] += piece * each
            weights[rows, columns] += each
    return total / weights


@lru_cache(maxsize=16)
def _window(
    along: "Callable[[int, int], Tensor]",
    height: int,
    width: int,
    overlap: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Weights of a tile, moved to a device once: each copy would wait for all that it has still to do."""
    return (along(height, overlap)[:, None] * along(width, overlap)).to(device, dtype)


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

    span: Interval
    inside: slice
    outside: slice
    weight: Tensor


def _with_ramps(row: list[Interval], halo: int, scale: int, device: torch.device) -> Iterator[_Ramped]:
    # The outer half of the halo is thrown away: it is what the missing context spoils most.
    reach = min([halo // 2, *((span.stop - span.start) // 2 for span in row)])
    end = row[-1].stop
    for span in row:
        low, high = max(span.start - reach, 0), min(span.stop + reach, end)
        position = (torch.arange(scale * low, scale * high, device=device) + 0.5) / scale
        weight = torch.ones(scale * (high - low), device=device)
        if reach and span.start > 0:
            weight = weight.minimum((position - (span.start - reach)) / (2 * reach))
        if reach and span.stop < end:
            weight = weight.minimum((span.stop + reach - position) / (2 * reach))
        inside = slice(scale * (low - span.first), scale * (high - span.first))
        yield _Ramped(span, inside, slice(scale * low, scale * high), weight)


def pad_reflect(image: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pad (..., H, W), of any dtype, by reflection without repeating the edge, which keeps a mosaic's colours in step.

    A picture smaller than its padding is reflected to and fro; a single row or column, which has nothing to reflect, is
    repeated.
    """
    if not (left or right or top or bottom):
        return image
    if image.dtype == torch.uint16:  # older PyTorch cannot pick its elements
        return pad_reflect(image.view(torch.int16), left, right, top, bottom).view(torch.uint16)
    rows = _mirrored(image.shape[-2], top, bottom, image.device)
    columns = _mirrored(image.shape[-1], left, right, image.device)
    if image.device.type != "cpu":
        return image[..., rows[:, None], columns]  # in one pass, which takes a CPU longer than two along an axis each
    return image.index_select(-2, rows).index_select(-1, columns)


def _mirrored(length: int, before: int, after: int, device: torch.device) -> Tensor:
    """Places in [0, length) of what is seen from `-before` to `length + after` between two mirrors on the outer pixels."""
    period = max(2 * (length - 1), 1)
    # Made where it is used: a copy from the host would wait for all that the device has still to do.
    place = torch.arange(-before, length + after, device=device) % period
    return torch.where(place < length, place, period - place)
