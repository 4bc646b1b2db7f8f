"""How far an input pixel reaches: a NaN spreads to all that depends on it, so one spoiled pixel shows reach and globality."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ntire.method import Method
from ntire.picture.image import psnr_of
from ntire.picture.tiling import pad_reflect, tiled

SEAM_TILE = 128


@torch.no_grad()
def reach_of(method: Method) -> int | None:
    """Pixels from a block of the stride's grid to the farthest output pixel that depends on it, in pixels of the input; None if
    all of them do.

    Any weights will do. A method that says that it is exact is tried at every position on the grid of its stride, in an
    image that has room for twice its halo; one that is global at one position.
    """
    exact = method.tiling == "exact"
    stride = method.stride
    side = (4 * max(method.halo, 2 * stride) if exact else max(64, 2 * stride)) // stride * stride
    lq = torch.rand(method.lq_channels(), side, side, generator=torch.Generator().manual_seed(0))
    lq = lq.to(method.device, method.dtype)
    middle = side // 2
    enlarged = method.scale * side
    reached = torch.zeros(enlarged, enlarged, dtype=torch.bool, device=method.device)
    for phase in range(stride if exact else 1):
        spoiled = lq.clone()
        spoiled[:, middle + phase, middle + phase] = float("nan")
        reached |= tiled(method, spoiled, tile=None, halo=0, stride=stride, scale=method.scale).isnan().any(0)
    if bool(reached.all()):
        return None
    rows, columns = (reached.nonzero() // method.scale).unbind(1)
    farthest = [
        distance
        for axis in (rows, columns)
        for distance in (middle - int(axis.min()), int(axis.max()) - middle - stride + 1)
    ]
    return max(farthest)


@dataclass(frozen=True)
class Seams:
    """What tiles change, in levels of 255, over all channels of a picture."""

    tile: int
    height: int
    width: int
    """Of the result."""
    max_levels: float
    mean_levels: float
    psnr_db: float | None
    """Of the tiled picture to the whole one; None where they are the same to the bit."""


@torch.no_grad()
def seam_error(method: Method, tile: int = SEAM_TILE) -> Seams:
    """A photograph, two and a half tiles on each side, in tiles and whole: how far the tiled one is off.

    It is scikit-image's astronaut with a little noise, repeated by reflection as far as needed; on the raw track a mosaic of
    it.
    """
    step = method.stride
    tile = max(tile // step, 1) * step
    side = (5 * tile // 2) // step * step
    lq = _photograph(side)
    if method.lq_channels() == 1:
        row, column = (axis % 2 for axis in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
        lq = lq.gather(0, (row + column)[None])  # RGGB
    lq = lq.to(method.device, method.dtype)
    pieces, whole = (
        tiled(
            method, lq, tile=one, halo=method.halo, stride=step, scale=method.scale, blend=method.tiling == "global"
        ).float()
        for one in (tile, None)
    )
    off = (pieces - whole).abs().double() * 255
    mean_square = float((off / 255).square().mean())
    psnr = psnr_of(mean_square) if mean_square else None
    return Seams(tile, whole.shape[-2], whole.shape[-1], float(off.max()), float(off.mean()), psnr)


def _photograph(side: int) -> Tensor:
    from skimage import data

    picture = torch.from_numpy(data.astronaut()).permute(2, 0, 1) / 255  # type: ignore[no-untyped-call]
    missing = max(side - picture.shape[-1], 0)
    picture = pad_reflect(picture, 0, missing, 0, missing)[:, :side, :side]
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    return (picture + noise * 4 / 255).clamp(0, 1)
