"""What tells a network the time step: a clock that all its parts see, and experts between which the step chooses."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPERTS = 10
"""One for each degradation of the paper; the gate may mix them."""
PROMPT = 32
"""Numbers that describe a time step."""


class Clock:
    """The time steps (B,) or (1,) of the batch that goes through the network; None where nobody knows."""

    steps: Tensor | None = None

    def prompt(self, width: int, x: Tensor) -> Tensor:
        """Sines and cosines of the steps (Vaswani et al. 2017), (B, width) for `x` (B, ...); zeros where nobody knows."""
        if self.steps is None:
            return x.new_zeros(len(x), width)
        rates = torch.exp(torch.arange(width // 2, device=x.device) * (-math.log(10_000) / max(width // 2 - 1, 1)))
        angles = self.steps.to(x.device)[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1).to(x.dtype).expand(len(x), -1)


class TimeExperts(nn.Module):
    """x + the sum over `count` bottlenecks of share x bottleneck(x); shares follow from the time step and the mean of x.

    They start at zero, so that a network that has learnt without them stays as it was.
    """

    def __init__(self, width: int, clock: Clock, count: int = EXPERTS) -> None:
        super().__init__()
        self.clock = clock
        self.inner = max(width // 6, 1)
        self.down = nn.Conv2d(width, count * self.inner, 1)
        self.up = nn.Conv2d(count * self.inner, width, 1, bias=False)
        self.gate = nn.Linear(PROMPT + width, count)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        shares = self.gate(torch.cat([self.clock.prompt(PROMPT, x), x.mean((2, 3))], dim=1)).softmax(dim=1)
        # All bottlenecks are one: scaling the hidden channels of an expert scales its result.
        hidden = F.gelu(self.down(x)) * shares.repeat_interleave(self.inner, dim=1)[:, :, None, None]
        return x + self.up(hidden)
