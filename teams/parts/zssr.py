"""Zero-shot super-resolution (Shocher et al. 2018): a small network learns from the picture itself, then restores it.

    picture -> smaller copies of itself -> crops, halved and brought back to size -> network -> crops     (training)
    picture, brought to its new size    -> network                                                       (result)

The network and its training are those of AIIA's program, which differ from the paper's: residual blocks with group norms,
a fixed number of steps, and the best of the results by a measure of quality where one is given.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Quality = Callable[[Tensor], Tensor]
"""Pictures (B, 3, H, W), RGB in [0, 1], to one value each, more being better, through which gradients go."""
LOOK_EVERY = 100
"""Steps between two looks at the result."""


class Zssr(nn.Module):
    """Trained anew for each picture, from random weights that `seed` fixes; it has no weights of its own to fetch."""

    def __init__(
        self, width: int = 64, layers: int = 8, quality: Quality | None = None, choice: Quality | None = None
    ) -> None:
        """`quality` is raised while it learns; the result that `choice` finds best is kept, `quality` where none is given."""
        super().__init__()
        self.width, self.layers = width, layers
        self.quality = quality
        self.choice = choice or quality

    def forward(
        self,
        image: Tensor,
        *,
        factor: int = 2,
        steps: int = 8000,
        lr: float = 1e-3,
        patch: int = 128,
        batch: int = 8,
        scales: int = 6,
        quality_weight: float = 0.1,
        seed: int = 0,
    ) -> Tensor:
        """One picture (1, 3, H, W), RGB in [0, 1], to `factor` times its size.

        The loss is L1, and `quality_weight` x (1 - quality) with a measure; the result is then the best seen, else the last.
        Counts nothing: on the meta device, where nothing can be learnt, the picture comes back enlarged.
        """
        if image.is_meta:
            return F.interpolate(image, scale_factor=float(factor), mode="bicubic")
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(seed)
            network = _Network(self.width, self.layers).to(image.device)
            image = image.detach().float().clone()
            copies, shares = _copies(image, patch, scales)
            optimizer = torch.optim.Adam(network.parameters(), lr)
            wanted = F.interpolate(image, scale_factor=float(factor), mode="bicubic").clamp(0, 1)
            best, best_quality = network(wanted).detach(), -math.inf
            for step in range(steps):
                for group in optimizer.param_groups:
                    group["lr"] = lr * (1e-3 + (1 - 1e-3) * (1 + math.cos(math.pi * step / steps)) / 2)
                gt = _crops(copies, shares, patch, batch, generator)
                restored = network(_worse(gt, factor))
                loss = (restored - gt).abs().mean()
                if self.quality is not None:
                    loss = loss + quality_weight * (1 - self.quality(restored)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if (step + 1) % LOOK_EVERY == 0 or step + 1 == steps:
                    with torch.no_grad():
                        result = network(wanted)
                        found = math.inf if self.choice is None else float(self.choice(result).mean())
                    if self.choice is None or found > best_quality:
                        best, best_quality = result, found
        return best


class _Network(nn.Module):
    """Convolution, residual blocks with one skip around all of them, convolution, and a tanh to [0, 1]."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.blocks = nn.Sequential(*(_Residual(width) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        restored: Tensor = self.last(self.blocks(first) + first)
        return restored.tanh() * 0.5 + 0.5


class _Residual(nn.Module):
    """Norm, SiLU, convolution, twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        groups = min(32, width)
        self.body = nn.Sequential(
            nn.GroupNorm(groups, width, eps=1e-6), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(groups, width, eps=1e-6), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.body(x)
        return x + added


def _copies(image: Tensor, patch: int, scales: int) -> tuple[list[Tensor], Tensor]:
    """The picture at `scales` sizes from that of a crop (1/5 at least) to its own, and how often each is used."""
    short = min(image.shape[-2:])
    least = 1 / min(5.0, max(short / patch, 1.0))
    ratios = [least + (1 - least) * number / scales for number in range(1, scales + 1)]
    sizes = [[max(int(side * ratio), 1) for side in image.shape[-2:]] for ratio in ratios]
    return [_resized(image, size) for size in sizes], torch.tensor(ratios).square()


def _crops(copies: list[Tensor], shares: Tensor, patch: int, batch: int, generator: torch.Generator) -> Tensor:
    """Crops (batch, 3, patch, patch) at random places, half of them turned by a right angle, half mirrored."""
    crops = []
    for number in torch.multinomial(shares, batch, replacement=True, generator=generator).tolist():
        copy = copies[number]
        height, width = copy.shape[-2:]
        side = min(patch, height, width)
        draw = torch.rand(5, generator=generator).tolist()
        top, left = int(draw[0] * (height - side + 1)), int(draw[1] * (width - side + 1))
        crop = copy[..., top : top + side, left : left + side]
        crop = crop.rot90(1 + int(draw[3] * 3), (2, 3)) if draw[2] < 0.5 else crop
        crops.append(_resized(crop.flip(3) if draw[4] < 0.5 else crop, [patch, patch]))
    return torch.cat(crops)


def _worse(gt: Tensor, factor: int) -> Tensor:
    """Smaller by `factor` and back, which is what the network learns to undo."""
    small = _resized(gt, [side // factor for side in gt.shape[-2:]])
    return F.interpolate(small, size=gt.shape[-2:], mode="bicubic").clamp(0, 1)


def _resized(image: Tensor, size: list[int]) -> Tensor:
    """Bilinear without antialiasing, as OpenCV does it."""
    return image if list(image.shape[-2:]) == size else F.interpolate(image, size=size, mode="bilinear")
