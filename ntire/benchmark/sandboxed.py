"""`ntire bench` and `ntire cost` of code that is not trusted: the same questions, asked into a sandbox.

Time, processor time, memory and pixels are measured from outside. What only the code can say (parameters, multiply-adds, time
in its networks, memory on a GPU) is held against a form and shown as what the code says: it is no more than that.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ntire import UserError
from ntire.benchmark.child import Setup
from ntire.benchmark.cost import Figures, Size
from ntire.benchmark.protocol import BenchChild, Picture, Side, size_of_input
from ntire.benchmark.statistics import Protocol
from ntire.benchmark.throughput import Throughput
from ntire.environment import environment
from ntire.files import sha256_of
from ntire.picture.raw import facts_text
from ntire.picture.scale import MOST_SCALE, enlarged
from ntire.runner.device_worker import fingerprint_of
from ntire.sandbox import child as sandbox
from ntire.sandbox.child import Answer, Backend, Place, describe
from ntire.sandbox.confinement import refuse_unconfined
from ntire.sandbox.exchange import Exchange
from ntire.sandbox.limits import Limits, family
from ntire.text import printable

PROGRAM = "ntire.benchmark.child"
MOST_FIGURES = 1 << 20
"""Bytes of the figures of `ntire cost`."""
INSIDE = "/sub"


@dataclass(frozen=True)
class Sandbox:
    """Where a stranger's method is measured."""

    backend: Backend
    code: Path
    """A copy of its folder that the sandbox's user may read."""
    scratch: Path
    limits: Limits = field(default_factory=Limits)
    weights: Mapping[str, Path] = field(default_factory=dict)
    """Fetched files that it may see: of the other side, where that is a method of the catalogue, or of its own."""
    file: str = ""
    """Of the code, where it is not the folder's method.py."""

    def inside(self, child: sandbox.Child) -> str:
        """The path of the code as the child knows it."""
        return str(Path(child.paths["code"]) / self.file)


def cost_in_sandbox(
    where: Sandbox,
    at: Size | None,
    macs_at: Size | None,
    memory_at: Size | None,
    tile: int | None,
    *,
    settings: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What `ntire.benchmark.cost.cost_in_full` says of the code in there, with `settings` of its own.

    Raises UserError (exit code 1) for code that does not load, cannot be counted, or answers something else.
    """
    exchange = Exchange(where.scratch)
    with sandbox.Child(where.backend, Place(where.code, exchange.folder), where.limits, PROGRAM) as child:
        _begin(child, where, "cpu")
        asked = {"op": "cost", "code": where.inside(child), "at": at, "macs_at": macs_at, "memory_at": memory_at}
        answer = child.ask(
            {**asked, "tile": tile, "settings": dict(settings or {})}, where.limits.start_seconds, MOST_FIGURES
        )
        _refuse(answer, "its code", child)
    try:
        figures = Figures.model_validate_json(answer.data)
    except ValidationError as error:
        first = error.errors()[0]
        at_key = ".".join(map(str, first["loc"]))
        raise UserError(f"its code answers no figures: {printable(at_key)}: {first['msg']}.", exit_code=1) from None
    plain: dict[str, Any] = _shown(figures.model_dump())
    if tile is None:
        for name in ("tiling", "halo", "reach", "seams", "reach_problems"):
            del plain[name]
    return plain


class SandboxedChild(BenchChild):
    """One side of `ntire bench` in a sandbox: pixels come out within the time that is taken, so both sides should be in one."""

    def __init__(self, side: Side, timeout: float, where: Sandbox) -> None:
        self.side = side
        self.timeout = timeout
        self._bits = int(side.setup.options["bits"])
        self._exchange = Exchange(where.scratch)
        device = str(side.setup.options["device"])
        limits = replace(where.limits, seconds=timeout)
        began = time.perf_counter()
        self._child = sandbox.Child(
            where.backend, Place(where.code, self._exchange.folder, where.weights, device), limits, PROGRAM
        )
        try:
            _begin(self._child, where, "cpu" if device == "cpu" else "cuda")
            inside = {**side.setup.options, "device": "cpu" if device == "cpu" else "cuda"}
            said = self.ask(
                asdict(_for_inside(side.setup, inside, where.inside(self._child))), "load", limits.start_seconds
            )
            self._scale = _scale(said.get("scale"))
        except BaseException:
            self.end()
            raise
        side.load_s = time.perf_counter() - began
        side.facts = {
            **environment(device),
            "precision": side.setup.options["precision"],
            "threads": side.setup.threads,
            "sandbox": describe(where.backend, self._child.held_by),
        }
        self.note_peaks("load")

    def ask(self, request: dict[str, Any], about: str, timeout: float | None = None) -> dict[str, Any]:
        """The fields of an answer; raises UserError if there is none, or if it is an error."""
        answer = self._child.ask(request, timeout or self.timeout)
        _refuse(answer, f"{self.side.name}: {about}", self._child)
        return dict(answer.fields)

    def throughput(self, pictures: Sequence[Picture], protocol: Protocol, folder: Path) -> Throughput | None:
        """None: files are handed over one by one."""
        return None

    def call(self, picture: Picture) -> float:
        """Milliseconds of one call, by our clock."""
        return self._restore(picture)[0]

    def made(self, picture: Picture) -> str:
        return self._made

    def note_peaks(self, phase: str) -> None:
        said = self.ask({"do": "peaks"}, phase)
        self.side.peaks[phase] = {"device_mb": _number(said.get("device_mb")), "host_mb": self._resident_peak_mb()}

    def end(self) -> None:
        self._child.close()

    def _restore(self, picture: Picture) -> tuple[float, float, dict[str, Any]]:
        kind = self.side.setup.track
        height, width = enlarged(size_of_input(picture.path, kind), self._scale)
        most = height * width * 3 * self._bits // 8
        with self._exchange.showing(picture.path, facts_text(picture.path)) as name:
            request = {"do": "restore", "path": self._child.path_of(name), "pixels": True}
            request["fingerprint"] = fingerprint_of(picture.path, kind)
            cpu = self._cpu_ns()
            answer = self._child.ask(request, self.timeout, most)
            cpu = max(0, self._cpu_ns() - cpu)
        _refuse(answer, f"{self.side.name}: {picture.name}", self._child)
        if len(answer.data) != most:
            raise UserError(
                f"{self.side.name}: {picture.name}: expected {height} x {width} pixels of {self._bits} bits, found "
                f"{len(answer.data):,} bytes.",
                exit_code=1,
            )
        self._made = sha256_of(f"{height} {width} uint{self._bits}\n".encode() + answer.data)
        lq = {"height": height // self._scale, "width": width // self._scale}
        own = {"forward_ms": _number(answer.fields.get("forward_ms")), **lq}
        return 1000 * answer.seconds, cpu / 1e6, own

    def _cpu_ns(self) -> int:
        """Of all its processes: Linux derives a process's clock from its number."""
        total = 0
        for process in family(self._child.process):
            try:
                total += time.clock_gettime_ns((~process << 3) | 2)
            except OSError:  # it has just ended
                continue
        return total

    def _resident_peak_mb(self) -> float:
        peak = 0.0
        for process in family(self._child.process):
            try:
                lines = Path(f"/proc/{process}/status").read_text().splitlines()
            except OSError:
                continue
            peak = max([peak, *(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))])
        return peak


def _for_inside(setup: Setup, options: dict[str, Any], code: str) -> Setup:
    """A folder is known by another name inside; a method of the catalogue is not."""
    return replace(setup, team=code if "/" in setup.team else setup.team, options=options)


def _begin(child: sandbox.Child, where: Sandbox, device: str) -> None:
    ready = child.begin(device)
    refuse_unconfined(ready.fields, where.backend, device, f"{ready.problem} {child.printed.strip()[-500:]}")


def _refuse(answer: Answer, about: str, child: sandbox.Child) -> None:
    """Raise UserError (exit code 1: it is the code's) if there is no answer, or if it is an error."""
    if answer.state == "answered" and "error" not in answer.fields:
        return
    said = "\n  ".join(child.printed.strip().splitlines()[-8:])
    why = printable(str(answer.fields.get("error") or answer.problem))[:2000]
    raise UserError(f"{about}: {why}" + (f"\nIt printed:\n  {said}" if said else ""), exit_code=1)


def _number(value: object) -> float | None:
    return (
        float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12 else None
    )


def _scale(value: object) -> int:
    """What the code says of its scale; 1 for what is none, and then its pixels are found to be too many."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_SCALE else 1


def _shown(value: Any) -> Any:
    """Text of the code, made safe to show."""
    if isinstance(value, dict):
        return {_shown(key): _shown(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(one) for one in value]
    return printable(value) if isinstance(value, str) else value
