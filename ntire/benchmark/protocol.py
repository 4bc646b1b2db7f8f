"""`ntire bench`: how long a method takes, by a protocol that no method can bend.

Each side runs in a fresh process. The clock is held here: pictures are handed over one path at a time, and what the child
measures itself is compared. The harness warms up, on pictures that are not timed; the order is drawn anew in each pass; the
two sides take turns (A B B A), so that drift falls on both. What is made while the clock runs must be what `ntire run` writes.
"""

import json
import math
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from ntire import UserError
from ntire.benchmark import nvidia_smi as nvidia
from ntire.benchmark.challenge_timing import ChallengeTimes, time_as_challenge
from ntire.benchmark.child import Setup, pixels_sha256
from ntire.benchmark.statistics import FULL, Protocol, Ratio, Times
from ntire.benchmark.throughput import Throughput
from ntire.files import sha256_of, write_atomically
from ntire.picture import raw
from ntire.picture.image import encode_png, read_header, read_pixels
from ntire.runner.device_worker import fingerprint_of
from ntire.sandbox.scratch import scratch_folder

CLOCKS_MAY_DIFFER = 0.05
"""Share by which the child's own time may be off ours, beside 2 ms for handing over."""
LOAD_TIMEOUT = 1800.0
"""Seconds; large models come from slow disks."""
PIPELINE_SECONDS, PIPELINE_PICTURES = 10.0, (8, 200)
"""How long a run from files to files is to take, and the fewest and most pictures of it."""
CLOCK_MAY_DRIFT = 0.03
"""Share of the GPU's clock."""


@dataclass(frozen=True)
class Picture:
    """One picture to time on."""

    name: str
    path: Path


@dataclass
class Side:
    """A method that is measured, and what was found."""

    name: str
    setup: Setup
    facts: dict[str, Any] = field(default_factory=dict)
    load_s: float = 0.0
    """From starting the process to a method that is ready."""
    first_ms: float = 0.0
    """The first call of all: lazy imports, compilers and autotuners are in it."""
    walls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    forwards: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    on_device: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """From integers to integers where the networks run: conversions and tiles included, files and copies not."""
    clocks: list[tuple[float, float]] = field(default_factory=list)
    """Milliseconds of each call, ours and the child's: of the wall on a GPU, of the processor on a CPU, where others may hold
    up the handing over.
    """
    cpus: list[float] = field(default_factory=list)
    peaks: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """By phase: load, warm-up, timed."""
    hashes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Heights and widths of the inputs."""


@dataclass(frozen=True)
class BenchReport:
    """What was found; times are absolute, ratios are this side over the other."""

    side: Side
    against: Side | None
    protocol: Protocol
    seed: int
    passes: int
    seconds: float
    wall_ratio: Ratio | None
    cpu_ratio: Ratio | None
    """Of process CPU time: what to quote on a CPU."""
    compared: int
    """Pictures whose pixels are known from a run, and were the same each time."""
    gpu: dict[str, list[str]]
    """What the driver said before, during and after."""
    problems: tuple[str, ...]
    """Why the measurement is invalid."""
    warnings: tuple[str, ...]
    challenge: ChallengeTimes | None = None
    """The method as efficiency challenges time it, if that was asked for."""
    throughput: Throughput | None = None
    """Of a run over the pictures; None in a sandbox."""

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        return {
            "method": self.side.name,
            **_side_as_json(self.side),
            "against": {"method": self.against.name, **_side_as_json(self.against)} if self.against else None,
            "ratio": {
                "wall": asdict(self.wall_ratio) if self.wall_ratio else None,
                "cpu": asdict(self.cpu_ratio) if self.cpu_ratio else None,
            },
            "protocol": {
                **asdict(self.protocol), "seed": self.seed, "passes_made": self.passes, "seconds_made": self.seconds,
            },
            "throughput": self.throughput.as_json() if self.throughput else None,
            "outputs_compared": self.compared,
            "commit": _commit(),
            "gpu": self.gpu,
            **({"esr": self.challenge.as_json()} if self.challenge else {}),
            "problems": list(self.problems),
            "warnings": list(self.warnings),
        }  # fmt: skip

    def measured_at(self, size: tuple[int, int] | None) -> Times | None:
        """End to end on the pictures of a height and width, or on all; None if there are none."""
        walls = {name: times for name, times in self.side.walls.items() if size in (None, self.side.sizes[name])}
        return Times.of(walls) if walls else None


def _side_as_json(side: Side) -> dict[str, Any]:
    return {
        "variant": side.setup.variant or "",
        "inputs": sorted({*side.sizes.values()}),
        "load_s": side.load_s,
        "first_call_ms": side.first_ms,
        "end_to_end": asdict(Times.of(side.walls)),
        "forward": asdict(Times.of(side.forwards)) if side.forwards else None,
        "restore_on_device": asdict(Times.of(side.on_device)) if side.on_device else None,
        "cpu_ms_median": median(side.cpus),
        "memory_mb": side.peaks,
        "outputs": {name: sorted(found) for name, found in side.hashes.items()},
        "environment": side.facts,
    }


def bench(
    setup: Setup,
    against: tuple[str, Setup] | None,
    pictures: Sequence[Picture],
    scored: Mapping[str, str],
    protocol: Protocol = FULL,
    *,
    seed: int = 0,
    timeout: float = 600.0,
    say: Callable[[str], None] = lambda line: None,
    start: "Callable[[Side, float], BenchChild] | None" = None,
    as_challenge: bool = False,
) -> BenchReport:
    """Measure a method, and in turn with it another one, on pictures. `start` makes the process of a side: one of our own, or
    one in a sandbox.

    `scored` has the `pixels_sha256` of what a run wrote, by picture. Raises UserError (exit code 3) if a child crashes, hangs
    for `timeout` seconds, or cannot load, or if somebody else computes on the GPU.
    """
    device = str(setup.options["device"])
    warnings = _exclusive(device)
    sides = [Side(setup.team, setup)] + ([Side(*against)] if against else [])
    states = [nvidia.state(device)]
    challenge = time_as_challenge(setup, pictures, timeout, start or BenchChild, Side) if as_challenge else None
    with scratch_folder() as folder:
        made = _warm_ups(pictures, setup.track, folder)
        children: list[BenchChild] = []
        try:
            for side in sides:
                children.append((start or BenchChild)(side, timeout))
            _warm_up(children, made, protocol, say)
            passes = _Passes(pictures, children, random.Random(seed))
            while protocol.more(passes.made, passes.seconds, len(passes.wall) if against else None):
                passes.make_one()
                states.append(nvidia.state(device))
                say(f"pass {passes.made}: {passes.seconds:.1f} s")
            for child in children:
                child.note_peaks("timed")
            throughput = children[0].throughput(pictures, protocol, folder / "run")
        finally:
            for child in children:
                child.end()
    problems = [problem for side in sides for problem in _problems(side, scored if side is sides[0] else {})]
    return BenchReport(
        sides[0],
        sides[1] if against else None,
        protocol,
        seed,
        passes.made,
        passes.seconds,
        Ratio.of(passes.wall) if passes.wall else None,
        Ratio.of(passes.cpu) if passes.cpu else None,
        compared=sum(name in scored for name in sides[0].hashes),
        gpu={key: [one[key] for one in states if one] for key in states[0]},
        problems=tuple(problems),
        warnings=(*warnings, *_warnings(states)),
        challenge=challenge,
        throughput=throughput,
    )


def _warm_up(
    children: "Sequence[BenchChild]", made: Sequence[Picture], protocol: Protocol, say: Callable[[str], None]
) -> None:
    for child in children:
        say(f"{child.side.name}: loaded in {child.side.load_s:.2f} s; warming up")
        child.warm_up(made, protocol)


class _Passes:
    """Passes over the pictures in shuffled order; the sides take turns in being first."""

    def __init__(self, pictures: Sequence[Picture], children: "Sequence[BenchChild]", order: random.Random) -> None:
        self._pictures, self._children, self._order = list(pictures), list(children), order
        self._began = time.perf_counter()
        self._turns = 0
        self.made = 0
        self.seconds = 0.0
        """From the first picture to the end of the latest pass."""
        self.wall: list[tuple[float, float]] = []
        """Of each picture, this side and the other; empty without another."""
        self.cpu: list[tuple[float, float]] = []

    def make_one(self) -> None:
        """Time every picture once on each side."""
        for picture in self._order.sample(self._pictures, len(self._pictures)):
            forwards = self._turns % 2 == 0
            taken = [child.timed(picture) for child in (self._children if forwards else self._children[::-1])]
            self._turns += 1
            if len(taken) == 2:
                this, other = taken if forwards else taken[::-1]
                self.wall.append((this[0], other[0]))
                self.cpu.append((this[1], other[1]))
        self.made += 1
        self.seconds = time.perf_counter() - self._began


def scored_pixels(entry: Path, pictures: Sequence[Picture], digests: Mapping[str, str | None]) -> dict[str, str]:
    """`pixels_sha256` of an entry's images; `digests` are the files' as its journal has them.

    Raises UserError for an image that is not there or is not the one that the journal speaks of.
    """
    found, problems = {}, []
    for picture in pictures:
        path = entry / "images" / f"{picture.name}.png"
        if not path.is_file():
            problems.append(f"{path}: expected the image that a run made, found none")
        elif digests.get(picture.name, sha256_of(path)) != sha256_of(path):
            problems.append(f"{path}: is not the image that the journal speaks of")
        else:
            found[picture.name] = pixels_sha256(read_pixels(path))
    if problems:
        raise UserError("\n".join(problems) + "\nRun the method again on the same pictures.")
    return found


class BenchChild:
    """A process that answers; whatever goes wrong in it is a UserError with what it said."""

    def __init__(self, side: Side, timeout: float) -> None:
        self.side = side
        self.timeout = timeout
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        threads = str(side.setup.threads)
        began = time.perf_counter_ns()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ntire.benchmark.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )
        try:
            loaded = self.ask(asdict(side.setup), "load", max(timeout, LOAD_TIMEOUT))
        except BaseException:
            self.end()
            raise
        side.load_s = (time.perf_counter_ns() - began) / 1e9
        side.facts = loaded.pop("facts")
        side.facts["scale"] = loaded.pop("scale")
        side.peaks["load"] = loaded

    def warm_up(self, made: Sequence[Picture], protocol: Protocol) -> None:
        """At least so many calls for each size, so many in all, and so many seconds."""
        began, calls = time.perf_counter(), 0
        while (
            calls < protocol.warm_calls * len(made)
            or calls < protocol.warm_calls_in_all
            or time.perf_counter() - began < protocol.warm_seconds
        ):
            picture = made[calls % len(made)]
            wall, _, _ = self._restore(picture)
            self.side.first_ms = self.side.first_ms or wall
            calls += 1
        self.note_peaks("warm-up")

    def timed(self, picture: Picture) -> tuple[float, float]:
        """One call that counts: wall and CPU milliseconds by our clocks."""
        wall, cpu, own = self._restore(picture)
        side = self.side
        side.walls[picture.name].append(wall)
        side.cpus.append(cpu)
        if "cpu_ms" in own:
            side.clocks.append((cpu, own["cpu_ms"]) if side.facts["device"] == "cpu" else (wall, own["wall_ms"]))
        if own["forward_ms"] is not None:
            side.forwards[picture.name].append(own["forward_ms"])
        if own.get("device_ms") is not None:
            side.on_device[picture.name].append(own["device_ms"])
        side.sizes[picture.name] = own["height"], own["width"]
        side.hashes[picture.name].add(self.made(picture))
        return wall, cpu

    def networks_ms(self, picture: Picture) -> float | None:
        """Milliseconds of the networks alone in one call, by the child's clock; None where they are not run apart."""
        found: float | None = self._restore(picture)[2]["forward_ms"]
        return found

    def throughput(self, pictures: Sequence[Picture], protocol: Protocol, folder: Path) -> Throughput | None:
        """A run over the pictures, again and again for about PIPELINE_SECONDS."""
        each = Times.of(self.side.walls).median_ms / 1e3
        fewest, most = PIPELINE_PICTURES
        count = 4 if protocol.quick else min(max(math.ceil(PIPELINE_SECONDS / each), fewest), most)
        paths = [str(picture.path) for picture in pictures]
        request = {"do": "throughput", "paths": paths, "count": count, "folder": str(folder)}
        return Throughput(**self.ask(request, "a run over all pictures", self.timeout * count))

    def made(self, picture: Picture) -> str:
        """`pixels_sha256` of what the last call made."""
        found: str = self.ask({"do": "hash"}, picture.name)["sha256"]
        return found

    def note_peaks(self, phase: str) -> None:
        self.side.peaks[phase] = self.ask({"do": "peaks"}, phase)

    def _restore(self, picture: Picture) -> tuple[float, float, dict[str, Any]]:
        request = {
            "do": "restore",
            "path": str(picture.path),
            "fingerprint": fingerprint_of(picture.path, self.side.setup.track),
        }
        cpu, wall = self._cpu_ns(), time.perf_counter_ns()
        own = self.ask(request, picture.name)
        wall, cpu = time.perf_counter_ns() - wall, self._cpu_ns() - cpu
        return wall / 1e6, cpu / 1e6, own

    def _cpu_ns(self) -> int:
        """The child's CPU time on all its threads: Linux derives a process's clock from its number."""
        return time.clock_gettime_ns((~self.process.pid << 3) | 2)

    def ask(self, request: dict[str, Any], about: str, timeout: float | None = None) -> dict[str, Any]:
        """The answer to a request; raises UserError if there is none, or if it is an error."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._failed(f"it ended before {about}") from None
        timeout = timeout or self.timeout
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        if not ready:
            raise self._failed(f"no answer about {about} for {timeout:g} s (--timeout)", patience=0)
        line = self.process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._failed(f"it ended at {about}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise UserError(answer["error"], exit_code=answer["exit_code"])
        return answer

    def _failed(self, what: str, patience: float = 30) -> UserError:
        try:
            # A process that has closed its pipe takes a moment to end.
            code = self.process.wait(patience)
            ended = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            ended = "it was stopped"
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()[-8:]
        said = "\n  ".join(lines) if lines else "nothing"
        return UserError(f"{self.side.name}: {what}; {ended}. It said:\n  {said}", exit_code=3)

    def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.said.close()


def _commit() -> str | None:
    """The commit of the ntire that runs, if it runs from a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _exclusive(device: str) -> list[str]:
    """Refuse a GPU on which somebody else computes; say so where that cannot be known."""
    if not device.startswith("cuda"):
        return []
    others = nvidia.compute_processes(device)
    if others is None:
        return ["nvidia-smi does not answer: whether somebody else computes on the GPU is not known"]
    if others:
        named = ", ".join(f"{one.pid} ({one.name}, {one.memory} MiB)" for one in others)
        raise UserError(
            f"{device}: expected a GPU of our own, found other processes: {named}. Wait for them or choose another GPU.",
            exit_code=3,
        )
    return []


def _warm_ups(pictures: Sequence[Picture], track: str, folder: Path) -> list[Picture]:
    """One picture for each distinct size: the first of that size, turned by half a turn, so that it is none of the timed."""
    made: dict[tuple[int, int], Picture] = {}
    for picture in pictures:
        size = size_of_input(picture.path, track)
        if size in made:
            continue
        path = folder / f"{len(made)}{'.npy' if track == 'raw' else '.png'}"
        if track == "raw":
            _turned_frame(picture.path, path)
        else:
            write_atomically(path, encode_png(np.ascontiguousarray(read_pixels(picture.path)[::-1, ::-1])))
        made[size] = Picture(f"warm-up {size[0]} x {size[1]}", path)
    return list(made.values())


def size_of_input(path: Path, track: str) -> tuple[int, int]:
    """Height and width of an input."""
    if track == "raw":
        height, width = raw.read_raw(path).samples.shape[-2:]
        return height, width
    header = read_header(path)
    return header.height, header.width


def _turned_frame(source: Path, path: Path) -> None:
    frame = raw.read_raw(source)
    mosaic = frame.mosaic[0].flip(0, 1)
    height, width = mosaic.shape
    # Turned by half a turn, an even mosaic has its colours in the opposite order; an odd side leaves that axis as it was.
    grid = [[frame.cfa[0], frame.cfa[1]], [frame.cfa[2], frame.cfa[3]]]
    turned = [grid[(row + height - 1) % 2][(column + width - 1) % 2] for row in (0, 1) for column in (0, 1)]
    write_mosaic(frame, mosaic.numpy(), "".join(turned), path)


def write_mosaic(frame: raw.RawFrame, mosaic: NDArray[Any], cfa: str, path: Path) -> None:
    """A mosaic (H, W) in [0, 1] as a `.npy` of 16 bits, and the TOML beside it that says the rest as `frame` has it."""
    np.save(path, (mosaic * 65535).round().astype(np.uint16))
    facts = {
        "cfa": cfa,
        "black_level": 0.0,
        "white_level": 65535.0,
        "white_balance": list(frame.white_balance),
        "ccm": [list(row) for row in frame.ccm],
        **({"iso": frame.iso} if frame.iso else {}),
    }
    write_atomically(path.with_suffix(".toml"), tomli_w.dumps(facts))


def _problems(side: Side, scored: Mapping[str, str]) -> list[str]:
    """Why the measurement is invalid: outputs that change or are not the scored ones, and clocks that disagree."""
    found = [
        f"{side.name}: {name}: {len(digests)} different results from the same input"
        for name, digests in side.hashes.items()
        if len(digests) > 1
    ]
    found += [
        f"{side.name}: {name}: what was timed is not what was scored (an entry made with other threads may differ: --threads)"
        for name, digests in side.hashes.items()
        if name in scored and digests != {scored[name]}
    ]
    if not side.clocks:  # a stranger's own clock says nothing
        return found
    ours, own = (median(walls) for walls in zip(*side.clocks, strict=True))
    if abs(ours - own) > CLOCKS_MAY_DIFFER * ours + 2:
        found.append(f"{side.name}: clocks disagree: {ours:.2f} ms by ours, {own:.2f} ms by its own")
    return found


def _warnings(states: Sequence[dict[str, str]]) -> list[str]:
    """What the GPU did meanwhile."""
    busy = [state for state in states[1:] if state]
    clocks = [float(state["clocks.sm"]) for state in busy if state["clocks.sm"].isdigit()]
    found = []
    if clocks and max(clocks) > (1 + CLOCK_MAY_DRIFT) * min(clocks):
        found.append(f"the GPU's clock went from {min(clocks):g} to {max(clocks):g} MHz while the clock ran")
    reasons = {state[name] for state in busy for name in nvidia.THROTTLED if name in state} - {
        "0x0000000000000000",
        "0x0000000000000001",
    }
    if any(reason.startswith("0x") for reason in reasons):
        found.append(f"the GPU was held back: throttle reasons {', '.join(sorted(reasons))}")
    return found
