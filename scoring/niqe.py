"""NIQE (Mittal et al. 2013) on tensors, wherever they are: what pyiqa computes by general means, by those that fit.

Statistics of luma with local mean and contrast removed, in blocks of 96 pixels and again at half the size, are compared with
those of pristine pictures. Blurs are sums of shifted pictures, and the shape of a distribution is found in its table by
bisection; all goes by bands of blocks, which stay in the cache.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 96
REACH = 3
"""Of the 7 x 7 Gaussian of sigma 7/6."""
BAND_PIXELS = {"cpu": 1 << 16, "cuda": 1 << 24}
"""Of a band of blocks: on a CPU what its cache holds, on a GPU what keeps it busy."""
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def niqe(luma: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """The distance of a picture's luma (H, W), whole levels of 255, from the model's mean (36) and covariance (36, 36).

    Looks at whole blocks from the top left. Raises ValueError where too few blocks have texture.
    """
    height, width = (side // BLOCK * BLOCK for side in luma.shape)
    luma = luma[:height, :width].double()
    found = torch.cat([_features(luma, BLOCK), _features(_half(luma), BLOCK // 2)], dim=1)
    broken = found.isnan()
    whole = found[~broken.any(dim=1)]
    if len(whole) < 2:
        raise ValueError(f"{len(whole)} of {len(found)} blocks of {BLOCK} x {BLOCK} have texture, two are needed")
    # As the authors' program: a block without texture in one respect counts in the means of the others.
    difference = mean - found.masked_fill(broken, 0).sum(dim=0) / (~broken).sum(dim=0)
    spread = torch.linalg.pinv((covariance + torch.cov(whole.T)) / 2)
    return (difference @ spread @ difference).sqrt()


def _features(luma: Tensor, block: int) -> Tensor:
    """Of each block of (H, W): shape and scale of its values, and four numbers of its products with each neighbour, (N, 18)."""
    found = []
    for band in _bands(luma, block):
        blocks = band.reshape(block, -1, block).transpose(0, 1)
        shape, left, right = _asymmetric(blocks)
        columns = [shape, (left + right) / 2]
        for shift in NEIGHBOURS:
            shape, left, right = _asymmetric(blocks * blocks.roll(shift, dims=(1, 2)))
            middle = (right - left) * ((2 / shape).lgamma() - (1 / shape).lgamma()).exp()
            columns += [shape, middle, left, right]
        found.append(torch.stack(columns, dim=1))
    return torch.cat(found)


def _bands(luma: Tensor, block: int) -> Iterator[Tensor]:
    """Rows of blocks of the picture without its local mean and contrast, each (block, W)."""
    height, width = luma.shape
    high = max(BAND_PIXELS[luma.device.type] // (width * block), 1) * block
    for top in range(0, height, high):
        bottom = min(top + high, height)
        first, last = max(top - REACH, 0), min(bottom + REACH, height)
        around = (REACH, REACH, REACH - (top - first), REACH - (last - bottom))
        area = pad(luma[None, None, first:last], around, mode="replicate")[0, 0]
        mean, square = _blurred(area), _blurred(area * area)
        contrast = ((square - mean * mean).abs() + torch.finfo(luma.dtype).eps).sqrt()
        plain = (luma[top:bottom] - mean) / (contrast + 1)
        yield from plain.reshape(-1, block, width)


def _blurred(area: Tensor) -> Tensor:
    """Each pixel's neighbourhood weighed, (H + 6, W + 6) to (H, W): left with right and above with below, which weigh alike."""
    width, height = area.shape[1] - 2 * REACH, area.shape[0] - 2 * REACH
    total, pair = area.new_zeros(height, width), area.new_empty(height, width)
    for across in range(REACH + 1):
        both = area[:, REACH - across : REACH - across + width]
        if across:
            both = both + area[:, REACH + across : REACH + across + width]
        for down, weight in enumerate(_gaussian()[across]):
            above, below = (both[start : start + height] for start in (REACH - down, REACH + down))
            total += torch.mul(above, weight, out=pair) if not down else torch.add(above, below, out=pair).mul_(weight)
    return total


@cache
def _gaussian() -> tuple[tuple[float, ...], ...]:
    """The weights of one quarter, middle first. In float32, as pyiqa has them: their sum is not quite one, and so even areas
    of one colour have a sign.
    """
    half = torch.exp(-(torch.arange(-REACH, REACH + 1).double() ** 2) / (2 * (7 / 6) ** 2))
    window = half[:, None] * half
    quarter = (window / window.sum()).float()[REACH:, REACH:]
    return tuple(tuple(float(weight) for weight in row) for row in quarter)


def _asymmetric(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape, left and right scale of the asymmetric generalised Gaussian of each block's values (N, h, w), each (N)."""
    flat = blocks.flatten(1)
    positive, negative = flat.clamp_min(0), flat.clamp_max(0)
    squares = [torch.linalg.vecdot(side, side) for side in (negative, positive)]
    counts = [(flat < 0).sum(dim=1), (flat > 0).sum(dim=1)]
    left, right = ((square / count).sqrt() for square, count in zip(squares, counts, strict=True))
    size = flat.shape[1]
    ratio = left / right
    spread = ((positive.sum(dim=1) - negative.sum(dim=1)) / size).square() / ((squares[0] + squares[1]) / size)
    wanted = spread * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1).square()
    shapes, ratios = _shapes(flat.device)
    above = torch.searchsorted(ratios, wanted).clamp(1, len(ratios) - 1)
    nearest = torch.where((ratios[above - 1] - wanted).abs() <= (ratios[above] - wanted).abs(), above - 1, above)
    shape = shapes[nearest.masked_fill(wanted.isnan(), 0)]
    scale = ((1 / shape).lgamma() - (3 / shape).lgamma()).exp().sqrt()
    return shape, left * scale, right * scale


@cache
def _shapes(device: torch.device) -> tuple[Tensor, Tensor]:
    """Shapes from 0.2 to 10, and the ratio of squared mean to mean square of a distribution of each, which grows with it."""
    shapes = torch.arange(0.2, 10 + 0.001, 0.001).double()
    ratios = (2 * (2 / shapes).lgamma() - ((1 / shapes).lgamma() + (3 / shapes).lgamma())).exp()
    return shapes.to(device), ratios.to(device)


def _half(luma: Tensor) -> Tensor:
    """Half the size by MATLAB's bicubic interpolation with antialiasing, in float32 as pyiqa does it, to the bit."""
    small = (luma / 255).float()
    weights = _cubic()
    for axis in (0, 1):
        length = small.shape[axis] // 2
        # Beyond the border the picture is seen in a mirror on the edge of its last pixel.
        ends = (small.narrow(axis, 0, 3).flip(axis), small, small.narrow(axis, 2 * length - 3, 3).flip(axis))
        seen = torch.cat(ends, dim=axis)
        pairs = seen.reshape(*seen.shape[:axis], -1, 2, *seen.shape[axis + 1 :])
        total: Tensor | None = None
        for number, weight in enumerate(weights):
            taken = pairs.select(axis + 1, number % 2).narrow(axis, number // 2, length) * weight
            total = taken if total is None else total.add_(taken)
        assert total is not None
        small = total
    return small.double() * 255


@cache
def _cubic() -> tuple[float, ...]:
    """The eight weights of a pixel of half the size: Keys' cubic with a = -1/2, twice as wide, in float32."""
    distance = ((4.5 - torch.arange(10)) * 0.5).abs()
    inner = 1.5 * distance**3 - 2.5 * distance * distance + 1
    outer = -0.5 * distance**3 + 2.5 * distance * distance - 4 * distance + 2
    weights = inner * (distance <= 1) + outer * ((distance > 1) & (distance <= 2))
    return tuple(float(one) for one in (weights / weights.sum())[1:-1])
