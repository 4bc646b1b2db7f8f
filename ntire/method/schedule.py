"""How the learning rate goes from a stage's `lr` to its `lr_end`: curves as data, over a stage's own length."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from the first rate to the last, `cycles` times over: more than one restarts at the first rate."""

    cycles: int = 1

    def at(self, done: float, lr: float, lr_end: float) -> float:
        """The rate when a share `done` (0 ... 1) of the stage is over."""
        place = done * self.cycles
        place = 1.0 if done >= 1 else place % 1
        return lr_end + (lr - lr_end) * (1 + math.cos(math.pi * place)) / 2


@dataclass(frozen=True)
class Steps:
    """The rate falls at each milestone (a share of the stage) by one factor, as PyTorch's MultiStepLR does; such that it
    ends at `lr_end`.
    """

    milestones: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.milestones or list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"expected milestones in ascending order, found {self.milestones}")
        if not 0 < self.milestones[0] <= self.milestones[-1] < 1:
            raise ValueError(f"milestones are shares of the stage, between 0 and 1; found {self.milestones}")

    def at(self, done: float, lr: float, lr_end: float) -> float:
        """The rate when a share `done` (0 ... 1) of the stage is over."""
        passed = sum(done >= milestone for milestone in self.milestones)
        factor = (lr_end / lr) ** (1 / len(self.milestones)) if lr else 1.0
        return lr_end if passed == len(self.milestones) else lr * factor**passed


def even_steps(count: int) -> Steps:
    """`count` equally long stretches with a fall between them, as PyTorch's StepLR."""
    return Steps(tuple(number / count for number in range(1, count)))


@dataclass(frozen=True)
class Constant:
    """The first rate throughout."""

    def at(self, done: float, lr: float, lr_end: float) -> float:
        """The rate when a share `done` (0 ... 1) of the stage is over."""
        return lr


Curve = Cosine | Steps | Constant
COSINE = Cosine()
"""Once down."""
