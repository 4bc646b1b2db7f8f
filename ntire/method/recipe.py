"""A training recipe as data: what a report says, stage by stage, to be scaled by options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

from torch import Generator, Tensor, nn

from ntire import UserError
from ntire.method.schedule import COSINE, Curve
from ntire.text import nearest

OwnLoss = Literal["own", "generation", "orthogonality", "importance"]
"""Losses that a method computes itself, from its features, weights or gradients."""
OWN: tuple[OwnLoss, ...] = get_args(OwnLoss)
Loss = (
    Literal[
        "l1", "l2", "psnr", "ssim", "colour", "fft", "fft-scaled", "perceptual", "perceptual-l2", "identity", "lpips",
        "dists", "distill", "gan", "vsd",
    ]
    | OwnLoss
)  # fmt: skip
Degradation = Callable[[Tensor, Generator], tuple[Tensor, Tensor]]
"""A clean image (3, H, W) and a generator to the pair (lq, gt)."""


STEADIED = (
    "In training, the average of the weights, the limit of 1 on gradients and quarter turns of pictures are ours."
)
"""The caveat of methods whose recipe is `steadied`."""


@dataclass(frozen=True)
class Part:
    """One kind of picture among those that a stage draws from."""

    name: str
    degradation: Degradation | None = None
    """What makes its pairs of clean pictures; None where it cannot be made, so that it needs `pairs`."""
    share: float | None = None
    """Of the samples; where no part has one, a part is drawn as often as its pictures, counted `repeats` times."""
    repeats: int = 1
    fresh: bool = False
    """Whether it is made of clean pictures in the report as well, so that its repeats count for shared pictures, too."""
    own: bool = False
    """Whether its clean pictures are of a kind of their own, such as portraits, so that it needs `pictures` or `pairs`."""
    pictures: Path | None = None
    """A folder of clean pictures, instead of the one that all parts share."""
    pairs: Path | None = None
    """A folder with `lq` and `gt`, instead of pairs that are made."""

    @property
    def lacking(self) -> bool:
        """Whether it needs a folder that nobody has named."""
        return self.pairs is None and (self.degradation is None or (self.own and self.pictures is None))


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
    """Learning rate at the end, to which `curve` leads from `lr`."""
    losses: Mapping[Loss, float]
    """Weight of each loss in the sum."""
    warmup: int = 0
    """Iterations at the start in which the rate rises evenly from nearly nothing."""
    curve: Curve = COSINE
    sharpened: float = 0.0
    """Weight of the unsharp mask on its targets, as Real-ESRGAN's 0.5; 0 leaves them as they are."""
    degradation: Degradation | None = field(default=None, repr=False)
    """What makes its pairs, where that is not the recipe's."""
    paired: bool = field(default=False, repr=False)
    """Whether its damage cannot be made from clean pictures, so that it needs `pairs`."""
    pairs: Path | None = field(default=None, repr=False)
    """A folder with `lq` and `gt` whose pictures it is trained on, instead of pairs that are made."""
    parts: tuple[Part, ...] = field(default=(), repr=False)
    """The kinds of picture that it draws from, where there are several; then the three fields before are not used."""
    one_part_a_batch: bool = field(default=False, repr=False)
    """Whether all of a batch is of one part, which the method is told (`BeginsParts`)."""
    only_if_asked: bool = field(default=False, repr=False)
    """Whether it is trained only where it is named."""

    def __post_init__(self) -> None:
        shares = [part.share for part in self.parts if part.share is not None]
        if shares and (len(shares) < len(self.parts) or abs(sum(shares) - 1) > 1e-9):
            raise ValueError(f"stage {self.name}: the shares of its parts do not add up to 1: {shares}")

    def lr_at(self, step: int) -> float:
        """The learning rate of iteration `step` (0 ... iterations - 1): after the warm-up along the curve."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.iterations - self.warmup - 1, 1)
        return self.curve.at(done, self.lr, self.lr_end)

    def drawn_from(self, degradation: Degradation) -> tuple[Part, ...]:
        """Its parts; one of its own name where it names none, `degradation` being the recipe's."""
        made = None if self.paired else self.degradation or degradation
        return self.parts or (Part(self.name, made, pairs=self.pairs),)


@dataclass(frozen=True)
class Recipe:
    """How a method is trained."""

    degradation: Degradation
    stages: tuple[Stage, ...]
    source: str
    """Which figures are the report's and which are ours."""
    optimiser: Literal["adamw", "adam"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    """Of AdamW; PyTorch's default, where a report says AdamW and no more."""
    clip_gradient: float | None = None
    """Largest norm of the gradient of all parameters together."""
    ema: float = 0.0
    """Decay of the running average of the weights, which is what is validated and saved; 0 keeps the weights themselves."""
    turns: bool = False
    """Whether pictures are also turned by quarters, not only flipped."""
    alternatives: bool = False
    """Whether its stages are settings of which one is trained: the first, unless others are asked for."""
    teacher: str = ""
    """The team's variant on the same track whose result the loss `distill` compares with."""

    @property
    def losses(self) -> set[Loss]:
        """All losses of all stages."""
        return {loss for stage in self.stages for loss in stage.losses}

    def steadied(self) -> "Recipe":
        """The same recipe with what our own runs add to it, as the caveat `STEADIED` says."""
        return replace(self, ema=0.999, clip_gradient=1.0, turns=True)

    def with_folders(self, pairs: Mapping[str, Path], pictures: Mapping[str, Path] | None = None) -> "Recipe":
        """The same recipe with folders of paired pictures, or of clean ones, for some stages and parts by their names: `STAGE`,
        `STAGE/PART`, or `PART` for that part of every stage.

        Raises UserError for names that it does not have.
        """
        pictures = pictures or {}
        self._refuse_unknown([name for name in (*pairs, *pictures) if name not in self._places()])

        def placed(stage: Stage) -> Stage:
            parts = tuple(
                replace(
                    part,
                    pairs=pairs.get(f"{stage.name}/{part.name}", pairs.get(part.name, part.pairs)),
                    pictures=pictures.get(f"{stage.name}/{part.name}", pictures.get(part.name, part.pictures)),
                )
                for part in stage.parts
            )
            if stage.name in pictures:
                own = Part(stage.name, stage.degradation or self.degradation, pictures=pictures[stage.name])
                return replace(stage, parts=(own,))
            if stage.name in pairs:  # all of the stage: its parts are not drawn
                return replace(stage, parts=(), pairs=pairs[stage.name])
            return replace(stage, parts=parts)

        return replace(self, stages=tuple(map(placed, self.stages)))

    def _places(self) -> list[str]:
        """Names of stages and parts that may be given folders."""
        stages = [stage.name for stage in self.stages]
        parts = [
            name for stage in self.stages for part in stage.parts for name in (part.name, f"{stage.name}/{part.name}")
        ]
        return list(dict.fromkeys([*stages, *parts]))

    def _refuse_unknown(self, unknown: list[str]) -> None:
        if unknown:
            known = self._places()
            near = nearest(unknown, known)
            raise UserError(
                f"the recipe has no stage {', '.join(sorted(set(unknown)))}; it has: {', '.join(known)}.{near}"
            )

    def scaled(
        self,
        *,
        stages: tuple[str, ...] = (),
        without: tuple[str, ...] = (),
        losses: Mapping[Loss, float] | None = None,
        iterations: int | None = None,
        batch: int | None = None,
        patch: int | None = None,
        lr: float | None = None,
    ) -> "Recipe":
        """The same recipe cut to a budget: only the named stages, without some losses, with `losses` of these weights in every
        stage, `iterations` in all shared out in proportion, and one batch, patch or learning rate for all stages where given
        (the end rate keeps its ratio; a stage of rate 0 learns nothing, and stays so).

        Raises UserError for a stage or a loss that it does not have, and for a stage that is left without any loss.
        """
        self._refuse_unknown([name for name in stages if name not in {stage.name for stage in self.stages}])
        usual = [stage.name for stage in self.stages if not stage.only_if_asked]
        asked = stages or tuple(usual[: 1 if self.alternatives else None])
        kept = [stage for stage in self.stages if stage.name in asked]
        strange = set(without) - self.losses
        if strange:
            raise UserError(
                f"the recipe has no loss {', '.join(sorted(strange))}; it has: {', '.join(sorted(self.losses))}."
                f"{nearest(sorted(strange), sorted(self.losses))}"
            )
        kept = [
            replace(stage, losses={k: v for k, v in stage.losses.items() if k not in without} | dict(losses or {}))
            for stage in kept
        ]
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
class EntersStages(Protocol):
    """A method one part of which begins from another's weights."""

    def enter_stage(self, name: str) -> None:
        """Called once, when a stage begins with its first iteration."""


@runtime_checkable
class BeginsParts(Protocol):
    """A method that must know what ails the pictures of a batch, where a stage draws batches of one part each."""

    def begin_part(self, name: str) -> None:
        """Called before each batch."""


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


@runtime_checkable
class MatchesSteps(Protocol):
    """A method that knows which step of diffusion a kind of damage is like."""

    def matching_steps(self, lq: Tensor, gt: Tensor, rng: Generator) -> dict[str, int]:
        """The step for pairs (B, 3, H, W) in [0, 1], by each of its definitions."""
