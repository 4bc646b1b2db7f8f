"""`ntire train`: a method trained by its report's recipe."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ntire import UserError
from ntire.commands.foreign_code import Trust, announce
from ntire.commands.options import (
    AsJson,
    Device,
    PrecisionName,
    Team,
    TrackName,
    Variant,
    app,
    command_line,
    parsed_folders,
    parsed_losses,
    parsed_settings,
)
from ntire.commands.restoring import chosen_method, refuse_unknown
from ntire.commands.screen import (
    out,
    print_json,
    progress,
    say,
    watch_training,
)

if TYPE_CHECKING:
    from ntire.method import Method
    from ntire.method.recipe import Loss, Opponent
    from ntire.method.weights_files import Weights
    from ntire.training import Recipe
    from ntire.training.loop import Settings, Step
    from ntire.training.losses import Aids, Compare


def train_method(
    team: str,
    track_name: str,
    variant: str | None,
    settings: Settings,
    report: Callable[[Step], None],
    weights: Path | None,
    teacher: Path | None = None,
    *,
    stages: tuple[str, ...],
    without: tuple[str, ...] = (),
    losses: Mapping[Loss, float] | None = None,
    iterations: int | None,
    batch: int | None,
    patch: int | None,
    lr: float | None,
    pairs: Mapping[str, Path] | None = None,
    pictures: Mapping[str, Path] | None = None,
    given: Mapping[str, str] | None = None,
    trust: bool = False,
) -> Path:
    """Train a method by its recipe, scaled by what is not None, some stages on pairs; see `ntire.training.loop.train`. `given`
    are settings of the method itself.

    A folder's code runs with all rights of the user: only with `trust`.

    Raises UserError for a method without a recipe, a stage or loss that it does not have, and for losses whose networks are
    not here.
    """
    import torch

    from ntire.method.settings import configured, set_attributes
    from ntire.scoring.track import load_track
    from ntire.training.loop import start_from
    from ntire.training.loop import train as run_training

    track = load_track(track_name)
    method_class = configured(chosen_method(team, track, variant, trust=trust, any_scale=True), given or {})
    if method_class.recipe is None:
        raise UserError(f"{team} on track {track_name} has no recipe: it cannot be trained here.")
    recipe = method_class.recipe.with_folders(pairs or {}, pictures).scaled(
        stages=stages, without=without, losses=losses, iterations=iterations, batch=batch, patch=patch, lr=lr
    )
    torch.manual_seed(settings.seed)
    method = method_class()
    if weights is not None:
        start_from(method, weights)
    set_attributes(method, given or {})
    return run_training(method, recipe, settings, report, _aids(method, recipe, teacher, settings.device))


def search_steps(
    team: str,
    track_name: str,
    variant: str | None,
    settings: Settings,
    weights: Path | None,
    *,
    stages: tuple[str, ...],
    count: int,
    patch: int | None,
    pairs: Mapping[str, Path],
    trust: bool = False,
) -> dict[str, dict[str, int]]:
    """For each kind of damage that a method learns: the step of diffusion that matches `count` pairs of it best, by definition.

    Raises UserError for a method that has no such steps, or without the weights of one that has learnt to generate.
    """
    import torch

    from ntire.method.recipe import MatchesSteps
    from ntire.scoring.track import load_track
    from ntire.training.data import Pairs, generator
    from ntire.training.loop import start_from
    from ntire.training.sources import pools_of

    method_class = chosen_method(team, load_track(track_name), variant, trust=trust, any_scale=True)
    if method_class.recipe is None or not issubclass(method_class, MatchesSteps):
        raise UserError(f"{team} on track {track_name} has no steps of diffusion to search for.")
    if weights is None:
        raise UserError("--search-t needs a network that has learnt to generate: give its weights with --weights FILE.")
    recipe = method_class.recipe.with_folders(pairs).scaled(stages=stages, patch=patch)
    recipe = replace(recipe, stages=tuple(stage for stage in recipe.stages if set(stage.losses) != {"generation"}))
    method = method_class()
    start_from(method, weights)
    method.to(settings.device).eval()
    found = {}
    for stage, (pools, _) in zip(recipe.stages, pools_of(recipe, settings.data, settings.held_out), strict=True):
        samples = Pairs(pools, stage.patch, settings.seed, turns=recipe.turns)
        lq, gt = (
            torch.stack(part).to(settings.device) for part in zip(*map(samples.__getitem__, range(count)), strict=True)
        )
        found[stage.name] = method.matching_steps(lq, gt, generator(settings.seed, -3))
    return found


def _aids(method: Method, recipe: Recipe, teacher: Path | None, device: str) -> Aids:
    """The networks that the losses of a recipe need, on the device.

    Raises one UserError that lists all that is missing.
    """
    from ntire.method import catalogue
    from ntire.method.pyiqa_networks import build
    from ntire.method.recipe import HasOpponent
    from ntire.method.state_dict import fill
    from ntire.method.weights_files import ARCFACE, VGG19, require
    from ntire.scoring.metrics import METRICS
    from ntire.training.discriminator import UNetDiscriminator
    from ntire.training.identity import identity_loss
    from ntire.training.losses import Aids
    from ntire.training.perceptual import perceptual_loss

    if "distill" in recipe.losses and teacher is None:
        raise UserError(
            f"the loss distill compares with {method.team} {recipe.teacher}: give its weights with --teacher FILE, "
            "or leave it out: --without distill."
        )
    features: dict[Loss, tuple[Weights, ...]] = {
        "perceptual": (VGG19,), "perceptual-l2": (VGG19,), "identity": (ARCFACE,),
    }  # fmt: skip
    files: dict[str, tuple[Weights, ...]] = {name: features[name] for name in features if name in recipe.losses}
    scored: tuple[Loss, ...] = ("lpips", "dists")
    measured = [name for name in scored if name in recipe.losses]
    files |= {name: METRICS[name].weights for name in measured}
    try:
        require(files, dict.fromkeys(files))
    except UserError as error:
        left_out = " ".join(f"--without {name}" for name in files)
        raise UserError(f"{error}\nOr train without them:  {left_out}", exit_code=error.exit_code) from None
    judges: dict[Loss, Compare] = {}
    perceptual: dict[Loss, bool] = {"perceptual": False, "perceptual-l2": True}
    for name, squared in perceptual.items():
        if name in recipe.losses:
            judges[name] = perceptual_loss(squared).to(device)
    if "identity" in recipe.losses:
        judges["identity"] = identity_loss().to(device)
    for name in measured:
        judges[name] = build(name).to(device)
    taught = None
    if "distill" in recipe.losses and teacher is not None:
        taught = catalogue.find(method.team, method.track, recipe.teacher)().eval().requires_grad_(False)
        fill(taught, taught.read_weights(teacher), teacher)
        taught.deploy()
        taught.to(device)
    opponents: dict[Loss, Opponent] = {"gan": UNetDiscriminator()} if "gan" in recipe.losses else {}
    if "vsd" in recipe.losses and isinstance(method, HasOpponent):
        opponents["vsd"] = method.opponent()
    return Aids(judges, taught, opponents)


@app.command(epilog="Example: [bold]ntire train --team NJUST-KMG --track srgb --data photos/ --iterations 20000[/]")
def train(
    team: Team,
    track: TrackName,
    data: Annotated[Path, typer.Option(help="Folder of clean pictures.")],
    variant: Variant = None,
    trust: Trust = False,
    folder: Annotated[
        Path | None, typer.Option("-o", "--out", help="Default: training/<team>-<track>[-<variant>].")
    ] = None,
    stage: Annotated[list[str] | None, typer.Option(help="Only this stage of the recipe; may be repeated.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Total iterations, divided among the stages.")] = None,
    batch: Annotated[int | None, typer.Option(min=1)] = None,
    patch: Annotated[int | None, typer.Option(min=16, help="Side of the training patches in pixels.")] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="Learning rate at the start of every stage.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Initial weights. Default: random.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Weights of the teacher variant, for the loss `distill`.")
    ] = None,
    without: Annotated[list[str] | None, typer.Option(help="Leave this loss out; may be repeated.")] = None,
    loss: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=WEIGHT", help="Add this loss to every stage, or weigh it so; may be repeated."),
    ] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STAGE=DIR",
            help="Train a stage, or a part of one (STAGE/PART or PART), on the pictures of DIR/lq and DIR/gt; may be repeated.",
        ),
    ] = None,
    pictures: Annotated[
        list[str] | None,
        typer.Option(metavar="PART=DIR", help="Clean pictures of its own for a stage or part; may be repeated."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting of the method, as for an ablation; may be repeated."
        ),
    ] = None,
    device: Device = "auto",
    precision: PrecisionName = "fp32",
    workers: Annotated[int, typer.Option(min=0, help="Number of processes that make training pairs.")] = 0,
    held_out: Annotated[int, typer.Option(min=1, help="Number of pictures held out for validation.")] = 16,
    validate_every: Annotated[int, typer.Option(min=1, help="Iterations between validations.")] = 1000,
    save_every: Annotated[int, typer.Option(min=1, help="Iterations between checkpoints.")] = 500,
    export: Annotated[Literal["fp32", "fp16"], typer.Option(help="Precision of the saved weights.")] = "fp32",
    seed: int = 0,
    search_t: Annotated[
        bool,
        typer.Option("--search-t", help="Do not train: print the step of diffusion that matches each kind of damage."),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming an earlier run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a method by its report's recipe on your pictures; resumes an interrupted run.

    Several GPUs: `torchrun --nproc-per-node 4 --no-python ntire train ...`
    """
    refuse_unknown(team, track, variant)
    from ntire.environment import choose_device
    from ntire.picture.folder import in_lines, walk
    from ntire.training.loop import Settings

    if trust:
        announce(team, trust, say)
    for line in in_lines(walk(data).not_read):
        say(line)
    settings = Settings(
        data=data,
        out=folder or Path("training") / "-".join(part for part in (Path(team).resolve().name, track, variant) if part),
        device=choose_device(device),
        precision=precision,
        seed=seed,
        workers=workers,
        held_out=held_out,
        validate_every=validate_every,
        save_every=save_every,
        export=export,
        begun_from=weights,
        command=command_line(data, folder),
        fresh=fresh,
        settings=tuple(sorted(parsed_settings(given or []).items())),
    )
    if search_t:
        steps = search_steps(
            team, track, variant, settings, weights,
            stages=tuple(stage or ()), count=batch or 64, patch=patch, pairs=parsed_folders(pairs or ()), trust=trust,
        )  # fmt: skip
        if as_json:
            print_json(steps)
            return
        for kind, by_definition in steps.items():
            out.print(f"{kind}: {', '.join(f'{name} {step}' for name, step in by_definition.items())}", markup=False)
        return
    with progress() as bars:
        written = train_method(
            team, track, variant, settings, watch_training(bars), weights, teacher,
            stages=tuple(stage or ()), without=tuple(without or ()), losses=parsed_losses(loss or ()), iterations=iterations,
            batch=batch, patch=patch, lr=lr, pairs=parsed_folders(pairs or ()), pictures=parsed_folders(pictures or ()),
            given=dict(settings.settings), trust=trust,
        )  # fmt: skip
    if os.environ.get("RANK", "0") != "0":  # of a `torchrun`, whose first process tells all
        return
    card = written.with_name("card.toml")
    if as_json:
        print_json({"weights": str(written), "card": str(card), "trained": tomllib.loads(card.read_text())})
    else:
        out.print(f"weights: {written}\ncard: {card}", markup=False)
