"""The training loop: recipe, pictures and a method in; safetensors, a card and a log out. Killed, it goes on."""

import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tomli_w
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ntire import UserError, __version__
from ntire.environment import processor
from ntire.files import sha256_of, writable_folder, write_atomically
from ntire.method import DTYPES, Method, Precision
from ntire.method.recipe import (
    BeginsFrom,
    BeginsParts,
    BeginsStages,
    BeginsSteps,
    EntersStages,
    Loss,
    Opponent,
    Recipe,
    Remembers,
    Stage,
)
from ntire.method.state_dict import fill
from ntire.picture.image import psnr_of
from ntire.picture.raw import demosaic, srgb_encode
from ntire.picture.resize import resized
from ntire.training.data import batches, generator, pool_of_batch, validation_pairs
from ntire.training.losses import Aids, total_loss
from ntire.training.parallel import Group, process_group
from ntire.training.sources import pools_of

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Settings:
    """How to run a recipe, apart from what it says."""

    data: Path
    out: Path
    device: str = "cpu"
    precision: Precision = "fp32"
    seed: int = 0
    workers: int = 0
    held_out: int = 16
    """Pictures kept for validation, never trained on."""
    validate_every: int = 1000
    save_every: int = 500
    export: Literal["fp32", "fp16"] = "fp32"
    """Precision of the saved weights."""
    begun_from: Path | None = None
    """The file whose weights the method has been filled with; written into the card."""
    command: str = ""
    """As typed; written into the card."""
    fresh: bool = False
    settings: tuple[tuple[str, str], ...] = ()
    """Names and values of the method's own settings."""


@dataclass(frozen=True)
class Step:
    """What the loop reports after an iteration; `psnr_db` only where it validated."""

    iteration: int
    iterations: int
    stage: str
    loss: float
    lr: float
    psnr_db: float | None = None
    plain_psnr_db: float | None = None
    """PSNR of the input itself (for raw: of its bilinear demosaicing) on the same pictures."""


@dataclass
class _State:
    """All that a run must remember to go on."""

    method: Method
    average: Method
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Keeps small gradients of float16 from vanishing; does nothing in other precisions."""
    opponents: Mapping[Loss, Opponent]
    of_opponents: dict[Loss, torch.optim.Optimizer]
    """The optimiser of each opponent."""
    iteration: int = 0
    seconds: float = 0.0


def start_from(method: Method, weights: Path) -> None:
    """Fill a method before its training, from a file of its own or what else it takes.

    Raises UserError for weights that do not fit.
    """
    if isinstance(method, BeginsFrom):
        method.begin_from(weights)
    else:
        fill(method, method.read_weights(weights), weights)


def train(
    method: Method, recipe: Recipe, settings: Settings, report: Callable[[Step], None], aids: Aids | None = None
) -> Path:
    """Train `method` and return the path of its `weights.safetensors`; beside it stand `card.toml` and `log.jsonl`.

    A run that was stopped goes on from `checkpoint.pt` in the same folder if recipe and settings are the same. Under
    `torchrun` every process computes its part of each batch, and the first one reports and writes. `aids` are the networks
    that the recipe's losses need. Raises UserError for unusable images, another run's checkpoint, or a loss that is not
    finite.
    """
    with process_group(settings.device) as (group, device):
        return _train(method, recipe, replace(settings, device=device), report, aids or Aids(), group)


def _train(
    method: Method, recipe: Recipe, settings: Settings, report: Callable[[Step], None], aids: Aids, group: Group
) -> Path:
    out = writable_folder(settings.out)
    _refuse_patches(recipe, method.scale)
    sources = pools_of(recipe, settings.data, settings.held_out, method.scale)
    state = _start(method, recipe, settings, aids)
    iterations = sum(stage.iterations for stage in recipe.stages)
    began = time.monotonic() - state.seconds
    latest: float | None = None
    first_iteration = first_sample = 0
    for stage, (training, held) in zip(recipe.stages, sources, strict=True):
        pairs = _comparable(validation_pairs(held, method.stride, settings.seed, scale=method.scale))
        plain = sum(psnr(_plain(lq, method.scale), gt) for lq, gt in pairs) / len(pairs)
        for network in (state.method, state.average):
            if isinstance(network, BeginsStages):
                network.begin_stage(stage.name)
            if isinstance(network, EntersStages) and state.iteration == first_iteration:
                network.enter_stage(stage.name)
        steps = range(min(max(state.iteration - first_iteration, 0), stage.iterations), stage.iterations)
        loader = batches(
            training, stage, first_sample, steps, settings.seed, settings.workers, group, turns=recipe.turns
        )
        for step, (lq, gt) in zip(steps, loader, strict=True):
            if stage.one_part_a_batch and isinstance(state.method, BeginsParts):
                part = pool_of_batch(training, settings.seed, first_sample + step * stage.batch)
                state.method.begin_part(stage.parts[part].name)
            loss = _step(state, recipe, stage, step, lq, gt, settings, aids, group)
            state.iteration += 1
            state.seconds = time.monotonic() - began
            if group.rank:
                continue
            last = state.iteration == iterations
            validated = last or state.iteration % settings.validate_every == 0
            latest = _validate(state.average, pairs, settings) if validated else None
            done = Step(state.iteration, iterations, stage.name, loss, stage.lr_at(step), latest, plain)
            if last or state.iteration % settings.save_every == 0:
                _save(out / "checkpoint.pt", state, recipe, settings)
            if validated:
                _log(out / "log.jsonl", done, state.seconds)
            report(done)
        first_iteration += stage.iterations
        first_sample += stage.iterations * stage.batch
    if group.rank:
        return out / WEIGHTS
    psnr_db = latest if latest is not None else _validate(state.average, pairs, settings)
    validation = {"pictures": len(pairs), "psnr_db": round(psnr_db, 3), "plain_psnr_db": round(plain, 3)}
    return _export(state, recipe, settings, sum(len(pool.pictures) for pool in training), validation)


def _comparable(pairs: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Those whose input is not the target itself, which is infinitely good; all where there are no others."""
    return [(lq, gt) for lq, gt in pairs if not torch.equal(lq, gt)] or pairs


def psnr(restored: Tensor, gt: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of one image in [0, 1], over all channels; infinite for equal images."""
    return psnr_of(float((restored.clamp(0, 1).double() - gt.double()).square().mean()))


def _plain(lq: Tensor, scale: int) -> Tensor:
    """What a method has to be better than, at the size of its result: bicubic, where that is larger."""
    seen = srgb_encode(demosaic(lq)) if lq.shape[0] == 1 else lq
    return seen if scale == 1 else resized(seen, scale)


def _refuse_patches(recipe: Recipe, scale: int) -> None:
    wrong = [f"{stage.name} ({stage.patch})" for stage in recipe.stages if stage.patch % scale]
    if wrong:
        raise UserError(
            f"expected patches whose side is a multiple of the scale, {scale}, found: {', '.join(wrong)}. "
            "Choose another --patch."
        )


def _step(
    state: _State,
    recipe: Recipe,
    stage: Stage,
    step: int,
    lq: Tensor,
    gt: Tensor,
    settings: Settings,
    aids: Aids,
    group: Group,
) -> float:
    lr = stage.lr_at(step)
    device = torch.device(settings.device)
    lq, gt = (x.to(device, memory_format=torch.channels_last, non_blocking=True) for x in (lq, gt))
    dtype = DTYPES[settings.precision]
    if isinstance(state.method, BeginsSteps):
        state.method.begin_step(lq, gt, generator(settings.seed, -2, state.iteration))
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        restored = state.method(lq)
    loss = total_loss(stage.losses, state.method, lq, restored, gt, aids)
    value = group.mean(loss).item()
    if not math.isfinite(value):
        raise UserError(
            f"the loss is {value} at iteration {state.iteration + 1}. "
            "Start over with a smaller --lr or with --precision fp32.",
            exit_code=3,
        )
    state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    _update(state.method, state.optimizer, lr, group, state.scaler, recipe.clip_gradient)
    for name, opponent in aids.opponents.items():
        if name in stage.losses:
            opponent.zero_grad(set_to_none=True)  # the method's loss has left gradients in it
            opponent.own(state.method, restored.detach().float(), gt).backward()  # type: ignore[no-untyped-call]
            _update(opponent, state.of_opponents[name], lr, group)
    # A short memory at first, or the average would stay near the random start for 1 / (1 - ema) iterations.
    decay = min(recipe.ema, (1 + state.iteration) / (10 + state.iteration))
    with torch.no_grad():
        for average, new in zip(state.average.state_dict().values(), state.method.state_dict().values(), strict=True):
            if average.is_floating_point():  # tables of indices stay as they are
                average.lerp_(new, 1 - decay)
    return value


def _update(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    lr: float,
    group: Group,
    scaler: torch.amp.GradScaler | None = None,
    clip: float | None = None,
) -> None:
    """One step of `optimizer` with the gradients that `network` holds, which are forgotten after it."""
    for one in optimizer.param_groups:
        one["lr"] = lr
    group.average(network.parameters())
    if scaler is not None:
        scaler.unscale_(optimizer)
    if clip is not None:
        nn.utils.clip_grad_norm_(network.parameters(), clip)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def _validate(network: nn.Module, pairs: list[tuple[Tensor, Tensor]], settings: Settings) -> float:
    """Mean PSNR over the held-out pictures, in float32."""
    network.eval()
    return sum(psnr(network(lq[None].to(settings.device))[0].cpu(), gt) for lq, gt in pairs) / len(pairs)


def _start(method: Method, recipe: Recipe, settings: Settings, aids: Aids) -> _State:
    method = method.to(settings.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average = copy.deepcopy(method).eval()
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = _optimizer(trained, recipe, recipe.weight_decay)
    opponents = {name: opponent.to(settings.device).train() for name, opponent in aids.opponents.items()}
    of_opponents = {
        name: _optimizer([parameter for parameter in opponent.parameters() if parameter.requires_grad], recipe, 0.0)
        for name, opponent in opponents.items()
    }
    scaler = torch.amp.GradScaler(torch.device(settings.device).type, enabled=settings.precision == "fp16")
    state = _State(method, average, optimizer, scaler, opponents, of_opponents)
    path = settings.out / "checkpoint.pt"
    if settings.fresh or not path.exists():
        (settings.out / "log.jsonl").unlink(missing_ok=True)
        return state
    saved: dict[str, Any] = torch.load(path, map_location=settings.device, weights_only=True)
    identity = _identity(method, recipe, settings)
    if saved["identity"] != identity:
        changed = [
            f"{name}: {_where_apart(str(saved['identity'].get(name)), identity[name])}"
            for name in identity
            if saved["identity"].get(name) != identity[name]
        ]
        raise UserError(
            f"{settings.out}: holds a run with other settings ({'; '.join(changed)}). "
            "Choose another folder with -o, or start over with --fresh."
        )
    method.load_state_dict(saved["method"])
    average.load_state_dict(saved["average"])
    if isinstance(method, Remembers):
        method.remember(saved.get("memory", {}))
    optimizer.load_state_dict(saved["optimizer"])
    scaler.load_state_dict(saved["scaler"])
    for name, opponent in opponents.items():
        opponent.load_state_dict(saved["opponents"][name])
        of_opponents[name].load_state_dict(saved["of_opponents"][name])
    state.iteration, state.seconds = saved["iteration"], saved["seconds"]
    return state


def _where_apart(there: str, now: str) -> str:
    """The first item of two long texts that differs: `iterations=4 there, iterations=6 now`."""
    apart = next((place for place, (one, other) in enumerate(zip(there, now, strict=False)) if one != other), 0)
    begin = there.rfind(" ", 0, apart) + 1
    return " and ".join(f"{text[begin:].partition(',')[0]} {when}" for text, when in ((there, "there"), (now, "now")))


def _optimizer(parameters: list[nn.Parameter], recipe: Recipe, weight_decay: float) -> torch.optim.Optimizer:
    """The recipe's optimiser; its rate is set at every step."""
    lr = recipe.stages[0].lr
    if recipe.optimiser == "adam":
        return torch.optim.Adam(parameters, lr=lr, betas=recipe.betas)
    return torch.optim.AdamW(parameters, lr=lr, betas=recipe.betas, weight_decay=weight_decay)


def _identity(method: Method, recipe: Recipe, settings: Settings) -> dict[str, str]:
    """What must be the same for a run to go on; plain strings, so that a checkpoint needs no pickle."""
    named = {"team": method.team, "track": method.track, "variant": method.variant, "recipe": repr(recipe)}
    drawn = {
        f"{stage.name}/{part.name}": part for stage in recipe.stages for part in stage.drawn_from(recipe.degradation)
    }
    named["degradations"] = repr({name: (part.degradation, part.share, part.repeats) for name, part in drawn.items()})
    pairs = {name: str(part.pairs.resolve()) for name, part in drawn.items() if part.pairs is not None}
    pictures = {name: str(part.pictures.resolve()) for name, part in drawn.items() if part.pictures is not None}
    named |= {"settings": repr(settings.settings)} if settings.settings else {}
    named |= ({"pairs": repr(pairs)} if pairs else {}) | ({"pictures": repr(pictures)} if pictures else {})
    chosen = (settings.data.resolve(), settings.precision, settings.seed, settings.held_out)
    return named | dict(zip(("data", "precision", "seed", "held_out"), map(str, chosen), strict=True))


def _save(path: Path, state: _State, recipe: Recipe, settings: Settings) -> None:
    part = path.with_name(f".{path.name}.part")
    torch.save(
        {
            "identity": _identity(state.method, recipe, settings),
            "iteration": state.iteration,
            "seconds": state.seconds,
            "method": state.method.state_dict(),
            "average": state.average.state_dict(),
            "memory": state.method.memory() if isinstance(state.method, Remembers) else {},
            "optimizer": state.optimizer.state_dict(),
            "scaler": state.scaler.state_dict(),
            "opponents": {name: opponent.state_dict() for name, opponent in state.opponents.items()},
            "of_opponents": {name: optimizer.state_dict() for name, optimizer in state.of_opponents.items()},
        },
        part,
    )
    part.replace(path)


def _log(path: Path, step: Step, seconds: float) -> None:
    with path.open("a") as file:
        file.write(json.dumps(asdict(step) | {"seconds": round(seconds, 1)}) + "\n")


def _export(
    state: _State, recipe: Recipe, settings: Settings, pictures: int, validation: dict[str, float | int]
) -> Path:
    dtype = DTYPES[settings.export]
    tensors = {
        name: (value.to(dtype) if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in state.average.state_dict().items()
    }
    data = save(tensors, metadata={"provenance": "retrained", "made_by": f"ntire {__version__}"})
    path = settings.out / WEIGHTS
    write_atomically(path, data)
    method = state.method
    card = {
        "team": method.team,
        "track": method.track,
        "variant": method.variant,
        "provenance": "retrained",
        "note": "Made with `ntire train`; not the team's own weights.",
        "sha256": sha256_of(data),
        "precision_saved": settings.export,
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "command": settings.command,
        **_begun_from(settings),
        "settings": dict(settings.settings),
        "data": {"folder": settings.data.name, "pictures": pictures},
        "validation": validation,
        "training": {
            "iterations": state.iteration,
            "seconds": round(state.seconds),
            "precision": settings.precision,
            "device": settings.device,
            "processor": processor(),
            "torch": torch.__version__,
            "stages": [_described(stage, recipe) for stage in recipe.stages],
            "degradation": repr(recipe.degradation),
        },
    }
    write_atomically(settings.out / "card.toml", tomli_w.dumps(card))
    return path


def _begun_from(settings: Settings) -> dict[str, dict[str, str]]:
    """For the card: what the training began with, where that was not random."""
    path = settings.begun_from
    if path is None:
        return {}
    files = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.is_file())
    return {"begun_from": {file.name: sha256_of(file) for file in files}}


def _described(stage: Stage, recipe: Recipe) -> dict[str, Any]:
    """A stage for the card."""
    plain = asdict(replace(stage, parts=(), degradation=None, pairs=None))
    own = {name: plain[name] for name in plain if name not in ("parts", "degradation", "pairs", "paired", "curve")}
    parts = [
        {"name": part.name, "degradation": repr(part.degradation), "repeats": part.repeats}
        | ({"share": part.share} if part.share is not None else {})
        | ({"pairs": part.pairs.name} if part.pairs else {})
        | ({"pictures": part.pictures.name} if part.pictures else {})
        for part in stage.drawn_from(recipe.degradation)
    ]
    return own | {"curve": repr(stage.curve), "parts": parts}
