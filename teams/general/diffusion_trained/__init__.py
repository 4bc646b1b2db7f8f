"""Diffusion-trained restoration (Lu et al. 2025): an ordinary restoration network that learns to generate first.

    pretrain     noise in diffused clean pictures, T = 50                                      all weights
    importance   how much generation depends on each weight                                    none
    noisy        damaged -> clean; now and then generation as well, in the first blocks only   all weights, the important ones
    rainy ...    one kind of damage after the other, by the step that it matches               held near where they were

At run time it is the network alone, told the step that the damage matches. No program is public; what the paper leaves open is
resolved as the caveats say.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, get_args

import torch
import torch.nn.functional as F
from spandrel.architectures.NAFNet import NAFNet
from spandrel.architectures.NAFNet.__arch.NAFNet_arch import NAFBlock
from torch import Generator, Tensor, nn
from torch.func import functional_call

from ntire import UserError
from ntire.method import Cost, Method
from ntire.picture.weather import Weather
from ntire.teams.general.diffusion_trained.diffusion import STEPS, Definition, clean_estimate, diffuse, matching_step
from ntire.teams.general.diffusion_trained.experts import EXPERTS, Clock, TimeExperts
from ntire.teams.general.diffusion_trained.regularisers import (
    DECAY,
    Blocks,
    blocks_of,
    generative_blocks,
    generative_share,
    importance_loss,
    orthogonality,
)
from ntire.teams.general.diffusion_trained.unet import TimedBlock, TimedUNet
from ntire.teams.parts.x_restormer import XRestormerBlock, x_restormer
from ntire.training import Loss, OwnLoss, Part, Recipe, Stage

MATCHING: Mapping[str, int] = {
    "noisy": 4, "rainy": 8, "jpeg-compressed": 12, "snowy": 15, "uncompleted": 19, "raindrop": 22, "shadowed": 27,
    "low-light": 38, "hazy": 47, "motion-blurry": 50,
}  # fmt: skip
"""The step that each kind of damage matches, as the paper found them; also the order in which they are learnt."""
PAIRED = ("snowy", "raindrop", "shadowed")
PRETRAIN, IMPORTANCE, TOGETHER = "pretrain", "importance", "together"
OF_NOISE_50 = 6
"""The step whose noise is that of sigma 50 of 255, which pre-training is validated on."""
RESTORING: Mapping[Loss, float] = {"l1": 1.0, "generation": 1.0, "orthogonality": 1.0, "importance": 0.2}


def _stage(word: str, iterations: int) -> Stage:
    """Learning to restore one kind of damage."""
    damage = None if word in PAIRED else Weather(word)
    return Stage(word, iterations, 128, 16, 5e-5, 0.0, RESTORING, degradation=damage, paired=word in PAIRED)


def _together() -> Stage:
    """All kinds of damage at once, as many batches as of one after the other: what the paper compares that order with."""
    parts = tuple(Part(word, None if word in PAIRED else Weather(word)) for word in MATCHING)
    return replace(
        _stage("noisy", 100_000 * len(MATCHING)), name=TOGETHER, parts=parts, one_part_a_batch=True, only_if_asked=True
    )


GENERATION = (
    Stage(PRETRAIN, 500_000, 128, 16, 5e-5, 0.0, {"generation": 1.0}, degradation=Weather("noisy")),
    Stage(IMPORTANCE, 1_000, 128, 16, 0.0, 0.0, {"generation": 1.0}, degradation=Weather("noisy")),
)
SOURCE = (
    "Lu et al. 2025: lengths, patch, batch, rate, cosine, L1, lambda 0.2, T = 50, share of generation, matching steps; "
    "ours: schedule of the noise, length of the pass for importance, weights of the two other losses"
)
READING = (
    "The schedule is DDPM's, its 1000 steps rescaled to 50: noise 50 is then step 6; the paper, without a schedule, says 4.",
    "The paper defines the matching step in three ways; `ntire train --search-t` prints what each finds, and the recipe "
    "has the steps that the paper prints.",
    "The orthogonality loss is as printed, which aligns generation with restoration; `exchanged` gives what its name says. Its "
    "gradients are those of the last convolution of each block that generates, in two parts of the batch for either kind.",
    "A tenth of the batches, drawn at random, also generates; only the first exp(-0.05 t) of the blocks then learn from it.",
    "The importance of a weight is its mean absolute gradient over a pass after pre-training; without that stage, train "
    "`--without importance`. The hold on a block weakens with its depth as exp(-0.05 t) to the power of it.",
    "One kind of damage is learnt after the other, ascending by step, 100,000 iterations each; earlier ones are not replayed.",
    "Runs for the last kind of damage that was trained, unless `--set damage=...` names another or says unknown.",
    "Snow, raindrops and shadows need paired pictures: `ntire train --pairs snowy=DIR`. Blur, haze, low light, rain and masks "
    "are made from clean ones, where the paper has paired data.",
    "Ablations of tables 3 and 10: without TMGP, train without the stage pretrain and `--without importance`; without t_mat, "
    "`--set matching=none` (no step is told; w(t) is then 1); without w_decay, `--set decay=0`; without GEF, `--set mixed=0 "
    "--without importance`; without L_reg or L_orthog, `--without importance` or orthogonality; of experts and order, see "
    "their variants.",
    "No weights are public.",
)


class DiffusionTrained(Method):
    """The paper's own U-Net for one kind of damage, without experts."""

    team = "Diffusion-trained"
    track = "general"
    variant = "unet"
    cite = "lu2025diffusion"
    claimed: ClassVar[Cost | None] = Cost(
        source="Lu et al. 2025, table of complexity",
        reading="of the network without experts; G are MACs",
        params_m=27.8,
        macs_g=72.0,
        at=(256, 256),
        runtime_ms=90.0,
        runtime_at=(256, 256),
        unmatched=("macs_g",),
    )
    tiling = "global"
    halo = 64
    stride = 8
    caveats: ClassVar[tuple[str, ...]] = (
        "The text does not identify the network: IR-SDE's U-Net at 56 channels has 27.85 M parameters, but 28 % more "
        "multiply-adds than claimed; no usual network has both.",
        *READING,
    )
    recipe: ClassVar[Recipe] = Recipe(
        degradation=Weather("noisy"),
        stages=(*GENERATION, _stage("noisy", 300_000)),
        source=SOURCE,
        optimiser="adam",
    )
    settable: ClassVar[Mapping[str, str]] = {
        "damage": f"what to restore, of {', '.join(MATCHING)}, or unknown",
        "experts": "number of experts for the time step, to train and to run with; 0 for none",
        "matching": "steps of damage: printed, none, or one number for all; in training, and none at run time, too",
        "decay": "a of w(t), in training (0.05); 0 lets generation train all blocks",
        "mixed": "share of the batches that also generate, in training (0.1)",
        "parts": "number of gradients of either kind that the orthogonality loss compares, in training (2)",
        "exchanged": "whether the orthogonality loss does what its name says, not what is printed, in training: yes or no",
    }
    tiny = {"width": 8}

    block: ClassVar[type[nn.Module]] = TimedBlock
    """Of what the network is made, for counting how deep a weight lies."""
    damage: str | None = None
    """What to restore, a word of MATCHING, if it is not what was trained last; "unknown" tells the network no step."""
    matching: str = "printed"
    """Whether restoration is told the steps that the paper prints, none, or one for every damage, which then is a number."""
    decay: float = DECAY
    """a of w(t)."""
    mixed: float = 0.1
    """Share of the batches that also generate."""
    parts: int = 2
    """Into which a batch is cut for the gradients of the orthogonality loss."""
    exchanged: bool = False
    """Whether the orthogonality loss does what its name says, not what is printed."""

    def __init__(self, width: int = 56, experts: int = 0) -> None:
        super().__init__()
        if experts < 0:
            raise UserError(f"experts={experts}: expected 0 or more.")
        self.clock = Clock()
        self.net, levels = self._network(width)
        if experts:
            for level, here in levels:
                level.append(TimeExperts(here, self.clock, experts))
        self.register_buffer("step", torch.tensor([MATCHING["noisy"]]))
        self._stage = self._kind = ""
        self._memory: dict[str, Tensor] = {}
        self._blocks: Blocks | None = None
        self._generates = False

    def _network(self, width: int) -> tuple[nn.Module, list[tuple[nn.Sequential, int]]]:
        """The network, and where experts go, with the widths there."""
        net = TimedUNet(width, self.clock)
        return net, net.levels()

    def deploy(self) -> None:
        """Raise UserError for a damage that it does not know, before the first picture."""
        self._step_of_damage()

    def forward(self, lq: Tensor) -> Tensor:
        if self._stage in (PRETRAIN, IMPORTANCE):
            return self._generated(lq)
        return self._restored(lq)

    def begin_stage(self, name: str) -> None:
        """Learn to generate, or to restore the damage that the stage is called after."""
        self._stage = name
        if name in MATCHING:
            self.begin_part(name)

    def begin_part(self, name: str) -> None:
        """Restore this damage from now on."""
        self._kind = name
        self.get_buffer("step").fill_(self._matched())

    def begin_step(self, lq: Tensor, gt: Tensor, rng: Generator) -> None:
        """Draw noise and steps for generation, and whether this batch generates."""
        self._lq, self._gt = lq, gt
        self._noise = torch.randn(gt.shape, generator=rng).to(gt)
        self._steps = torch.randint(1, STEPS + 1, (len(gt),), generator=rng).to(gt.device)
        mixed = float(torch.rand((), generator=rng)) < self.mixed
        self._generates = mixed or self._stage in (PRETRAIN, IMPORTANCE)
        if self._blocks is None:
            self.clock.steps = None
            self._blocks = blocks_of(self.net, self.block, lq[:1])
        number = {**MATCHING, TOGETHER: STEPS + 1}.get(self._stage)
        if number is not None and int(self._memory.get("stage", torch.tensor(0))) != number:
            self._memory["stage"] = torch.tensor(number)
            for name, weight in self.net.named_parameters():
                self._memory[f"before.{name}"] = weight.detach().clone()

    def memory(self) -> dict[str, Tensor]:
        return dict(self._memory)

    def remember(self, memory: dict[str, Tensor]) -> None:
        self._memory = dict(memory)

    def own_loss(self, name: OwnLoss) -> Tensor:
        """`generation`, `orthogonality` or `importance`; the first two are 0 for a batch that does not generate."""
        if name == "importance":
            return self._importance_loss()
        if not self._generates:
            return self._gt.new_zeros(())
        return self._orthogonality() if name == "orthogonality" else self._generation()

    def noise_in(self, noisy: Tensor, steps: Tensor) -> Tensor:
        """The noise that the network sees in diffused pictures (B, 3, H, W) in [-1, 1] at `steps` (B,)."""
        self.clock.steps = steps
        noise: Tensor = self.net(noisy)
        return noise

    def matching_steps(self, lq: Tensor, gt: Tensor, rng: Generator) -> dict[str, int]:
        """The step that matches the damage of pairs (B, 3, H, W) in [0, 1], by each of the paper's definitions."""
        return {
            definition: matching_step(self.noise_in, 2 * lq - 1, 2 * gt - 1, rng, definition)
            for definition in get_args(Definition)
        }

    def _restored(self, lq: Tensor) -> Tensor:
        self.clock.steps = self._step_of_damage()
        restored: Tensor = (self.net(2 * lq - 1) + 1) / 2
        return restored

    def _matched(self) -> int:
        """The step of the damage that is learnt now; 0 where none is told, as nearly clean pictures have."""
        if self.matching in ("printed", "none"):
            return MATCHING[self._kind] if self.matching == "printed" else 0
        if not (self.matching.isdecimal() and 1 <= int(self.matching) <= STEPS):
            raise UserError(f"matching={self.matching}: expected printed, none, or a step from 1 to {STEPS}.")
        return int(self.matching)

    def _step_of_damage(self) -> Tensor | None:
        if self.matching == "none" or self.damage == "unknown":
            return None
        if self.damage is None:
            return self.get_buffer("step")
        if self.damage not in MATCHING:
            raise UserError(f"no step matches {self.damage!r}. There are: {', '.join(MATCHING)}, and unknown.")
        return torch.tensor([MATCHING[self.damage]])

    def _generated(self, lq: Tensor) -> Tensor:
        """The clean pictures that the noise found in the diffused ones means; in validation, in `lq` of noise 50."""
        if self.training:
            steps, noisy = self._steps, diffuse(2 * self._gt - 1, self._noise, self._steps)
        else:
            steps = torch.full((len(lq),), OF_NOISE_50, device=lq.device)
            noisy = diffuse(2 * lq - 1, torch.zeros_like(lq), steps)
        self._predicted = self.noise_in(noisy, steps)
        return (clean_estimate(noisy, self._predicted, steps) + 1) / 2

    def _generation(self) -> Tensor:
        """Mean squared error of the noise; while restoring, only the blocks that generate learn from it."""
        if self._stage == PRETRAIN:
            return F.mse_loss(self._predicted.to(self._noise), self._noise)
        if self._stage == IMPORTANCE:
            return self._add_importance(F.mse_loss(self._predicted.to(self._noise), self._noise))
        first = self._generating()
        held = {name: weight.detach() for name, weight in self.net.named_parameters() if self._of(name) >= first}
        self.clock.steps = self._steps
        noisy = diffuse(2 * self._gt - 1, self._noise, self._steps)
        return F.mse_loss(functional_call(self.net, held, (noisy,)).to(self._noise), self._noise)

    def _add_importance(self, loss: Tensor) -> Tensor:
        weights = dict(self.net.named_parameters())
        gradients = torch.autograd.grad(loss, list(weights.values()), retain_graph=True)
        batches = self._memory.get("batches", torch.tensor(0))
        for name, gradient in zip(weights, gradients, strict=True):
            mean = self._memory.get(f"importance.{name}", torch.zeros_like(gradient))
            self._memory[f"importance.{name}"] = mean + (gradient.abs() - mean) / (batches.item() + 1)
        self._memory["batches"] = batches + 1
        return loss

    def _importance_loss(self) -> Tensor:
        if "batches" not in self._memory:
            raise UserError(
                f"the loss importance needs to know how much generation depends on each weight: train the stage {IMPORTANCE} "
                "in the same run, or leave the loss out: --without importance."
            )
        share = generative_share(self._matched(), self.decay)
        weights = dict(self.net.named_parameters())
        return importance_loss(
            weights,
            {name: self._memory[f"before.{name}"] for name in weights},
            {name: self._memory[f"importance.{name}"] for name in weights},
            {name: share ** self._known().depth(name) for name in weights},
        )

    def _orthogonality(self) -> Tensor:
        """Between the gradients of generation and of restoration, for the last convolutions of the blocks that generate."""
        known = self._known()
        weights = dict(self.net.named_parameters())
        chosen = [
            weights[known.last_convs[number]] for number in range(self._generating()) if number in known.last_convs
        ]

        def gradient(loss: Tensor) -> Tensor:
            return torch.cat([one.flatten() for one in torch.autograd.grad(loss, chosen, create_graph=True)])

        generative, restoring = [], []
        for part in torch.arange(len(self._gt), device=self._gt.device).chunk(self.parts):
            noise, steps, gt = self._noise[part], self._steps[part], self._gt[part]
            noisy = diffuse(2 * gt - 1, noise, steps)
            generative.append(gradient(F.mse_loss(self.noise_in(noisy, steps).to(noise), noise)))
            restoring.append(gradient(F.l1_loss(self._restored(self._lq[part]).to(gt), gt)))
        return orthogonality(torch.stack(generative), torch.stack(restoring), self.exchanged)

    def _generating(self) -> int:
        """How many blocks, from the input on, generation trains now."""
        return generative_blocks(self._matched(), self._known().count, self.decay)

    def _of(self, name: str) -> int:
        return self._known().of[name]

    def _known(self) -> Blocks:
        if self._blocks is None:
            raise RuntimeError("the blocks are found by the first batch of training")
        return self._blocks


def _single(word: str) -> Recipe:
    """Setting A: pre-training, then one kind of damage."""
    return Recipe(
        degradation=Weather("noisy"), stages=(*GENERATION, _stage(word, 300_000)), source=SOURCE, optimiser="adam"
    )


class DiffusionTrainedHazy(DiffusionTrained):
    """The U-Net for haze alone, as for RESIDE and REVIDE in the paper's setting A."""

    variant = "unet-hazy"
    claimed = None
    recipe = _single("hazy")


class DiffusionTrainedRainy(DiffusionTrained):
    """The U-Net for rain alone, as for Rain100L and Rain100H in the paper's setting A."""

    variant = "unet-rainy"
    claimed = None
    recipe = _single("rainy")


class DiffusionTrainedSnowy(DiffusionTrained):
    """The U-Net for snow alone, as for Snow100K and RealSnow in the paper's setting A."""

    variant = "unet-snowy"
    claimed = None
    recipe = _single("snowy")


class DiffusionTrainedLowLight(DiffusionTrained):
    """The U-Net for low light alone, as for LOL v1 and v2 in the paper's setting A."""

    variant = "unet-low-light"
    claimed = None
    recipe = _single("low-light")


class DiffusionTrainedExperts(DiffusionTrained):
    """The same U-Net with experts for the time step, for ten kinds of damage one after the other."""

    variant = "unet-experts"
    claimed: ClassVar[Cost | None] = None
    caveats: ClassVar[tuple[str, ...]] = (
        "Place, gate and form of the experts are not in the paper: ten bottlenecks of a sixth of the width a level, mixed "
        "by a softmax of step and pooled features; they add 1.78 M parameters to the U-Net, the paper 1.8 M to any network.",
        "Ablations of table 10: without MoE, `--set experts=0`; without TIT, `--stage pretrain --stage importance --stage "
        "together`, which draws the kind of every batch. The figures of TIT, MoE and GEF have changed rows between tables 3 "
        "and 10.",
        *READING,
    )
    recipe = Recipe(
        degradation=Weather("noisy"),
        stages=(*GENERATION, *(_stage(word, 100_000) for word in MATCHING), _together()),
        source=SOURCE,
        optimiser="adam",
    )

    def __init__(self, width: int = 56, experts: int = EXPERTS) -> None:
        super().__init__(width, experts)


class DiffusionTrainedNafnet(DiffusionTrainedExperts):
    """NAFNet of width 64 as for GoPro, with experts."""

    variant = "nafnet"
    claimed = Cost(
        source="Lu et al. 2025, table of complexity",
        reading="NAFNet of width 64 and 36 blocks, with experts; G are MACs",
        params_m=69.6,
        macs_g=71.0,
        at=(256, 256),
        runtime_ms=100.0,
        runtime_at=(256, 256),
    )
    stride = 16
    tiny = {"width": 8, "deep": 2}
    block = NAFBlock

    def __init__(self, width: int = 64, deep: int = 28, experts: int = EXPERTS) -> None:
        self._deep = deep
        super().__init__(width, experts)

    def _network(self, width: int) -> tuple[nn.Module, list[tuple[nn.Sequential, int]]]:
        net = NAFNet(width=width, enc_blk_nums=[1, 1, 1, self._deep], middle_blk_num=1, dec_blk_nums=[1] * 4)
        widths = [width * times for times in (1, 2, 4, 8)]
        return net, list(zip([*net.encoders, *net.decoders], [*widths, *reversed(widths)], strict=True))


class DiffusionTrainedXRestormer(DiffusionTrainedExperts):
    """X-Restormer with experts."""

    variant = "x-restormer"
    claimed = Cost(
        source="Lu et al. 2025, table of complexity",
        reading="no reading fits: 89 M of 90.8 M with experts are not X-Restormer's 26 M",
        params_m=90.8,
        macs_g=168.0,
        at=(256, 256),
        runtime_ms=2500.0,
        runtime_at=(256, 256),
        unmatched=("params_m", "macs_g"),
    )
    caveats = (
        "The paper gives X-Restormer 89 M parameters and 160 G, 90.8 M and 168 G with experts; ours with experts has 26.9 M "
        "(-70 %) and 183.9 G multiply-adds (+9.5 %).",
        *READING,
    )
    stride = 64
    tiny = {"width": 8}
    block = XRestormerBlock

    def __init__(self, width: int = 48, experts: int = EXPERTS) -> None:
        super().__init__(width, experts)

    def _network(self, width: int) -> tuple[nn.Module, list[tuple[nn.Sequential, int]]]:
        net = x_restormer(3, 3, width)
        levels = [net.encoder_level1, net.encoder_level2, net.encoder_level3, net.latent]
        levels += [net.decoder_level3, net.decoder_level2, net.decoder_level1]
        return net, list(zip(levels, [width * times for times in (1, 2, 4, 8, 4, 2, 2)], strict=True))
