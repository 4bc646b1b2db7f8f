"""Do the papers' additions help? Narrow networks, few steps, several seeds, paired differences with 95 % intervals.

    python benchmarks/ablations.py PICTURES -o runs/ [--seeds 5] [--steps 150]

Four questions, one row each for every place where the answer is looked for:

- MIRAGE's contrastive term on covariances (SPD): width 12, one block a level, its own recipe for five kinds of damage, with the
  term and without it. Looked for on each kind's held-out pictures, all in one mean.
- Generative pre-training of Lu et al. 2025: NAFNet of width 8 with experts, as many steps of noise prediction as then of
  denoising at sigma 50, against denoising from scratch with as many steps (the same restoration), and with twice as many
  (the same work).
- Their orthogonality loss beside generation in some of the batches, against generation alone; as printed, and exchanged.

Denoisers are looked at on held-out pictures at the sigma they learnt and at two that they never saw, since the paper promises
generalisation. Both arms of a pair start from the same weights and see the same crops, damage and order. What is printed is the
mean of the differences in PSNR over the seeds and its Student interval; where it holds 0, nothing can be told. Finished runs
are kept in `runs/` and not done again, so that a stopped call goes on; each question is answered from the seeds of which both
arms are there. `runs/table.md` is the table of general.md.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from scipy.stats import t as student

from ntire.method import Method
from ntire.method.recipe import Degradation
from ntire.picture.degradations import NoiseLevels
from ntire.picture.weather import Weather
from ntire.teams.general.diffusion_trained import PRETRAIN, DiffusionTrainedNafnet
from ntire.teams.general.mirage import Mirage
from ntire.training import Loss, Stage
from ntire.training.data import Pool, clean_images, hold_out, validation_pairs
from ntire.training.loop import WEIGHTS, Settings, psnr, train

HELD_OUT = 8
DAMAGES: Mapping[str, Degradation] = {
    "noisy": NoiseLevels((25.0,)),
    **{kind: Weather(kind) for kind in ("hazy", "rainy", "blurry", "low-light")},
}
SIGMAS: Mapping[str, Degradation] = {f"sigma {sigma:g}": NoiseLevels((sigma,)) for sigma in (30.0, 50.0, 70.0)}


@dataclass(frozen=True)
class Bench:
    """Where pictures and results are, and how long a run is."""

    pictures: Path
    out: Path
    steps: int

    def arm(self, name: str, seed: int) -> None:
        """Train an arm with a seed and look at it, unless an earlier call has."""
        folder = self.out / f"{name}-{seed}"
        if (folder / "psnr.json").exists():
            return
        torch.manual_seed(seed)
        method, stage, places = mirage(name, self.steps) if name in ("spd", "no-spd") else denoiser(name, self.steps)
        if name in AFTER_GENERATION:
            method.begin_from(self.out / f"pretrained-{seed}" / WEIGHTS)
        recipe = type(method).recipe
        assert recipe is not None
        settings = Settings(
            self.pictures, folder, seed=seed, held_out=HELD_OUT, validate_every=10**9, save_every=10**9, fresh=True
        )
        train(
            method,
            replace(recipe, stages=(stage,), ema=0.98, clip_gradient=1.0, turns=True),
            settings,
            lambda step: None,
        )
        method.begin_from(folder / WEIGHTS)
        (folder / "psnr.json").write_text(json.dumps(self.look(method.eval(), places)))

    def look(self, method: Method, places: Mapping[str, Degradation]) -> dict[str, float]:
        """Mean PSNR over held-out pictures, for each kind of damage."""
        _, held = hold_out(clean_images(self.pictures, 1), HELD_OUT)
        found = {}
        with torch.no_grad():
            for place, damage in places.items():
                pairs = validation_pairs([Pool(held, damage)], method.stride, seed=0, side=128)
                found[place] = sum(psnr(method(lq[None])[0], gt) for lq, gt in pairs) / len(pairs)
        return found

    def found(self, name: str) -> dict[int, dict[str, float]]:
        """What is known of an arm: PSNR at each place, by seed."""
        files = self.out.glob(f"{name}-[0-9]*/psnr.json")
        return {int(path.parent.name.rpartition("-")[2]): json.loads(path.read_text()) for path in sorted(files)}


def mirage(name: str, steps: int) -> tuple[Method, Stage, Mapping[str, Degradation]]:
    """MIRAGE with its contrastive term, or without: the network, how it is trained, and where it is looked at."""
    assert Mirage.recipe is not None
    stage = replace(Mirage.recipe.stages[0], iterations=steps, warmup=steps // 10, patch=32, batch=4, lr=1e-3)
    kept = {loss: weight for loss, weight in stage.losses.items() if name == "spd" or loss != "own"}
    return Mirage(width=12, blocks=1), replace(stage, losses=kept), DAMAGES


def denoiser(name: str, steps: int) -> tuple[Method, Stage, Mapping[str, Degradation]]:
    """NAFNet that learns to generate (`pretrained`) or to denoise; what is returned is as for `mirage`."""
    losses: dict[Loss, float] = {"generation": 1.0} if name == "pretrained" else {"l1": 1.0}
    if name in ("generating", "orthogonal", "exchanged"):
        losses["generation"] = 1.0
    if name in ("orthogonal", "exchanged"):
        losses["orthogonality"] = 1.0
    stage = Stage(
        PRETRAIN if name == "pretrained" else "noisy",
        2 * steps if name == "scratch-twice" else steps,
        patch=48,
        batch=4,
        lr=1e-3,
        lr_end=1e-5,
        losses=losses,
        degradation=NoiseLevels((50.0,)),
    )
    method = DiffusionTrainedNafnet(width=8, deep=2)
    method.exchanged = name == "exchanged"
    return method, stage, SIGMAS


AFTER_GENERATION = ("after-generation", "generating", "orthogonal", "exchanged")
ARMS = (
    "pretrained",
    "scratch",
    "after-generation",
    "generating",
    "orthogonal",
    "spd",
    "no-spd",
    "scratch-twice",
    "exchanged",
)
QUESTIONS = (
    ("MIRAGE: contrastive term on covariances", "spd", "no-spd"),
    ("generative pre-training, same restoration", "after-generation", "scratch"),
    ("generative pre-training, same work", "after-generation", "scratch-twice"),
    ("generation in a tenth of the batches", "generating", "after-generation"),
    ("orthogonality as printed", "orthogonal", "generating"),
    ("orthogonality exchanged", "exchanged", "generating"),
)
"""What is asked, the arm that has it, the arm that lacks it."""


def interval(differences: list[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % Student interval."""
    count = len(differences)
    mean = math.fsum(differences) / count
    spread = math.sqrt(math.fsum((one - mean) ** 2 for one in differences) / (count - 1) / count)
    return mean, float(student.ppf(0.975, count - 1)) * spread


def table(bench: Bench) -> str:
    """One row a question and place: PSNR of both arms, mean difference and interval in dB, verdict."""
    lines = [
        "| question | looked for at | seeds | with, dB | without, dB | difference, dB | verdict |",
        "| --- " * 7 + "|",
    ]
    for question, having, lacking in QUESTIONS:
        arms = [bench.found(name) for name in (having, lacking)]
        seeds = sorted(arms[0].keys() & arms[1].keys())
        if len(seeds) < 2:
            continue
        places = list(arms[0][seeds[0]])
        for title, over in [("five kinds", places)] if having == "spd" else [(place, [place]) for place in places]:
            with_db, without_db = (
                [math.fsum(arm[seed][one] for one in over) / len(over) for seed in seeds] for arm in arms
            )
            mean, half = interval([own - other for own, other in zip(with_db, without_db, strict=True)])
            verdict = "cannot be told" if abs(mean) <= half else "helps" if mean > 0 else "harms"
            shown = [f"{math.fsum(one) / len(seeds):.2f}" for one in (with_db, without_db)]
            cells = [question, title, str(len(seeds)), *shown, f"{mean:+.3f} ± {half:.3f}", verdict]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(
    pictures: Annotated[Path, typer.Argument(help="Folder of clean pictures.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Keeps finished runs.")],
    seeds: Annotated[int, typer.Option(min=2)] = 5,
    steps: Annotated[int, typer.Option(min=1)] = 150,
) -> None:
    """Run what has not been run and print the table."""
    torch.set_num_threads(1)
    bench = Bench(pictures, out, steps)
    for seed in range(seeds):
        for name in ARMS:
            bench.arm(name, seed)
            (out / "table.md").write_text(table(bench))
    typer.echo(table(bench))


if __name__ == "__main__":
    typer.run(main)
