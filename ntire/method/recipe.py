"""A training recipe as data: what a report says, stage by stage, to be scaled by options."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

from torch import Generator, Tensor, nn

from ntire import UserError

OwnLoss = Literal["own", "generation", "orthogonality", "importance"]
"""Losses that a method computes itself, from its features, weights or gradients."""
OWN: tuple[OwnLoss, ...] = get_args(OwnLoss)
Loss = Literal["l1", "l2", "ssim", "fft", "perceptual", "lpips", "dists", "distill", "gan", "vsd"] | OwnLoss
Degradation = Callable[[Tensor, Generator], tuple[Tensor, Tensor]]
"""A clean image (3, H, W) and a generator to the pair (lq, gt)."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training with one patch size, one learning-rate curve and one sum of losses."""

    name: str
    iterations: int
    patch: int
    """Side of the training patches, in pixels of the full-size picture."""
    batch: int
    lr: float
    lr_end: float
    """Learning rate at the end; a cosine leads from `lr` to it."""
    losses: Mapping[Loss, float]
    """Weight of each loss in the sum."""
    warmup: int = 0
    """Iterations at the start in which the rate rises evenly from nearly nothing."""
    degradation: Degradation | None = field(default=None, repr=False)
    """What makes its pairs, where that is not the recipe's."""
    paired: bool = field(default=False, repr=False)
    """Whether its damage cannot be made from clean pictures, so that it needs `pairs`."""
    pairs: Path | None = field(default=None, repr=False)
    """A folder with `lq` and `gt` whose pictures it is trained on, instead of pairs that are made."""

    def lr_at(self, step: int) -> float:
        """The learning rate of iteration `step` (0 ... iterations - 1): after the warm-up half a cosine to `lr_end`."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.iterations - self.warmup - 1, 1)
        return self.lr_end + (self.lr - self.lr_end) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Recipe:
    """How a method is trained."""

    degradation: Degradation
    stages: tuple[Stage, ...]
    source: str
    """Which figures are the report's and which are ours."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    clip_gradient: float = 1.0
    """Largest norm of the gradient of all parameters together."""
    ema: float = 0.999
    """Decay of the running average of the weights, which is what is validated and saved."""
    teacher: str = ""
    """The team's variant on the same track whose result the loss `distill` compares with."""

    @property
    def losses(self) -> set[Loss]:
        """All losses of all stages."""
        return {loss for stage in self.stages for loss in stage.losses}

    def with_pairs(self, folders: Mapping[str, Path]) -> "Recipe":
        """The same recipe with folders of paired pictures for some stages, by their names.

        Raises UserError for a stage that it does not have.
        """
        self._refuse_unknown(folders)
        stages = tuple(replace(stage, pairs=folders.get(stage.name, stage.pairs)) for stage in self.stages)
        return replace(self, stages=stages)

    def _refuse_unknown(self, names: Iterable[str]) -> None:
        unknown = set(names) - {stage.name for stage in self.stages}
        if unknown:
            known = ", ".join(stage.name for stage in self.stages)
            raise UserError(f"the recipe has no stage {', '.join(sorted(unknown))}; it has: {known}.")

    def scaled(
        self,
        *,
        stages: tuple[str, ...] = (),
        without: tuple[str, ...] = (),
        iterations: int | None = None,
        batch: int | None = None,
        patch: int | None = None,
        lr: float | None = None,
    ) -> "Recipe":
        """The same recipe cut to a budget: only the named stages, without some losses, `iterations` in all shared out in
        proportion, and one batch, patch or learning rate for all stages where given (the end rate keeps its ratio; a stage of
        rate 0 learns nothing, and stays so).

        Raises UserError for a stage or a loss that it does not have, and for a stage that is left without any loss.
        """
        self._refuse_unknown(stages)
        kept = [stage for stage in self.stages if not stages or stage.name in stages]
        strange = set(without) - self.losses
        if strange:
            raise UserError(
                f"the recipe has no loss {', '.join(sorted(strange))}; it has: {', '.join(sorted(self.losses))}."
            )
        kept = [replace(stage, losses={k: v for k, v in stage.losses.items() if k not in without}) for stage in kept]
        empty = [stage.name for stage in kept if not stage.losses]
        if empty:
            raise UserError(f"stage {', '.join(empty)} has no loss without {', '.join(without)}. Leave it out as well.")
        total = sum(stage.iterations for stage in kept)
        share = iterations / total if iterations is not None else 1.0
        return replace(
            self,
            stages=tuple(
                replace(
                    stage,
                    iterations=max(round(stage.iterations * share), 1),
                    warmup=round(stage.warmup * share),
                    batch=batch or stage.batch,
                    patch=patch or stage.patch,
                    lr=lr if lr is not None and stage.lr else stage.lr,
                    lr_end=stage.lr_end * (lr / stage.lr) if lr is not None and stage.lr else stage.lr_end,
                )
                for stage in kept
            ),
        )


class Opponent(nn.Module):
    """A network that is trained against the method: the discriminator of a GAN, the score network of VSD."""

    def against(self, method: nn.Module, restored: Tensor) -> Tensor:
        """The method's loss."""
        raise NotImplementedError

    def own(self, method: nn.Module, restored: Tensor, gt: Tensor) -> Tensor:
        """The opponent's own loss; `restored` carries no gradient."""
        raise NotImplementedError


# What training asks of a method beside `forward`, if it has it: each is a protocol of its own, which a method implements by
# having the function.


@runtime_checkable
class BeginsStages(Protocol):
    """A method that trains one part after the other."""

    def begin_stage(self, name: str) -> None:
        """Called before the first batch of each stage of the recipe."""


@runtime_checkable
class BeginsSteps(Protocol):
    """A method that learns more from a batch than lq -> gt."""

    def begin_step(self, lq: Tensor, gt: Tensor, rng: Generator) -> None:
        """Called before each batch of training.

        `rng` follows from the run's seed and the iteration alone: what is drawn from it is drawn again after a stop.
        """


@runtime_checkable
class Remembers(Protocol):
    """A method that must know more than its weights to resume an interrupted training."""

    def memory(self) -> dict[str, Tensor]:
        """What training must know beside the weights."""

    def remember(self, memory: dict[str, Tensor]) -> None:
        """Take back what `memory` gave before the stop."""


@runtime_checkable
class BeginsFrom(Protocol):
    """A method built on others' networks, which may begin from their weights."""

    def begin_from(self, weights: Path) -> None:
        """Fill the networks before training. Raises UserError for weights that do not fit."""


@runtime_checkable
class HasOwnLoss(Protocol):
    """A method with losses of its own, `OWN`."""

    def own_loss(self, name: OwnLoss) -> Tensor:
        """A loss for the last batch that went through `forward` in training."""


@runtime_checkable
class HasOpponent(Protocol):
    """A method that the loss `vsd` can train."""

    def opponent(self) -> Opponent:
        """What is trained against it."""
