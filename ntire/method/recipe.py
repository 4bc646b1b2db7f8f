"""A training recipe as data: what a report says, stage by stage, to be scaled by options."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from ntire import UserError
from ntire.method.weights_files import Weights

if TYPE_CHECKING:
    from torch import Generator, Tensor

OwnLoss = Literal["own", "generation", "orthogonality", "importance"]
"""Losses that a method computes itself, from its features, weights or gradients."""
OWN: tuple[OwnLoss, ...] = get_args(OwnLoss)
Loss = Literal["l1", "l2", "ssim", "fft", "perceptual", "lpips", "dists", "distill", "gan", "vsd"] | OwnLoss
Degradation = Callable[["Tensor", "Generator"], tuple["Tensor", "Tensor"]]
"""A clean image (3, H, W) and a generator to the pair (lq, gt)."""


VGG19 = Weights(
    "vgg19-dcbb9e9d.pth",
    sha256="dcbb9e9d",
    license="BSD-3-Clause; ImageNet terms",
    provenance="official",
    urls=("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",),
    size=575_000_000,
    home="torchvision",
)
"""Of the loss `perceptual`."""


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
