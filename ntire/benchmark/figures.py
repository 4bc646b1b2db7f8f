"""Submitted code counted and timed in a sandbox: the figures that stand beside its claims."""

import contextlib
import itertools
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ntire import UserError
from ntire.benchmark.child import Setup
from ntire.benchmark.cost import Size
from ntire.benchmark.protocol import Picture, Side, size_of_input, write_mosaic
from ntire.benchmark.sandboxed import Sandbox, SandboxedChild, cost_in_sandbox
from ntire.entry.measured import AtSize, Measured
from ntire.environment import environment, processor
from ntire.files import write_atomically
from ntire.picture import raw
from ntire.picture.image import as_image, as_pixels, encode_png, read_pixels

WARM_CALLS, TIMED_CALLS = 2, 5
"""The latter on changed pictures, and as many on the inputs as they are, if these have the size."""
MOST_SECONDS = 120.0
"""For all calls of one size; at least one is timed."""
MOST_PIXELS = 1 << 25
"""Of a size that is measured: a little more than an 8K frame. The manifest names sizes, and it is a stranger's."""
NO_SIZE = f"no size of at most {MOST_PIXELS:,} pixels"
WEIGHTS_MAY_HOLD = 0.5
"""Share of the values in weights files below which a count of parameters is doubtful; training leaves averages in them."""
LONGEST_PROBLEM = 200
"""Characters of a reason."""


@dataclass(frozen=True)
class MeasurePlan:
    """What is to be measured of an entry's code, apart from where."""

    macs_at: tuple[Size, ...]
    """Heights and widths; at the first one at least parameters are counted, or at the method's own if there are none."""
    runtime_at: tuple[Size | None, ...]
    """The same; None for the inputs as they are."""
    inputs: Sequence[Path]
    """Pictures to time on, after changes that nobody can foresee."""
    kind: str
    """Of the inputs: raw, srgb or face."""
    device: str = "cpu"
    settings: Mapping[str, str] = field(default_factory=dict)


def figures_of(where: Sandbox, asked: MeasurePlan) -> Measured:
    """Parameters and multiply-adds by our counters, the runtime by our clock.

    What the code does not let us measure is absent, with the reason. Raises UserError (exit code 3) only for what is ours: a
    sandbox or a device that does not work.
    """
    counted, problems = _counted(where, asked)
    found = replace(counted, threads=torch.get_num_threads())
    if not asked.inputs:
        return replace(found, problems=(*problems, "timing: there are no inputs to time it on"))
    runtimes, slow = _timed(where, asked)
    return replace(found, runtime_ms=runtimes, device=device_name(asked.device), problems=(*problems, *slow))


def device_name(device: str) -> str:
    """The GPU's name, or the processor's."""
    return processor() if device == "cpu" else environment(device)["device"]


def _counted(where: Sandbox, asked: MeasurePlan) -> tuple[Measured, list[str]]:
    problems = [f"counting {_name(size)}: {NO_SIZE}" for size in asked.macs_at if not _meant(size)]
    params, macs = None, []
    # A size that cannot be meant hides nothing else: the method is then counted at its own.
    sizes: Sequence[Size | None] = [size for size in asked.macs_at if _meant(size)] or [None]
    for size in sizes:
        try:
            found = cost_in_sandbox(
                _apart(where, f"count-{_name(size)}"), size, None, None, None, settings=asked.settings
            )
        except UserError as error:
            problems.append(_reason(f"counting {_name(size)}", error))
            continue
        params = max(params or 0.0, found["params"] / 1e6)
        if size:
            macs.append(AtSize(found["macs"] / 1e9, size))
        problems += [f"counting: {one}"[:LONGEST_PROBLEM] for one in found["problems"]]
    held = _values_in_weights(where) / 1e6
    if params is not None and params < held * WEIGHTS_MAY_HOLD:
        problems.append(f"counting: {params:.4g} M parameters, but its weights files hold {held:.4g} M values")
    return Measured(params, tuple(macs)), list(dict.fromkeys(problems))


def _timed(where: Sandbox, asked: MeasurePlan) -> tuple[tuple[AtSize, ...], list[str]]:
    options = {"device": asked.device, "precision": "fp32", "tile": "auto", "bits": 8}
    options |= {"weights": None, "settings": [[*pair] for pair in sorted(asked.settings.items())]}
    side = Side("its code", Setup("./", asked.kind, None, options, torch.get_num_threads()))
    found, problems = [], []
    for size in asked.runtime_at:
        if not _meant(size):
            problems.append(f"timing {_name(size)}: {NO_SIZE}")
            continue
        try:
            # A process for each size: one that has died answers nothing more.
            apart = _apart(where, f"time-{_name(size)}")
            child = SandboxedChild(side, where.limits.seconds, apart)
            try:
                found.append(AtSize(_median_ms(child, asked, size, apart.scratch), size))
            finally:
                child.end()
        except UserError as error:
            problems.append(_reason(f"timing {_name(size)}", error))
    return tuple(found), problems


def _meant(size: Size | None) -> bool:
    return size is None or (min(size) > 0 and size[0] * size[1] <= MOST_PIXELS)


def _values_in_weights(where: Sandbox) -> int:
    """In all safetensors files that the code may see: what a file holds is seen from outside."""
    total = 0
    for path in {*where.code.rglob("*.safetensors"), *where.weights.values()}:
        with contextlib.suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no dict
    return total


def _apart(where: Sandbox, name: str) -> Sandbox:
    """The same with a scratch folder of its own."""
    (where.scratch / name).mkdir(mode=0o755)
    return replace(where, scratch=where.scratch / name)


def _name(size: Size | None) -> str:
    return f"at {size[0]} x {size[1]}" if size else "at its own size"


def _median_ms(child: SandboxedChild, asked: MeasurePlan, size: Size | None, folder: Path) -> float:
    """The slower of two medians: over changed pictures, whose answers nobody can have kept, and over the inputs themselves,
    whose answers are compared with the entry's images.
    """
    made = changed(asked.inputs, asked.kind, size, WARM_CALLS + TIMED_CALLS, folder)
    began = time.monotonic()
    for picture in itertools.islice(made, WARM_CALLS):
        child.call(picture)
    own = [path for path in asked.inputs if size in (None, size_of_input(path, asked.kind))]
    chosen = random.SystemRandom().sample(own, min(TIMED_CALLS, len(own)))
    walls: tuple[list[float], list[float]] = ([], [])
    for pair in itertools.zip_longest(made, (Picture(path.stem, path) for path in chosen)):
        for picture, taken in zip(pair, walls, strict=True):
            if picture is not None:
                taken.append(child.call(picture))
        if time.monotonic() - began > MOST_SECONDS:
            break
    return max(median(taken) for taken in walls if taken)


def changed(inputs: Sequence[Path], kind: str, size: Size | None, count: int, folder: Path) -> Iterator[Picture]:
    """Pictures of a size, each of them another one: an input rolled by an even number of rows and columns that nobody
    knows, repeated or cut to the size. Answers that were kept for the inputs, or for the picture before, do not fit.
    """
    taken: dict[Path, set[tuple[int, ...]]] = {}
    for number in range(count):
        source = inputs[number % len(inputs)]
        used = taken.setdefault(source, set())
        height, width = size or size_of_input(source, kind)
        path = folder / f"{number}{'.npy' if kind == 'raw' else '.png'}"
        if kind == "raw":
            frame = raw.read_raw(source)
            write_mosaic(frame, _rolled(frame.mosaic[0].numpy(), height, width, used), frame.cfa, path)
        else:
            write_atomically(path, encode_png(as_pixels(as_image(_rolled(read_pixels(source), height, width, used)))))
        yield Picture(path.stem, path)


def _rolled(pixels: NDArray[Any], height: int, width: int, used: set[tuple[int, ...]]) -> NDArray[Any]:
    """By even numbers that are not `used` yet, from an even part: the colours of a mosaic stay in their places."""
    periods = [size // 2 * 2 or 1 for size in pixels.shape[:2]]
    choices = [range(0, period, 2) for period in periods]
    secret = random.SystemRandom()
    drawn = tuple(map(secret.choice, choices))
    while drawn in used and len(used) < math.prod(map(len, choices)):
        drawn = tuple(map(secret.choice, choices))
    used.add(drawn)
    for axis, side in enumerate((height, width)):
        pixels = np.take(pixels, (np.arange(side) + drawn[axis]) % periods[axis], axis)
    return np.ascontiguousarray(pixels)


def _reason(what: str, error: UserError) -> str:
    if error.exit_code == 3:
        raise error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{what}: {lines[0] if lines else 'no answer'}"[:LONGEST_PROBLEM]
