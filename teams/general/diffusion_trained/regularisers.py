"""What keeps restoration and generation together in one network: which weights generate, and three losses.

Paper: Lu et al. 2025; where its formulas are printed in several ways, the docstring says which is taken.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DECAY = 0.05


def generative_share(step: int, decay: float = DECAY) -> float:
    """w(t) = exp(-0.05 t) (eq. 10): the share of the network that generation trains when the damage matches step t."""
    return math.exp(-decay * step)


def generative_blocks(step: int, count: int, decay: float = DECAY) -> int:
    """How many of `count` blocks, from the input on, generation trains: w(t) of them, rounded up."""
    return math.ceil(generative_share(step, decay) * count)


@dataclass
class Blocks:
    """A network's blocks in the order in which a picture goes through them."""

    count: int = 0
    of: dict[str, int] = field(default_factory=dict)
    """The block, from 0, of each parameter; what stands between blocks belongs to the one before it."""
    last_convs: dict[int, str] = field(default_factory=dict)
    """The weight of the last convolution inside each block."""

    def depth(self, name: str) -> float:
        """Where a parameter stands: 0 in the first block, 1 in the last."""
        return self.of[name] / max(self.count - 1, 1)


def blocks_of(network: nn.Module, kind: type[nn.Module], x: Tensor) -> Blocks:
    """Send `x` through a network and note in which order its blocks of a `kind` and its parameters come."""
    found = Blocks()
    names = {module: name for name, module in network.named_modules()}
    inside: list[nn.Module] = []

    def enter(module: nn.Module, _: Any) -> None:
        if isinstance(module, kind):
            found.count += 1
            inside.append(module)
        number = max(found.count - 1, 0)
        for name, _ in module.named_parameters(names[module], recurse=False):
            found.of.setdefault(name, number)
        if isinstance(module, nn.Conv2d) and inside:
            found.last_convs[number] = f"{names[module]}.weight"

    def leave(module: nn.Module, _: Any, __: Any) -> None:
        if inside and module is inside[-1]:
            inside.pop()

    handles = [module.register_forward_pre_hook(enter) for module in network.modules()]
    handles += [module.register_forward_hook(leave) for module in network.modules()]
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    return found


def importance_loss(
    weights: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    importance: Mapping[str, Tensor],
    shares: Mapping[str, float],
) -> Tensor:
    """The sum over all weights of share x (g |d| + (g d)^2), d what training has changed, g how much generation depends on it.

    g is the mean absolute gradient of generation. The quadratic term is half the second derivative, which Gauss-Newton takes
    for 2 g^2; of the three forms in print this is the one that follows from an expansion to second order.
    """
    terms = []
    for name, weight in weights.items():
        change = importance[name] * (weight - before[name])
        terms.append(shares[name] * (change.abs() + change.square()).sum())
    return torch.stack(terms).sum()


def alignment(generative: Tensor, restoring: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosine between the gradients of two groups (n, P), (m, P), and mean cosine of those of one group among themselves:
    equations 6 and 7, whose sums count each gradient's cosine of 1 with itself.
    """
    first, second = F.normalize(generative, dim=1), F.normalize(restoring, dim=1)
    between = (first @ second.T).mean()
    return between, torch.cat([(group @ group.T).flatten() for group in (first, second)]).mean()


def orthogonality(generative: Tensor, restoring: Tensor, exchanged: bool = False) -> Tensor:
    """(1 - s) + |d| of `alignment`'s s and d, as printed; this aligns the groups and makes each one's gradients orthogonal.

    The name and the words around it say the opposite, which is `exchanged`: (1 - d) + |s|.
    """
    between, within = alignment(generative, restoring)
    aligned, decorrelated = (within, between) if exchanged else (between, within)
    return (1 - aligned) + decorrelated.abs()
