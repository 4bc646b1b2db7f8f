"""How far an input pixel reaches: a NaN spreads to all that depends on it, so one spoiled pixel shows reach and globality."""

import torch

from ntire.method import Method
from ntire.tiling import tiled


@torch.no_grad()
def reach_of(method: Method) -> int | None:
    """Pixels from a block of the stride's grid to the farthest output pixel that depends on it; None if all of them do.

    Any weights will do. A method that says that it is exact is tried at every position on the grid of its stride, in an
    image that has room for twice its halo; one that is global at one position.
    """
    exact = method.tiling == "exact"
    stride = method.stride
    side = (4 * max(method.halo, 2 * stride) if exact else max(64, 2 * stride)) // stride * stride
    lq = torch.rand(method.lq_channels(), side, side, generator=torch.Generator().manual_seed(0))
    lq = lq.to(method.device, method.dtype)
    middle = side // 2
    reached = torch.zeros(side, side, dtype=torch.bool, device=method.device)
    for phase in range(stride if exact else 1):
        spoiled = lq.clone()
        spoiled[:, middle + phase, middle + phase] = float("nan")
        reached |= tiled(method, spoiled, tile=None, halo=0, stride=stride).isnan().any(0)
    if bool(reached.all()):
        return None
    rows, columns = reached.nonzero().unbind(1)
    farthest = [
        distance
        for axis in (rows, columns)
        for distance in (middle - int(axis.min()), int(axis.max()) - middle - stride + 1)
    ]
    return max(farthest)
